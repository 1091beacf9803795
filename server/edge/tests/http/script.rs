//! An origin that says what a test wrote down for it, and remembers what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What an origin does after it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Close,
    Stay,
}

/// The origin; it answers each head with the same octets.
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Script {
    /// Says this to each request.
    pub(crate) async fn start(says: impl Into<Vec<u8>>, then: Then) -> Self {
        let says = says.into();
        Self::by(move |_, _| (says.clone(), then)).await
    }

    /// Says what it is told to, by how many connections there were before, and requests before on this one.
    pub(crate) async fn by(says: impl Fn(usize, usize) -> (Vec<u8>, Then) + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let (heard, says) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::new(says));
        let kept = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let number = all.len();
                all.push(Vec::new());
                drop(all);
                tokio::spawn(serve(stream, number, Arc::clone(&kept), Arc::clone(&says)));
            }
        });
        Self { address, heard }
    }

    /// What it was sent, one text for each connection.
    pub(crate) fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().map(|octets| String::from_utf8_lossy(octets).into_owned()).collect()
    }

    /// Waits until it heard so.
    pub(crate) async fn until(&self, so: impl Fn(&[String]) -> bool) {
        let wait = async {
            while !so(&self.heard()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "{:?}", self.heard());
    }
}

async fn serve(
    mut stream: TcpStream,
    number: usize,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    says: Arc<impl Fn(usize, usize) -> (Vec<u8>, Then)>,
) {
    let (mut answered, mut octets) = (0, [0; 16 * 1024]);
    while let Ok(count @ 1..) = stream.read(&mut octets).await {
        let heads = {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard[number].extend_from_slice(&octets[..count]);
            heard[number].windows(4).filter(|window| window == b"\r\n\r\n").count()
        };
        if heads <= answered {
            continue;
        }
        let (answer, then) = says(number, answered);
        answered = heads;
        if stream.write_all(&answer).await.is_err() || then == Then::Close {
            return;
        }
    }
}
