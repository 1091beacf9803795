//! What an agent works by, checked: made from the configuration file or from the command line of `enroll`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_proto::enrollment::Pace;
use muster_proto::est::Server;
use muster_proto::x509::Certificate;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::identity::Identity;
use crate::store::files;

/// Settings of one agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The EST server.
    pub server: ServerUrl,
    /// The device id.
    pub device: String,
    /// The folder of keys and certificates.
    pub dir: PathBuf,
    /// Whom to trust.
    pub trust: TrustRoots,
    /// How the device proves itself without a certificate of its own.
    pub credential: Option<Proof>,
    /// How fast to go.
    pub pace: Pace,
}

/// Where the EST server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The EST label: names a profile.
    pub label: Option<String>,
}

/// Where trust begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustRoots {
    /// CA certificates.
    Certificates(Vec<CertificateDer<'static>>),
    /// SHA-256 of a CA certificate, which is fetched.
    Fingerprint([u8; 32]),
}

/// How a device proves itself the first time.
#[derive(Clone)]
pub enum Proof {
    /// A manufacturer's certificate (IDevID).
    Manufacturer(Arc<Identity>),
    /// Both, for a server that wants both.
    ManufacturerAndToken(Arc<Identity>, Zeroizing<String>),
    /// A token.
    Token(Zeroizing<String>),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Manufacturer(_) => "Manufacturer(..)",
            Self::ManufacturerAndToken(..) => "ManufacturerAndToken(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

impl ServerUrl {
    /// Reads `https://HOST[:PORT]`, also with `/.well-known/est[/LABEL]` behind it.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn parse(url: &str, label: Option<&str>) -> Result<Self, Wrong> {
        let wrong = |why: &str| Wrong(format!("server `{url}` {why}; write https://HOST[:PORT]"));
        let uri: http::Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("is not https"));
        }
        let in_path = match uri.path().trim_end_matches('/') {
            "" | EST_PATH => None,
            path => Some(
                path.strip_prefix(EST_PATH)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .ok_or_else(|| wrong("has a path that is not EST's"))?,
            ),
        };
        if uri.query().is_some() || (in_path.is_some() && label.is_some()) {
            return Err(wrong("has a query, or names the label twice"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user in it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
        let label = in_path.or(label).map(str::to_owned);
        Server::new(&host, port, label.as_deref()).map_err(|_| wrong("has a malformed host or label"))?;
        Ok(Self { host, port, label })
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "https://{open}{}{close}:{}", self.host, self.port)?;
        self.label.iter().try_for_each(|label| write!(f, "{EST_PATH}/{label}"))
    }
}

impl TrustRoots {
    /// Reads CA certificates from a PEM file.
    ///
    /// # Errors
    /// [`Wrong`] when it can't be read or has none that is of use.
    pub fn from_file(path: &Path) -> Result<Self, Wrong> {
        let certificates = certificates(path)?;
        // A collection may hold old ones that nothing here is signed by; but one must be of use.
        let unreadable =
            certificates.iter().map(|der| Certificate::parse(der).err()).collect::<Option<Vec<_>>>();
        match unreadable {
            Some(errors) => {
                Err(Wrong(format!("{} has no usable CA certificate ({errors:?})", path.display())))
            }
            None => Ok(Self::Certificates(certificates)),
        }
    }

    /// Reads the SHA-256 of a CA certificate: 64 hexadecimal digits, colons allowed.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn from_sha256(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong(format!(
                "`{text}` is no SHA-256 of a CA certificate: 64 hexadecimal digits, as `openssl x509 -noout \
                 -fingerprint -sha256` prints them"
            ))
        };
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let octets: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        let octets = octets.filter(|_| digits.iter().all(u8::is_ascii_hexdigit)).ok_or_else(wrong)?;
        octets.try_into().map(Self::Fingerprint).map_err(|_| wrong())
    }

    /// The certificates, as the device core takes them.
    #[must_use]
    pub fn certificates(&self) -> Vec<&[u8]> {
        match self {
            Self::Certificates(certificates) => certificates.iter().map(AsRef::as_ref).collect(),
            Self::Fingerprint(_) => Vec::new(),
        }
    }

    /// The pinned fingerprint.
    #[must_use]
    pub const fn fingerprint(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Certificates(_) => None,
            Self::Fingerprint(fingerprint) => Some(fingerprint),
        }
    }
}

impl Proof {
    /// Reads a token from a file; white space around it does not count.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn from_token_file(path: &Path) -> Result<Self, Wrong> {
        let bytes = Zeroizing::new(contents(path)?);
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Wrong(format!("{} is no text", path.display())))?;
        Ok(Self::Token(Zeroizing::new(text.trim().to_owned())))
    }

    /// Reads a manufacturer's certificate, with those above it, and its key.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn from_manufacturer(certificate: &Path, key: &Path) -> Result<Self, Wrong> {
        Ok(Self::Manufacturer(Arc::new(identity_from_files(certificate, key)?)))
    }

    /// Both proofs in one, where there are both.
    #[must_use]
    pub fn joined(self, other: Option<Self>) -> Self {
        match (self, other) {
            (Self::Manufacturer(identity), Some(Self::Token(token)))
            | (Self::Token(token), Some(Self::Manufacturer(identity))) => {
                Self::ManufacturerAndToken(identity, token)
            }
            (proof, _) => proof,
        }
    }

    /// The manufacturer's certificate, if it is part of it.
    #[must_use]
    pub const fn manufacturer(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Manufacturer(identity) | Self::ManufacturerAndToken(identity, _) => Some(identity),
            Self::Token(_) => None,
        }
    }
}

/// Reads an identity that was made elsewhere: PEM files of a certificate chain and of its key.
///
/// # Errors
/// [`Wrong`], also when the key is not the certificate's.
pub fn identity_from_files(certificate: &Path, key: &Path) -> Result<Identity, Wrong> {
    let chain = certificates(certificate)?;
    let bytes = Zeroizing::new(contents(key)?);
    let key = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| Wrong(format!("{} has no private key in PEM: {error}", key.display())))?;
    let identity = {
        let leaf = chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
        let leaf = leaf.ok_or_else(|| Wrong(format!("{} is not a certificate", certificate.display())))?;
        Identity {
            generation: 0,
            device: leaf.common_name().unwrap_or_default().to_owned(),
            not_after: std::time::UNIX_EPOCH
                + std::time::Duration::from_secs(leaf.validity.not_after.as_secs()),
            chain: chain.clone(),
            key,
            anchors: Vec::new(),
        }
    };
    if !identity.key_fits() {
        return Err(Wrong(format!("the key is not that of the certificate in {}", certificate.display())));
    }
    Ok(identity)
}

/// Reads the certificates of a PEM file; one at least.
///
/// # Errors
/// [`Wrong`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let bytes = contents(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Wrong(format!("{} has no certificate in PEM", path.display()))),
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, Wrong> {
    match files::read(path, FILE_MAX_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Wrong(format!("{} does not exist", path.display()))),
        Err(error) => Err(Wrong(format!("{}: {error}", path.display()))),
    }
}

/// What is wrong with a setting, and what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

const EST_PATH: &str = "/.well-known/est";
/// Of https; a server's own port is part of its URL.
const DEFAULT_PORT: u16 = 443;
/// A file of a hundred CA certificates is smaller.
const FILE_MAX_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_with_or_without_the_path_of_est() {
        let parse = |url| ServerUrl::parse(url, None).map(|server| server.to_string());
        assert_eq!(parse("https://ca.example.test:8443").as_deref(), Ok("https://ca.example.test:8443"));
        assert_eq!(parse("https://ca.example.test/").as_deref(), Ok("https://ca.example.test:443"));
        assert_eq!(parse("https://[::1]:8443/.well-known/est").as_deref(), Ok("https://[::1]:8443"));
        let labelled = "https://10.0.0.1:8443/.well-known/est/meters";
        assert_eq!(parse(labelled).as_deref(), Ok(labelled));
        let by_option = ServerUrl::parse("https://10.0.0.1:8443", Some("meters"));
        assert_eq!(by_option.map(|server| server.to_string()).as_deref(), Ok(labelled));
        for wrong in [
            "ca.example.test:8443",
            "http://ca.example.test",
            "https://user@ca.example.test",
            "https://ca.example.test/est",
            "https://ca.example.test/.well-known/est/cacerts",
            "https://ca.example.test/?a=b",
            "https://ca.example.test/.well-known/est/a/b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it() {
        let plain = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
        let octets: Vec<&str> =
            plain.as_bytes().chunks(2).map(|c| std::str::from_utf8(c).expect("text")).collect();
        let read = TrustRoots::from_sha256(plain).expect("a fingerprint");
        assert_eq!(TrustRoots::from_sha256(&octets.join(":")), Ok(read.clone()));
        assert_eq!(read.fingerprint().map(|octets| octets[15]), Some(0xff));
        for wrong in
            ["", "00", &plain[2..], "zz112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"]
        {
            assert!(TrustRoots::from_sha256(wrong).is_err(), "{wrong}");
        }
    }
}
