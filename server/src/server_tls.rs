//! Server certificates that the services CA made, kept in the data directory until they have to change.
//!
//! One file holds chain and key. It is made anew when a third of its life is left, when its names no
//! longer fit, when the services CA or its root was replaced, or when the clock was ahead as it was made: nobody takes it before it begins.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_ca::certificate::LeafFacts;
use muster_enroll::{Authority, Clock};
use muster_policy::enrol::San;
use muster_policy::host::HostPattern;
use muster_policy::time::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::datadir::{Readers, write_file};

/// So long before the end of an operator's own certificate it is told: whoever makes it should have made the next one.
pub(crate) const TELL_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// Why there is no usable TLS certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// The services CA can't make one.
    #[error("the services CA can't make a server certificate: {0}")]
    Authority(muster_enroll::AuthorityError),
    /// A file can't be read or written.
    #[error("can't use {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A file holds no certificate chain and key that fit.
    #[error("{path} is no certificate chain and key in PEM: {what}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// rustls refuses.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
}

/// When a certificate that was made here is served: from its start until two thirds of its life are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    from: UnixTime,
    until: UnixTime,
}

impl Served {
    fn of(leaf: &LeafFacts) -> Self {
        Self {
            from: leaf.not_before,
            until: leaf.not_before.plus(leaf.not_after.since(leaf.not_before) / 3 * 2),
        }
    }

    /// Nothing is served, and nothing is tried anew before `until`.
    pub const fn nothing_until(now: UnixTime, until: UnixTime) -> Self {
        Self { from: now, until }
    }

    /// Whether it is at `now`.
    pub fn has(self, now: UnixTime) -> bool {
        self.from <= now && now < self.until
    }
}

/// The end of a certificate that an operator put here, which nobody but the operator can renew. Told in the log once as
/// it comes near, and once when it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnEnd {
    not_after: UnixTime,
    told: Nearness,
}

/// How near the end of a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearness {
    /// Far away.
    Far,
    /// Within two weeks.
    Near,
    /// It has ended.
    Over,
}

impl OwnEnd {
    /// Of a leaf, DER; none when it can't be read. What was told of one `before` that ended at the same time is not told
    /// again.
    pub fn of(leaf: &[u8], before: Option<Self>) -> Option<Self> {
        let not_after = LeafFacts::parse(leaf).ok()?.not_after;
        let told =
            before.filter(|before| before.not_after == not_after).map_or(Nearness::Far, |before| before.told);
        Some(Self { not_after, told })
    }

    /// Tells what there is to be told and was not; hands out what it told. `whose` is what it is served for.
    pub fn tell(&mut self, now: UnixTime, whose: &dyn core::fmt::Display) -> Option<Nearness> {
        let end = self.not_after;
        let nearness = match end {
            end if end <= now => Nearness::Over,
            end if end <= now.plus(TELL_BEFORE) => Nearness::Near,
            _ => Nearness::Far,
        };
        if nearness == self.told {
            return None;
        }
        self.told = nearness;
        match nearness {
            Nearness::Far => {}
            Nearness::Near => {
                tracing::warn!(%whose, %end, "the certificate in the operator's file ends soon")
            }
            Nearness::Over => {
                tracing::error!(%whose, %end, "the certificate in the operator's file has ended; clients refuse it");
            }
        }
        Some(nearness)
    }
}

/// A server's chain and key, and until when they stay.
#[derive(Debug)]
pub struct Made {
    /// The leaf, then those above it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
    /// When it is served.
    pub served: Served,
    /// The services CA that signed it and what is sent above that, DER.
    pub above: Vec<Vec<u8>>,
}

impl Made {
    /// The one of the file while it is good, else a new one, which the file then holds.
    ///
    /// # Errors
    /// When the services CA can't make one, or the file can't be written.
    pub fn kept_or_new(
        path: &Path,
        authority: &Authority,
        clock: &Clock,
        names: &[HostPattern],
        addresses: &[IpAddr],
    ) -> Result<Self, ServerTlsError> {
        let above = authority.trust().above_servers();
        if let Some(kept) = Self::kept(path, clock, names, &above) {
            return Ok(kept);
        }
        let made = authority
            .server_certificate(names.to_vec(), addresses.to_vec())
            .map_err(ServerTlsError::Authority)?;
        let mut text = String::new();
        for der in &made.chain {
            text.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", der.as_slice())));
        }
        text.push_str(&pem::encode(&pem::Pem::new("PRIVATE KEY", made.key.as_slice())));
        write_file(path, text.as_bytes(), Readers::Owner)
            .map_err(|error| ServerTlsError::File { path: path.display().to_string(), error })?;
        let (chain, key) = chain_and_key(text.as_bytes(), text.as_bytes(), path)?;
        Self::of(chain, key).ok_or_else(|| ServerTlsError::Content {
            path: path.display().to_string(),
            what: "the certificate that was just made can't be read".to_owned(),
        })
    }

    /// The kept certificate, if it still fits.
    fn kept(path: &Path, clock: &Clock, names: &[HostPattern], above: &[Vec<u8>]) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        let (chain, key) = chain_and_key(&text, &text, path).ok()?;
        let facts = LeafFacts::parse(chain.first()?).ok()?;
        let dns = |san: &San| if let San::Dns(name) = san { Some(name.clone()) } else { None };
        let mut found: Vec<String> = facts.sans.iter().filter_map(dns).collect();
        let mut wanted: Vec<String> = names.iter().map(ToString::to_string).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        let kept = Self::of(chain, key)?;
        (found == wanted && kept.above == above && kept.served.has(clock.now())).then_some(kept)
    }

    fn of(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Option<Self> {
        let (leaf, above) = chain.split_first()?;
        let served = Served::of(&LeafFacts::parse(leaf).ok()?);
        let above = above.iter().map(|der| der.to_vec()).collect();
        Some(Self { chain, key, served, above })
    }

    /// The form that rustls serves; key and certificate are compared.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn certified(self, path: &Path) -> Result<Arc<CertifiedKey>, ServerTlsError> {
        certified_key(self.chain, &self.key, path)
    }
}

/// Reads a chain and its key from PEM texts.
pub(crate) fn chain_and_key(
    chain: &[u8],
    key: &[u8],
    path: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ServerTlsError> {
    let content = |what: String| ServerTlsError::Content { path: path.display().to_string(), what };
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| content(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| content(error.to_string()))?;
    Ok((chain, key))
}

/// Puts chain and key together, if they fit.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    path: &Path,
) -> Result<Arc<CertifiedKey>, ServerTlsError> {
    let content = |what: String| ServerTlsError::Content { path: path.display().to_string(), what };
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
        .map_err(|error| content(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| content(error.to_string()))?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_own_certificate_is_told_once_as_it_comes_near_and_once_when_it_is_there() {
        let end = UnixTime::from_secs(1_800_000_000);
        let mut own = OwnEnd { not_after: end, told: Nearness::Far };
        let mut told = |before_s: i64| {
            let now = UnixTime::from_secs(end.as_secs() - before_s);
            own.tell(now, &"est.tls_certificate")
        };
        let days = 86_400;
        assert_eq!([15 * days, 14 * days, days].map(&mut told), [None, Some(Nearness::Near), None]);
        assert_eq!([1, 0, -days].map(&mut told), [None, Some(Nearness::Over), None]);
        // One that is put here when it has ended.
        let mut late = OwnEnd { not_after: end, told: Nearness::Far };
        assert_eq!(late.tell(end, &"api.example.com"), Some(Nearness::Over));
    }
}
