//! Certificates for the account's own servers, from the services CA.

use std::net::IpAddr;
use std::time::Duration;

use muster_ca::keygen::GeneratedKey;
use muster_ca::server_leaf::ServerNames;
use muster_policy::host::HostPattern;
use muster_policy::identity::Serial;
use muster_policy::key::{KeyKind, WishedKey};
use zeroize::Zeroizing;

use super::{Authority, AuthorityError};
use crate::secret::random_or_refuse;

/// Lifetime of a server certificate; it is made anew long before.
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// How far notBefore lies in the past, against clock skew.
const BACKDATE: Duration = Duration::from_secs(300);

/// A server's certificate and key.
pub struct ServerCertificate {
    /// The certificate, then [`Trust::above_servers`](super::Trust::above_servers).
    pub chain: Vec<Vec<u8>>,
    /// The key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
}

impl Authority {
    /// Makes a certificate for a server of the account.
    ///
    /// # Errors
    /// When there is no services CA, or it may not issue for one of the names.
    pub fn server_certificate(
        &self,
        hostnames: Vec<HostPattern>,
        addresses: Vec<IpAddr>,
    ) -> Result<ServerCertificate, AuthorityError> {
        let trust = self.trust();
        let services = trust.services.as_ref().ok_or(AuthorityError::NoActiveCa("servers"))?;
        let key = GeneratedKey::generate(&WishedKey::Curve(KeyKind::EcdsaP256))
            .map_err(|_| AuthorityError::NoRandom)?;
        let now = self.clock.now();
        let end = now.plus(LIFETIME).min(services.issuer.certificate().not_after());
        let names = ServerNames { hostnames, addresses };
        let serial = Serial::new(now, random_or_refuse()?);
        let issued = services
            .issuer
            .prepare_server(&names, now.minus(BACKDATE), end, key.subject_key(), serial)?
            .sign()?;
        let mut chain = vec![issued.der];
        chain.extend(trust.above_servers());
        Ok(ServerCertificate { chain, key: key.pkcs8_der()? })
    }
}
