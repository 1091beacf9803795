//! A TLS 1.3 server that follows a script instead of the protocol: it can leave messages out, split them, sign with
//! the wrong key, or send any record at any time. One connection, secp256r1 and AES-128-GCM only, its own key
//! schedule (RFC 8446 §7.1), so that it shares nothing with the client under test but the curve.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes128Gcm, KeyInit};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use p256::PublicKey;
use p256::ecdh::EphemeralSecret;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::authority::TestKey;

pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// One handshake message of the server's flight.
#[derive(Clone)]
pub(crate) enum Message {
    EncryptedExtensions,
    CertificateRequest,
    Certificate(Vec<Vec<u8>>),
    /// The proof, by a key that need not be the certificate's.
    CertificateVerify(TestKey),
    Finished,
}

/// One thing to send.
#[derive(Clone)]
pub(crate) enum Step {
    /// Handshake messages in one encrypted record.
    Flight(Vec<Message>),
    /// Handshake messages, cut into encrypted records of so many bytes.
    Split(Vec<Message>, usize),
    /// An encrypted record with this content type and content.
    Sealed(u8, Vec<u8>),
    /// An encrypted record whose inner plaintext is exactly this.
    Inner(Vec<u8>),
    /// A record in the clear.
    Clear(u8, Vec<u8>),
}

/// What the server does: before the client's flight, and after it.
#[derive(Clone, Default)]
pub(crate) struct Script {
    pub(crate) flight: Vec<Step>,
    pub(crate) after: Vec<Step>,
}

/// What the server saw of the client.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The client ended its handshake.
    pub(crate) finished: bool,
    /// The certificate that it presented.
    pub(crate) certificate: Option<Vec<u8>>,
}

/// A server on a free port, for one connection.
pub(crate) fn serve(script: Script) -> (SocketAddr, JoinHandle<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut seen = Seen::default();
        // The client may go away at any point; what was seen until then counts.
        let _ = Server::greet(stream).and_then(|mut server| server.follow(&script, &mut seen));
        seen
    });
    (address, server)
}

/// The flight of an honest server.
pub(crate) fn honest(chain: &[Vec<u8>], key: &TestKey) -> Vec<Message> {
    vec![
        Message::EncryptedExtensions,
        Message::Certificate(chain.to_vec()),
        Message::CertificateVerify(key.clone()),
        Message::Finished,
    ]
}

struct Server {
    stream: TcpStream,
    transcript: Sha256,
    handshake_secret: [u8; 32],
    client_secret: [u8; 32],
    server_secret: [u8; 32],
    sent: u64,
    received: u64,
}

impl Server {
    /// ClientHello and ServerHello.
    fn greet(mut stream: TcpStream) -> std::io::Result<Self> {
        let (_, hello) = read_record(&mut stream)?;
        let mut transcript = Sha256::new_with_prefix(&hello);
        let mark = [0x00, 0x17, 0x00, 0x41];
        let at = hello.windows(4).position(|window| window == mark).expect("a secp256r1 share") + 4;
        let client = PublicKey::from_sec1_bytes(&hello[at..at + 65]).expect("a point");
        let secret = EphemeralSecret::random(&mut rand_chacha::ChaCha20Rng::seed_from_u64(1));
        let share = p256::EncodedPoint::from(secret.public_key());
        let shared = secret.diffie_hellman(&client);

        let key_share = [&[0x00, 0x33, 0x00, 0x45, 0x00, 0x17, 0x00, 0x41], share.as_bytes()].concat();
        let extensions = [&[0x00, 0x2b, 0x00, 0x02, 0x03, 0x04], &key_share[..]].concat();
        let body = [&[3, 3], &[7; 32][..], &[0, 0x13, 0x01, 0], &with_length(2, &extensions)].concat();
        let message = handshake(2, &body);
        transcript.update(&message);
        write_record(&mut stream, HANDSHAKE, &message)?;

        let early = Hkdf::<Sha256>::extract(Some(&[0; 32]), &[0; 32]).0;
        let derived = derive(&early, "derived", &Sha256::digest(b""));
        let handshake_secret = Hkdf::<Sha256>::extract(Some(&derived), shared.raw_secret_bytes()).0;
        let hash = transcript.clone().finalize();
        Ok(Self {
            stream,
            transcript,
            handshake_secret: handshake_secret.into(),
            client_secret: derive(&handshake_secret, "c hs traffic", &hash),
            server_secret: derive(&handshake_secret, "s hs traffic", &hash),
            sent: 0,
            received: 0,
        })
    }

    fn follow(&mut self, script: &Script, seen: &mut Seen) -> std::io::Result<()> {
        for step in &script.flight {
            self.send(step)?;
        }
        let hash = self.transcript.clone().finalize();
        while !seen.finished {
            let (content_type, record) = read_record(&mut self.stream)?;
            if content_type != DATA {
                continue;
            }
            let message = open(&self.client_secret, self.received, &record);
            self.received += 1;
            match (message.last(), message.first()) {
                // Context 0, list 3, certificate 3, behind the header of 4.
                (Some(&HANDSHAKE), Some(11)) if message.len() > 20 => {
                    let len = usize::from(u16::from_be_bytes([message[9], message[10]]));
                    seen.certificate = Some(message[11..11 + len].to_vec());
                }
                (Some(&HANDSHAKE), Some(20)) => seen.finished = true,
                _ => {}
            }
        }
        let derived = derive(&self.handshake_secret, "derived", &Sha256::digest(b""));
        let master = Hkdf::<Sha256>::extract(Some(&derived), &[0; 32]).0;
        self.server_secret = derive(&master, "s ap traffic", &hash);
        self.sent = 0;
        for step in &script.after {
            self.send(step)?;
        }
        // Until the client goes, so that nothing that was sent is lost to a reset.
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let _ = self.stream.read_to_end(&mut Vec::new());
        Ok(())
    }

    fn send(&mut self, step: &Step) -> std::io::Result<()> {
        match step {
            Step::Flight(messages) => {
                let bytes = self.messages(messages);
                self.seal(&[&bytes[..], &[HANDSHAKE]].concat())
            }
            Step::Split(messages, size) => {
                let bytes = self.messages(messages);
                bytes.chunks(*size).try_for_each(|piece| self.seal(&[piece, &[HANDSHAKE]].concat()))
            }
            Step::Sealed(content_type, content) => self.seal(&[&content[..], &[*content_type]].concat()),
            Step::Inner(plaintext) => self.seal(plaintext),
            Step::Clear(content_type, content) => write_record(&mut self.stream, *content_type, content),
        }
    }

    fn seal(&mut self, plaintext: &[u8]) -> std::io::Result<()> {
        let (key, nonce) = keys(&self.server_secret, self.sent);
        self.sent += 1;
        let len = u16::try_from(plaintext.len() + 16).expect("one record").to_be_bytes();
        let aad = [DATA, 3, 3, len[0], len[1]];
        let payload = Payload { msg: plaintext, aad: &aad };
        let sealed = key.encrypt(&nonce.into(), payload).expect("encrypts");
        write_record(&mut self.stream, DATA, &sealed)
    }

    fn messages(&mut self, messages: &[Message]) -> Vec<u8> {
        let mut all = Vec::new();
        for message in messages {
            let bytes = self.message(message);
            self.transcript.update(&bytes);
            all.extend(bytes);
        }
        all
    }

    fn message(&self, message: &Message) -> Vec<u8> {
        match message {
            Message::EncryptedExtensions => handshake(8, &[0, 0]),
            Message::CertificateRequest => {
                let schemes = [0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03];
                handshake(13, &[&[0], &with_length(2, &schemes)[..]].concat())
            }
            Message::Certificate(chain) => {
                let entry = |der: &Vec<u8>| [with_length(3, der), vec![0, 0]].concat();
                let entries: Vec<u8> = chain.iter().flat_map(entry).collect();
                handshake(11, &[vec![0], with_length(3, &entries)].concat())
            }
            Message::CertificateVerify(key) => {
                let hash = self.transcript.clone().finalize();
                let context = b"TLS 1.3, server CertificateVerify\0";
                let signature = key.sign(&[&[0x20; 64], &context[..], &hash[..]].concat());
                handshake(15, &[&[0x04, 0x03], &with_length(2, &signature)[..]].concat())
            }
            Message::Finished => {
                let key = expand(&self.server_secret, "finished", &[], 32);
                let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("any length");
                Mac::update(&mut mac, &self.transcript.clone().finalize());
                handshake(20, &mac.finalize().into_bytes())
            }
        }
    }
}

/// A handshake message (RFC 8446 §4).
pub(crate) fn handshake(message_type: u8, body: &[u8]) -> Vec<u8> {
    [vec![message_type], with_length(3, body)].concat()
}

fn with_length(octets: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    [&length[4 - octets..], content].concat()
}

fn read_record(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 5];
    stream.read_exact(&mut header)?;
    let mut record = vec![0; u16::from_be_bytes([header[3], header[4]]).into()];
    stream.read_exact(&mut record)?;
    Ok((header[0], record))
}

fn write_record(stream: &mut TcpStream, content_type: u8, content: &[u8]) -> std::io::Result<()> {
    let record = [&[content_type, 3, 3], &with_length(2, content)[..]].concat();
    stream.write_all(&record)
}

fn open(secret: &[u8; 32], number: u64, record: &[u8]) -> Vec<u8> {
    let (key, nonce) = keys(secret, number);
    let len = u16::try_from(record.len()).expect("one record").to_be_bytes();
    let aad = [DATA, 3, 3, len[0], len[1]];
    key.decrypt(&nonce.into(), Payload { msg: record, aad: &aad }).expect("the client encrypts right")
}

fn keys(secret: &[u8; 32], number: u64) -> (Aes128Gcm, [u8; 12]) {
    let key = Aes128Gcm::new_from_slice(&expand(secret, "key", &[], 16)).expect("16 bytes");
    let mut nonce: [u8; 12] = expand(secret, "iv", &[], 12).try_into().expect("12 bytes");
    for (byte, of_number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= of_number;
    }
    (key, nonce)
}

fn derive(secret: &[u8], label: &str, hash: &[u8]) -> [u8; 32] {
    expand(secret, label, hash, 32).try_into().expect("32 bytes")
}

/// HKDF-Expand-Label (RFC 8446 §7.1).
fn expand(secret: &[u8], label: &str, context: &[u8], len: u16) -> Vec<u8> {
    let label = [b"tls13 ", label.as_bytes()].concat();
    let info = [&len.to_be_bytes()[..], &with_length(1, &label), &with_length(1, context)].concat();
    let mut out = vec![0; len.into()];
    Hkdf::<Sha256>::from_prk(secret).expect("32 bytes").expand(&info, &mut out).expect("short");
    out
}
