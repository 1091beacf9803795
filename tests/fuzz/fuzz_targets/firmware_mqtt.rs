//! The packets that firmware takes from a broker: what is read is read again from its own bytes, and from no fewer.
#![no_main]

// The module alone: the crate around it links on boards.
#[expect(dead_code, reason = "what a device sends is not read")]
#[path = "../../../no_std-agent/firmware/app/src/mqtt/packet.rs"]
mod packet;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((read, used))) = packet::parse(rest) {
        assert!((2..=rest.len()).contains(&used));
        assert_eq!(packet::parse(&rest[..used]), Ok(Some((read, used))));
        assert_eq!(packet::parse(&rest[..used - 1]), Ok(None));
        rest = &rest[used..];
    }
});
