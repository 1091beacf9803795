//! Packets of a local client are cut, inspected and remembered within their bounds.
#![no_main]

use bytes::BytesMut;
use muster_agent::carry::mqtt::opening::Opening;
use muster_agent::carry::mqtt::packet::PacketReader;
use muster_agent::carry::mqtt::session::Session;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut reader = PacketReader::new();
    reader.buffer().extend_from_slice(data);
    let Ok(Some(connect)) = reader.next_packet() else { return };
    let Ok(opening) = Opening::read(&connect) else { return };
    let mut session = Session::new(opening);
    while let Ok(Some(packet)) = reader.next_packet() {
        // Both sides get every packet: what one may send is a fault of the other, never a panic.
        let _ = session.opening().welcome(&packet).map(|welcome| session.welcomed(&welcome));
        let (client, upstream) = (session.handle_client(&packet), session.handle_upstream(&packet));
        if client.is_err() && upstream.is_err() {
            break;
        }
    }
    let mut out = BytesMut::new();
    session.write_takeover(&mut out);
    let mut reader = PacketReader::new();
    reader.buffer().extend_from_slice(&out);
    let connect = reader.next_packet().expect("a packet").expect("whole");
    Opening::read(&connect).expect("what is replayed can be read");
});
