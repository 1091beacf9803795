//! Gives rumqttc a connection that the agent made itself.
//!
//! rumqttc's own TLS brings a second TLS stack into the program, and its dial can't say why a certificate was
//! refused. So the agent dials, and rumqttc speaks plain MQTT over a Unix socket of this process: an abstract
//! name of 128 random bits, one connection, and only from this very process (`SO_PEERCRED`).

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;

use super::tcp::BUFFER_BYTES;

/// A place where this process may connect once.
#[derive(Debug)]
pub(super) struct Bridge {
    listener: UnixListener,
    name: String,
}

impl Bridge {
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("\0muster-agent-{:032x}", fastrand::u128(..));
        Ok(Self { listener: UnixListener::bind(&name)?, name })
    }

    /// The name for `UnixStream::connect`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Take this process's connection and copy bytes both ways until one side ends.
    pub(super) async fn carry(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let own = i32::try_from(std::process::id()).ok();
        let mut local = loop {
            let (local, _) = self.listener.accept().await?;
            if own.is_some() && local.peer_cred()?.pid() == own {
                break local;
            }
        };
        drop(self.listener);
        tokio::io::copy_bidirectional_with_sizes(&mut local, &mut stream, BUFFER_BYTES, BUFFER_BYTES).await?;
        Ok(())
    }
}
