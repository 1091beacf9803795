//! An item of the identity store is read whole, and written again as it was, or refused. The checksum is put right
//! first, so that the decoder behind it is reached.
#![no_main]

use muster_nostd_agent::store::Item;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if let Some((body, sum)) = bytes.split_last_chunk_mut::<4>() {
        *sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(body).to_le_bytes();
    }
    for input in [data, &bytes] {
        if let Ok(item) = Item::parse(input) {
            let mut again = vec![0; input.len()];
            assert_eq!(item.write(&mut again), Ok(input.len()));
            assert_eq!(again, input);
        }
    }
});
