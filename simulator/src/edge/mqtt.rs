//! MQTT 3.1.1 over an open connection, packet by packet; rumqttc brings the codec.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet, Publish, Subscribe, SubscribeReasonCode};
use rumqttc::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::reason::Reason;
use crate::tls::Stream;

/// CONNECT, and waits for CONNACK.
pub(super) async fn connect(stream: &mut Stream, client: &str) -> Result<(), Reason> {
    let mut connect = Connect::new(client);
    // Who holds thousands of connections must not be busy with pings; the edge's own limits decide.
    connect.keep_alive = KEEP_ALIVE_S;
    connect.clean_session = true;
    let mut out = BytesMut::new();
    connect.write(&mut out).map_err(|_| Reason::Local)?;
    send(stream, &out).await?;
    match next(stream, &mut BytesMut::new()).await? {
        Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(()),
        Packet::ConnAck(ack) => Err(Reason::Mqtt(ack.code as u8)),
        _ => Err(Reason::BadAnswer),
    }
}

/// PINGREQ, and waits for PINGRESP.
pub(super) async fn ping(stream: &mut Stream) -> Result<(), Reason> {
    send(stream, &[0xc0, 0]).await?;
    let mut buffer = BytesMut::new();
    loop {
        if next(stream, &mut buffer).await? == Packet::PingResp {
            return Ok(());
        }
    }
}

/// SUBSCRIBE, and waits for SUBACK.
pub(super) async fn subscribe(stream: &mut Stream, topic: &str) -> Result<(), Reason> {
    let mut subscribe = Subscribe::new(topic, QoS::AtMostOnce);
    subscribe.pkid = 1;
    let mut out = BytesMut::new();
    subscribe.write(&mut out).map_err(|_| Reason::Local)?;
    send(stream, &out).await?;
    match next(stream, &mut BytesMut::new()).await? {
        Packet::SubAck(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
            Err(Reason::NoSubscription)
        }
        Packet::SubAck(_) => Ok(()),
        _ => Err(Reason::BadAnswer),
    }
}

/// PUBLISH at QoS 0.
pub(super) async fn publish(stream: &mut Stream, topic: &str, payload: &[u8]) -> Result<(), Reason> {
    let publish = Publish::new(topic, QoS::AtMostOnce, payload.to_vec());
    let mut out = BytesMut::new();
    publish.write(&mut out).map_err(|_| Reason::Local)?;
    send(stream, &out).await
}

/// Waits for the next message: topic and payload.
pub(super) async fn receive(stream: &mut Stream) -> Result<(String, Vec<u8>), Reason> {
    let mut buffer = BytesMut::new();
    loop {
        if let Packet::Publish(publish) = next(stream, &mut buffer).await? {
            return Ok((publish.topic, publish.payload.to_vec()));
        }
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), Reason> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| Reason::of_io(&error))
}

async fn next(stream: &mut Stream, buffer: &mut BytesMut) -> Result<Packet, Reason> {
    loop {
        match Packet::read(buffer, MAX_PACKET_BYTES) {
            Ok(packet) => return Ok(packet),
            Err(Error::InsufficientBytes(_)) => {}
            Err(_) => return Err(Reason::BadAnswer),
        }
        buffer.reserve(READ_BYTES);
        match stream.read_buf(buffer).await {
            Ok(0) => return Err(Reason::Closed),
            Ok(_) => {}
            Err(error) => return Err(Reason::of_io(&error)),
        }
    }
}

const READ_BYTES: usize = 512;
const MAX_PACKET_BYTES: usize = 64 << 10;
/// Twenty minutes, within what brokers allow.
const KEEP_ALIVE_S: u16 = 1200;
