//! What embedded-tls asks for in a handshake: randomness, a verifier, and the client's certificate and signature.

use embedded_tls::{Certificate, CryptoProvider, CryptoRngCore, SignatureScheme, TlsError, TlsVerifier};
use muster_proto::time::Validity;

use super::ConnectError;
use super::cipher::GuardedSuite;
use super::verifier::StrictVerifier;
use crate::entropy::Generator;
use crate::key::{KeyReference, KeyStore, Signature};

/// What the client presents: one certificate, since embedded-tls cannot send a chain. The server must therefore
/// know the issuing CA.
#[derive(Debug)]
pub struct ClientIdentity<'c, K> {
    /// The leaf in DER.
    pub leaf: &'c [u8],
    /// Where its key is.
    pub keys: &'c mut K,
    /// Which key it is.
    pub reference: &'c KeyReference,
}

pub(super) struct Provider<'c, K> {
    generator: Generator,
    verifier: StrictVerifier<'c>,
    client: Option<ClientIdentity<'c, K>>,
    signing: Signing,
}

/// Whether a signature was asked for and made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signing {
    Unasked,
    Done,
    Failed,
}

impl<'c, K: KeyStore> Provider<'c, K> {
    pub(super) const fn new(
        generator: Generator,
        verifier: StrictVerifier<'c>,
        client: Option<ClientIdentity<'c, K>>,
    ) -> Self {
        Self { generator, verifier, client, signing: Signing::Unasked }
    }

    /// What came of a handshake, and when the server's certificates are valid.
    pub(super) fn judge(&self, opened: Result<(), TlsError>) -> Result<Option<Validity>, ConnectError> {
        if self.signing == Signing::Failed {
            return Err(ConnectError::Key);
        }
        if let Some(reason) = self.verifier.refusal() {
            return Err(ConnectError::Untrusted(reason));
        }
        opened.map_err(ConnectError::from_tls)?;
        // embedded-tls says yes to a server that has proven nothing.
        self.verifier.proven().map_err(ConnectError::Untrusted)
    }

    pub(super) fn has_signed(&self) -> bool {
        self.signing == Signing::Done
    }
}

impl<K: KeyStore> CryptoProvider for Provider<'_, K> {
    type CipherSuite = GuardedSuite;
    type Signature = Signature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.generator
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<GuardedSuite>, TlsError> {
        Ok(&mut self.verifier)
    }

    fn signer(&mut self) -> Result<(impl signature::SignerMut<Signature>, SignatureScheme), TlsError> {
        let client = self.client.as_mut().ok_or(TlsError::InvalidPrivateKey)?;
        Ok((Signer { client, signing: &mut self.signing }, SignatureScheme::EcdsaSecp256r1Sha256))
    }

    fn client_cert(&mut self) -> Option<Certificate<impl AsRef<[u8]>>> {
        // Not to a server that has proven nothing: a certificate says which device this is.
        self.verifier.proven().ok()?;
        self.client.as_ref().map(|client| Certificate::X509(client.leaf))
    }
}

struct Signer<'p, 'c, K> {
    client: &'p mut ClientIdentity<'c, K>,
    signing: &'p mut Signing,
}

impl<K: KeyStore> signature::SignerMut<Signature> for Signer<'_, '_, K> {
    /// Never fails, because embedded-tls panics on that. Without a signature it sends an empty one, which no server
    /// takes, and [`Signing::Failed`] keeps the connection from being used.
    fn try_sign(&mut self, message: &[u8]) -> Result<Signature, signature::Error> {
        let signature = self.client.keys.sign(self.client.reference, message);
        *self.signing = if signature.is_ok() { Signing::Done } else { Signing::Failed };
        Ok(signature.unwrap_or_else(|_| Signature::missing()))
    }
}
