//! From a server's name to a TLS connection, in the one connection's memory.

use crate::entropy::Entropy;
use crate::key::KeyStore;
use crate::net::{Deadline, Net};
use crate::tls::{self, ClientIdentity, ConnectError, Connection, Peer, TlsMemory};

/// What a connection is made of, lent for as long as it lives.
pub(super) struct Line<'d, 'm, N> {
    pub(super) net: &'d mut N,
    pub(super) tls: &'d mut TlsMemory<'m>,
    pub(super) deadline: &'d Deadline,
}

impl<'d, N: Net> Line<'d, '_, N> {
    /// Connects within the deadline. After an error `place` is empty.
    // Once in the image, for EST and for the application.
    #[inline(never)]
    pub(super) fn open<K: KeyStore, E: Entropy>(
        self,
        server: Peer<'_>,
        port: u16,
        client: Option<ClientIdentity<'_, K>>,
        entropy: &mut E,
        place: &mut Option<Connection<'d, N::Connection<'d>>>,
    ) -> Result<(), ConnectError> {
        let transport = self.net.connect(server.name, port, self.deadline)?;
        tls::connect(transport, self.tls, self.deadline, server, client, entropy, place)
    }
}
