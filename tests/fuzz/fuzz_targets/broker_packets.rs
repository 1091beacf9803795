//! Any octets are packets of an MQTT client, up to the first that is broken.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = muster_broker::read_packets(data);
});
