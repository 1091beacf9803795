//! MQTT in WebSockets: the edge answers the upgrade and hands the packets to the broker.
//!
//! The same certificate, rule and cuts hold as on the MQTT port. Rules of the zone and Access judge the upgrade,
//! as any request, then CONNECT, and both again when they change. Packets come as binary messages and may be cut
//! anywhere (MQTT 5 §6); a text message ends the connection. Pings are answered here.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, future};
use http::header::{
    self, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use muster_policy::host::Protocol;
use muster_policy::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::body::ResponseBody;
use super::proxy::Visit;
use super::requests::Asked;
use crate::handover::{Carrier, MqttStream};
use crate::live::Newcomer;

/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// RFC 6455 §4.1: 16 octets in base64.
const KEY_BYTES: usize = 24;
/// Packets may span messages, so this bounds no packet; it bounds what one message may hold here.
const MESSAGE_MAX_BYTES: usize = 256 * 1024;
/// tungstenite's own is 128 KiB, too much for a device that sleeps.
const BUFFER_BYTES: usize = 4 * 1024;

/// Answers an upgrade to MQTT and hands the stream over when it is made.
///
/// # Errors
/// [`Reason::RequestMalformed`] when it is not RFC 6455's.
pub(crate) fn welcome(
    visit: &Visit,
    mut request: Request<Incoming>,
    asked: &Arc<Asked>,
) -> Result<Response<ResponseBody>, Reason> {
    let accept = accept_key(&request)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (shared, source) = (Arc::clone(&visit.shared), visit.source);
    let guest = &visit.place.guest;
    let place = shared.live.enter(Newcomer {
        name: guest.name.clone(),
        host: guest.host.clone(),
        protocol: Protocol::Mqtt,
        holder: guest.holder.clone(),
        peer: source,
        since: shared.state.now(),
    });
    // The connection that this one comes from ends its own part with the answer.
    let under_way = place.guest.requests.enter(Arc::clone(asked));
    let asked = Arc::clone(asked);
    let (tasks, slots) = (shared.tasks.clone(), Arc::clone(&visit.slots));
    tasks.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_MAX_BYTES))
            .max_frame_size(Some(MESSAGE_MAX_BYTES));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        shared.hand_over(packets(socket), place, source, Carrier::WebSocket, asked).await;
        drop((under_way, slots));
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// RFC 6455 §4.2.2, item 5.4: proves that the answer is from one who read the request.
fn accept_key<B>(request: &Request<B>) -> Result<HeaderValue, Reason> {
    let version = request.headers().get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let (Some(b"13"), Some(key)) = (version, key.filter(|key| key.len() == KEY_BYTES)) else {
        return Err(Reason::RequestMalformed);
    };
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(ACCEPT_GUID);
    HeaderValue::try_from(STANDARD.encode(context.finish())).map_err(|_| Reason::RequestMalformed)
}

/// The octets inside the binary messages, both ways.
fn packets<S>(socket: WebSocketStream<S>) -> MqttStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sink, stream) = socket.split();
    let octets = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(octets)) => Some(Ok(octets)),
            Ok(Message::Text(_)) => {
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, "MQTT is in binary messages")))
            }
            Ok(_) => None,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let messages = sink
        .with(|octets: Bytes| future::ready(Ok::<_, Error>(Message::Binary(octets))))
        .sink_map_err(io::Error::other);
    Box::new(tokio::io::join(StreamReader::new(octets), SinkWriter::new(CopyToBytes::new(messages))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let request = |version: &str, key: &str| {
            let request = Request::get("/").header(SEC_WEBSOCKET_VERSION, version);
            request.header(SEC_WEBSOCKET_KEY, key).body(()).expect("a request")
        };
        // RFC 6455 §1.3.
        let accept = accept_key(&request("13", "dGhlIHNhbXBsZSBub25jZQ==")).expect("good");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accept_key(&request("8", "dGhlIHNhbXBsZSBub25jZQ==")).is_err());
        assert!(accept_key(&request("13", "short")).is_err());
    }
}
