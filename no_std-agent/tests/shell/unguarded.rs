//! embedded-tls without the shell's guards, so that it is known what they guard against. A test here that fails says
//! that embedded-tls has closed a hole: the guard may stay, but its reason must be written anew.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use embedded_tls::blocking::TlsConnection;
use embedded_tls::{
    Aes128GcmSha256, CertificateRef, CertificateVerifyRef, CryptoProvider, CryptoRngCore, Sha256, TlsConfig,
    TlsContext, TlsError, TlsVerifier,
};
use rand_core::SeedableRng;

use crate::authority::{Authority, TestKey, server_params};
use crate::board::Tcp;
use crate::scripted::{DATA, HANDSHAKE, Message, Script, Step, handshake, honest, serve};

/// A verifier that any certificate and any proof satisfies, but that counts them.
#[derive(Default)]
struct Counting {
    certificates: usize,
    proofs: usize,
}

impl TlsVerifier<Aes128GcmSha256> for Counting {
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), TlsError> {
        Ok(())
    }

    fn verify_certificate(&mut self, _: &Sha256, _: CertificateRef<'_>) -> Result<(), TlsError> {
        self.certificates += 1;
        Ok(())
    }

    fn verify_signature(&mut self, _: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        self.proofs += 1;
        Ok(())
    }
}

struct Provider {
    generator: rand_chacha::ChaCha20Rng,
    verifier: Counting,
}

impl CryptoProvider for Provider {
    type CipherSuite = Aes128GcmSha256;
    type Signature = p256::ecdsa::DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.generator
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut self.verifier)
    }
}

/// Opens a connection and reads once; counts the certificates and proofs.
fn visit(address: SocketAddr) -> (Result<usize, TlsError>, Counting) {
    let mut provider =
        Provider { generator: rand_chacha::ChaCha20Rng::seed_from_u64(1), verifier: Counting::default() };
    let (mut receive, mut send) = ([0; 4608], [0; 1024]);
    let config = TlsConfig::new();
    let mut tls = TlsConnection::new(Tcp::open(address), &mut receive, &mut send);
    let opened = tls.open(TlsContext::new(&config, &mut provider));
    let read = opened.and_then(|()| tls.read(&mut [0; 64]));
    (read, provider.verifier)
}

fn flight(left_out: &[usize]) -> Vec<Message> {
    let root = Authority::root("root", 1);
    let key = TestKey::from_seed(3);
    let chain = [root.issue(&server_params("est.example.com"), &key)];
    let messages = honest(&chain, &key).into_iter().enumerate();
    messages.filter(|(at, _)| !left_out.contains(at)).map(|(_, message)| message).collect()
}

fn panics(flight: Vec<Step>, after: Vec<Step>) -> bool {
    let (address, server) = serve(Script { flight, after });
    let panicked = catch_unwind(AssertUnwindSafe(|| visit(address))).is_err();
    server.join().expect("the server keeps to its script");
    panicked
}

#[test]
fn hole_1_embedded_tls_opens_a_connection_without_any_proof() {
    for left_out in [&[2][..], &[1, 2]] {
        let after = vec![Step::Sealed(DATA, b"hello".to_vec())];
        let (address, server) = serve(Script { flight: vec![Step::Flight(flight(left_out))], after });
        let (read, counted) = visit(address);
        assert_eq!(read.expect("no error"), 5);
        assert_eq!((counted.certificates, counted.proofs), (2 - left_out.len(), 0));
        server.join().expect("the server keeps to its script");
    }
}

#[test]
fn hole_3_embedded_tls_panics_on_a_record_without_content_before_any_proof() {
    assert!(panics(vec![Step::Inner(vec![])], vec![]));
}

#[test]
fn hole_3_embedded_tls_panics_on_a_handshake_message_in_the_clear() {
    let injected = Step::Clear(HANDSHAKE, handshake(8, &[0, 0]));
    assert!(panics(vec![Step::Flight(flight(&[]))], vec![injected]));
}

#[test]
fn hole_3_embedded_tls_panics_on_an_unexpected_handshake_message_inside_tls() {
    let sealed = Step::Sealed(HANDSHAKE, handshake(8, &[0, 0]));
    assert!(panics(vec![Step::Flight(flight(&[]))], vec![sealed]));
}
