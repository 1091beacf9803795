//! A host as a board: TCP of the standard library, and randomness that repeats.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use muster_nostd_agent::entropy::{Entropy, NoEntropy};
use rand_core::{RngCore, SeedableRng};

/// A socket. Its deadline is far away: a server that says nothing is a failed test.
pub(crate) struct Tcp(TcpStream);

impl Tcp {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self(stream)
    }
}

impl ErrorType for Tcp {
    type Error = ErrorKind;
}

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.read(buffer).map_err(|error| error_kind(&error))
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(bytes).map_err(|error| error_kind(&error))
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.0.flush().map_err(|error| error_kind(&error))
    }
}

/// The same bytes on each run.
pub(crate) struct Seeded(rand_chacha::ChaCha20Rng);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(rand_chacha::ChaCha20Rng::seed_from_u64(seed))
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

/// Only a time-out is told apart: a test must not take it for the end that it expects.
fn error_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => panic!("the server says nothing"),
        _ => ErrorKind::ConnectionReset,
    }
}
