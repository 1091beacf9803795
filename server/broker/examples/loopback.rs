//! A broker without TLS on a loopback port, for strangers' clients and conformance suites.
//!
//! Everyone may do everything but read and write `test/nosubscribe`. Never more than a test tool: it
//! refuses to listen anywhere but on loopback. Usage: `loopback ADDRESS [CONFIG.toml]`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use muster_broker::{AnonymousConfig, Broker, BrokerConfig, Cut, Peer};
use muster_policy::identity::AccountId;
use muster_policy::mqtt::Unjudged;
use muster_policy::time::UnixTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:1883".to_owned()).parse()?;
    if !address.ip().is_loopback() {
        return Err("this tool listens on loopback only".into());
    }
    let config = match arguments.next() {
        Some(path) => toml::from_str(&std::fs::read_to_string(path)?)?,
        None => open_to_all(),
    };
    #[expect(clippy::disallowed_methods, reason = "this program is the shell that owns the clock")]
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let broker = Broker::start(&config, UnixTime::from_secs(i64::try_from(now)?))?;
    let connections = TaskTracker::new();
    let listener = TcpListener::bind(address).await?;
    let mut stop = signal(SignalKind::terminate())?;
    loop {
        let (stream, source) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = stop.recv() => break,
        };
        stream.set_nodelay(true)?;
        let serving = broker.clone();
        let peer = Peer {
            account: AccountId::from_bytes([1; 16]),
            holder: None,
            host: "mqtt.example.com".parse()?,
            source,
            cut: Cut::never(),
            judge: Arc::new(Unjudged),
        };
        connections.spawn(async move { serving.serve(stream, peer).await });
    }
    broker.drain();
    connections.close();
    connections.wait().await;
    broker.close().await;
    Ok(())
}

fn open_to_all() -> BrokerConfig {
    let all = vec!["#".to_owned()];
    BrokerConfig {
        anonymous: Some(AnonymousConfig {
            publish: [all.clone(), vec!["$test/#".to_owned(), "$TopicA/#".to_owned()]].concat(),
            subscribe: all,
            deny: vec!["test/nosubscribe".to_owned()],
        }),
        ..BrokerConfig::default()
    }
}
