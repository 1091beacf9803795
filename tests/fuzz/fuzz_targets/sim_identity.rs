//! A record of the simulator's directory of identities is read or refused. The checksum is put right first, so that
//! the reader behind it is reached.
#![no_main]

use muster_simulator::identities::read_frame;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = read_frame(data);
    let mut bytes = data.to_vec();
    if let Some((header, payload)) = bytes.split_first_chunk_mut::<8>()
        && let Ok(length) = u32::try_from(payload.len())
    {
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..]
            .copy_from_slice(&crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(payload).to_le_bytes());
        let _ = read_frame(&bytes);
    }
});
