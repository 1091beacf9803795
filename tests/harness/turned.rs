//! A server inside the test's own process, whose clock the test turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use muster::config::ConfigWritten;
use muster::datadir::DataDir;
use muster::serve::{Ready, Roles, Server as Embedded};
use muster_enroll::Clock;
use tokio_util::sync::CancellationToken;

use crate::est::Est;
use crate::server::Server;

/// A server that believes it is another time; it stops when it is dropped.
pub struct Turned {
    /// Its account, for `muster` commands.
    pub account: Server,
    est: SocketAddr,
    ahead: Arc<AtomicI64>,
    stop: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Turned {
    /// Makes an account and serves it, at the true time for now.
    pub fn start() -> Self {
        let account = Server::made("[listen]\nadmin = \"127.0.0.1:0\"\nest = \"127.0.0.1:0\"\n");
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let stop = CancellationToken::new();
        let mut server = Self { account, est: none, ahead: Arc::default(), stop, thread: None };
        server.serve();
        server
    }

    /// Stops it and starts it again, at the time it believes it is.
    pub fn restart(&mut self) {
        self.stop();
        self.serve();
    }

    fn serve(&mut self) {
        self.stop = CancellationToken::new();
        let (clock, stopped) = (turned(&self.ahead), self.stop.clone());
        let dir = DataDir::new(self.account.dir());
        let (sender, ready) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            tokio::runtime::Runtime::new()?.block_on(async move {
                let config = ConfigWritten::read(&dir.config())?.check(dir.path())?;
                let roles = Roles { admin: true, edge: false, enroll: true };
                let server = Embedded::start(dir, config, roles, clock).await?;
                let told: Ready = server.ready().clone();
                server.run(stopped, move || Ok(sender.send(told)?)).await
            })
        });
        self.thread = Some(thread);
        let Ok(ready) = ready.recv_timeout(Duration::from_secs(60)) else {
            self.stop();
            panic!("it is not ready in time");
        };
        let est = ready.est.expect("EST is served");
        self.est = est.strip_prefix("https://").expect("a base").parse().expect("an address");
    }

    fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("an orderly end");
        }
    }

    /// Sets the server's clock so far from the true time, in seconds.
    pub fn turn_to(&self, ahead: i64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// An EST client without a certificate; its own clock is right.
    pub fn est(&self) -> Est {
        Est::new(self.est, &self.account.ca_file())
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock that is turned is the true one")]
fn turned(ahead: &Arc<AtomicI64>) -> Clock {
    let ahead = Arc::clone(ahead);
    Clock::from_fn(move || {
        let ahead = ahead.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    })
}

impl Drop for Turned {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop.cancel();
        } else {
            self.stop();
        }
    }
}
