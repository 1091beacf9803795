//! Local programs of a device, made with libraries that know nothing of the agent: MQTT by rumqttc, HTTP by
//! hyper's client. And the origin that their requests end at.
//!
//! What happens to them is written down as it happens ([`Seen`], [`Asker::ask`]); the test judges.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rumqttc::{Event, Packet, v5};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Messages that wait in a program for its connection: more than a test publishes.
const QUEUE: usize = 4096;
/// Longest wait for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon a program that was turned away comes again; a program is no stopwatch.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// Its topic.
    pub topic: String,
    /// Its payload as text.
    pub payload: String,
    /// Whether it was kept by the broker from before.
    pub retained: bool,
}

/// What a program saw until now.
#[derive(Debug, Default)]
pub struct Seen {
    /// Messages, in their order.
    pub heard: Vec<Heard>,
    /// PUBACKs.
    pub acknowledged: usize,
    /// SUBACKs.
    pub granted: usize,
    /// Connections that were taken.
    pub connected: usize,
    /// Ends of connections and refusals, in the library's words.
    pub broken: Vec<String>,
}

impl Seen {
    /// The numbers that arrived on a topic, in their order, each with its time.
    pub fn numbers(&self, topic: &str) -> Vec<(u32, Instant)> {
        let on_topic = self.heard.iter().filter(|heard| heard.topic == topic);
        on_topic.map(|heard| (heard.payload.parse().expect("a number"), heard.at)).collect()
    }
}

/// An MQTT program; it ends with its value.
pub struct Program {
    client: AnyClient,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
enum AnyClient {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Program {
    /// A program that speaks 3.1.1 with a clean session.
    pub fn v311(address: SocketAddr, id: &str) -> Self {
        let mut options = rumqttc::MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut events) = rumqttc::AsyncClient::new(options, QUEUE);
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(packet)) => sender.send_modify(|seen| note(seen, packet)),
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => broke(&sender, &error).await,
                }
            }
        });
        Self { client: AnyClient::V311(client), seen, task }
    }

    /// A program that speaks 5.0.
    pub fn v5(address: SocketAddr, id: &str) -> Self {
        let mut options = v5::MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut events) = v5::AsyncClient::new(options, QUEUE);
        let (sender, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(v5::Event::Incoming(packet)) => sender.send_modify(|seen| note_v5(seen, &packet)),
                    Ok(v5::Event::Outgoing(_)) => {}
                    Err(error) => broke(&sender, &error).await,
                }
            }
        });
        Self { client: AnyClient::V5(client), seen, task }
    }

    /// Subscribes at QoS 1, and returns when that is granted.
    pub async fn listening(mut self, filter: &str) -> Self {
        match &self.client {
            AnyClient::V311(client) => {
                client.subscribe(filter, rumqttc::QoS::AtLeastOnce).await.expect("a place");
            }
            AnyClient::V5(client) => {
                client.subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).await.expect("a place");
            }
        }
        self.until("a subscription", |seen| seen.granted > 0).await;
        self
    }

    /// Publishes a number at QoS 1.
    pub async fn publish(&self, topic: &str, number: u32) {
        let payload = number.to_string();
        match &self.client {
            AnyClient::V311(client) => {
                client.publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).await.expect("a place");
            }
            AnyClient::V5(client) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                client.publish(topic, qos, false, payload).await.expect("a place");
            }
        }
    }

    /// What it saw.
    pub fn seen(&self) -> watch::Ref<'_, Seen> {
        self.seen.borrow()
    }

    /// Waits until it has seen this.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Seen) -> bool) -> watch::Ref<'_, Seen> {
        let before = format!("{:?}", self.seen.borrow().broken);
        match tokio::time::timeout(PATIENCE, self.seen.wait_for(|seen| is_so(seen))).await {
            Ok(seen) => seen.expect("a running program"),
            Err(_) => panic!("not in time: {what}; broken before: {before}"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn broke(sender: &watch::Sender<Seen>, error: &(impl Display + Sync)) {
    sender.send_modify(|seen| seen.broken.push(error.to_string()));
    tokio::time::sleep(AGAIN_AFTER).await;
}

fn note(seen: &mut Seen, packet: Packet) {
    match packet {
        Packet::ConnAck(_) => seen.connected += 1,
        Packet::PubAck(_) => seen.acknowledged += 1,
        Packet::SubAck(_) => seen.granted += 1,
        Packet::Publish(publish) => seen.heard.push(Heard {
            at: Instant::now(),
            topic: publish.topic,
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            retained: publish.retain,
        }),
        _ => {}
    }
}

fn note_v5(seen: &mut Seen, packet: &v5::mqttbytes::v5::Packet) {
    use v5::mqttbytes::v5::Packet;
    match packet {
        Packet::ConnAck(_) => seen.connected += 1,
        Packet::PubAck(_) => seen.acknowledged += 1,
        Packet::SubAck(_) => seen.granted += 1,
        Packet::Publish(publish) => seen.heard.push(Heard {
            at: Instant::now(),
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            retained: publish.retain,
        }),
        _ => {}
    }
}

/// An HTTP program, which keeps its connections as such programs do.
#[derive(Clone)]
pub struct Asker {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl Asker {
    /// A program that asks at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    /// One POST; the status and the body, or what broke, in the library's words.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self, body: String) -> Result<(u16, String), String> {
        let request = Request::post(format!("http://{}/message", self.address)).body(Full::from(body));
        let asking = async {
            let response = self.client.request(request.expect("a request")).await?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&body).into_owned()))
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }
}

/// An origin that gives back what it is sent, and notes by which certificate it came.
#[derive(Clone)]
pub struct Origin {
    /// Where it is.
    pub address: SocketAddr,
    /// Serials of the certificates that the edge told of.
    pub serials: Arc<Mutex<BTreeSet<String>>>,
}

impl Origin {
    /// Serves for as long as the runtime lives.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serials = Arc::<Mutex<BTreeSet<String>>>::default();
        let noted = Arc::clone(&serials);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                let service = service_fn(move |request| {
                    let noted = Arc::clone(&noted);
                    async move { Ok::<_, Infallible>(echo(request, &noted).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection);
            }
        });
        Self { address, serials }
    }
}

async fn echo(request: Request<Incoming>, noted: &Mutex<BTreeSet<String>>) -> Response<Full<Bytes>> {
    let serial = request.headers().get("cf-cert-serial").and_then(|serial| serial.to_str().ok());
    noted.lock().expect("no panic").extend(serial.map(str::to_owned));
    // A client that broke off hears no answer.
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::new(Full::from(body))
}
