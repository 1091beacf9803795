//! Peers that do not mean well, or do not know better: the server stays up, small and whole.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_store::Ledger;
use muster_tests::est::{basic, post};
use muster_tests::request::{request, request_by};
use muster_tests::{Est, Identity, Maker, Server};
use rcgen::KeyPair;

/// Sequence of numbers that looks random and is the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("fits")).expect("fits")
    }

    /// Changes, drops, doubles or cuts some bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                _ => bytes.truncate(at),
            }
        }
    }
}

/// Requests of every kind, mutated in the request itself or in the HTTP around it.
fn mutants(numbers: &mut Numbers, token: &str, count: usize) -> Vec<Vec<u8>> {
    let (_, der) = request("meter-1");
    let authorization = basic("meter-1", token);
    let operations =
        ["simpleenroll", "simplereenroll", "serverkeygen", "fullcmc", "cacerts", "csrattrs", "x/y/z"];
    (0..count)
        .map(|number| {
            let operation = operations[number % operations.len()];
            let mut der = der.clone();
            if number % 2 == 0 {
                numbers.mutate(&mut der);
            }
            let mut bytes = post(operation, Some(&authorization), &STANDARD.encode(&der));
            if number % 2 == 1 {
                numbers.mutate(&mut bytes);
            }
            // A cut message would leave both sides waiting for the rest; its end is the end of the connection.
            bytes
        })
        .collect()
}

/// Sends without waiting for an answer longer than the server takes to close.
fn throw(est: &Est, bytes: &[u8]) {
    let Ok(mut stream) = est.connect() else { return };
    let _ = stream.write_all(bytes);
    stream.conn.send_close_notify();
    let _ = stream.flush();
    let _ = stream.sock.shutdown(std::net::Shutdown::Write);
    let _ = muster_tests::est::read_reply(&mut stream);
}

#[test]
fn ten_thousand_mutated_requests_change_nothing() {
    let mut server = Server::start();
    let (key, der) = request("meter-0");
    let certificate = server.est().enroll("meter-0", &server.token("meter-0"), &der).certificate();
    let again = KeyPair::try_from(key.serialize_der()).expect("a key");
    let holder = server.est().with(Identity { chain: vec![certificate], key });
    let token = server.muster(&["token", "new", "--device", "meter-1", "--uses", "1000000"]);
    let mut numbers = Numbers(24);
    for bytes in mutants(&mut numbers, &token, 500) {
        throw(&server.est(), &bytes);
    }
    let before = server.resident_kib();
    let mutants = Arc::new(mutants(&mut numbers, &token, 10_000));
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (stranger, holder) = (server.est(), holder.clone());
            let (mutants, next) = (Arc::clone(&mutants), Arc::clone(&next));
            std::thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bytes) = mutants.get(number) else { return };
                    // Half of them from a device that may renew, so that renewals are reached too.
                    throw(if number % 4 < 2 { &holder } else { &stranger }, bytes);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 40 * 1024, "grew by {grown} KiB");
    holder.post("simplereenroll", None, &request_by(&again, "meter-0")).certificate();
    assert_eq!(server.terminate(), Some(0));
    Ledger::check(&server.dir().join("ledger.redb")).expect("the ledger is whole");
    let log = std::fs::read_to_string(server.log()).expect("a log");
    assert!(!log.contains("panicked"), "something panicked");
}

#[test]
fn silent_and_half_open_peers_keep_nobody_out() {
    let server = Server::with_config("[est]\nhandshakes = 8\n");
    let silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(server.est_address()).expect("connects")).collect();
    // A ClientHello that never ends, as many as there are slots for handshakes less one.
    let half_open: Vec<TcpStream> = (0..7)
        .map(|_| {
            let mut stream = TcpStream::connect(server.est_address()).expect("connects");
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).expect("sent");
            stream
        })
        .collect();
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    let began_at = Instant::now();
    server.est().enroll("meter-1", &token, &der).certificate();
    // Well before the silent ones are given up: they never were in the way.
    assert!(began_at.elapsed() < Duration::from_secs(3), "{:?}", began_at.elapsed());
    drop((silent, half_open));
}

#[test]
fn three_hundred_wrong_credentials_do_not_lock_a_right_one_out() {
    let server = Server::start();
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    for _ in 0..300 {
        assert_eq!(server.est().enroll("meter-1", "wrong", &der).status, 401);
    }
    server.est().enroll("meter-1", &token, &der).certificate();
}

#[test]
fn the_bearer_of_a_claim_token_spends_no_device_s_share() {
    let server = Server::with_config("[est]\ndevice_rate = { burst = 3, refill_s = 3600.0 }\n");
    let (_, der) = request("meter-1");
    let token = server.token("meter-1");
    let claim = server.muster(&["token", "new", "--claim", "--uses", "1"]);
    for _ in 0..4 {
        // Any name may be claimed; what is sent with it need not be a request.
        assert_eq!(server.est().enroll("meter-1", &claim, b"x").reason(), "csr_malformed");
    }
    server.est().enroll("meter-1", &token, &der).certificate();
}

#[test]
fn a_gateway_with_a_thousand_devices_is_let_in() {
    let server = Server::start();
    let token = server.muster(&["token", "new", "--claim", "--uses", "1000"]);
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (est, next, token) = (server.est(), Arc::clone(&next), token.clone());
            std::thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 1000 {
                        return;
                    }
                    let device = format!("meter-{number}");
                    est.enroll(&device, &token, &request(&device).1).certificate();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("every device is let in"));
    let (_, der) = request("meter-late");
    assert_eq!(server.est().enroll("meter-late", &token, &der).reason(), "token_used");
}

#[test]
fn one_token_yields_one_certificate_however_many_ask_at_once() {
    let server = Server::start();
    let token = server.token("meter-1");
    let threads: Vec<_> = (0..32)
        .map(|_| {
            let (est, token) = (server.est(), token.clone());
            std::thread::spawn(move || est.enroll("meter-1", &token, &request("meter-1").1).status)
        })
        .collect();
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().expect("an answer")).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 401)), "{statuses:?}");
}

#[test]
fn equal_requests_at_once_are_one_request() {
    let server = Server::start();
    let token = server.token("meter-1");
    let (_, der) = request("meter-1");
    let threads: Vec<_> = (0..32)
        .map(|_| {
            let (est, token, der) = (server.est(), token.clone(), der.clone());
            std::thread::spawn(move || est.enroll("meter-1", &token, &der).certificate())
        })
        .collect();
    let mut certificates: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("a certificate")).collect();
    certificates.dedup();
    assert_eq!(certificates.len(), 1, "each gets the one certificate");
    assert_eq!(server.muster_json(&["cert", "list"]).as_array().map(Vec::len), Some(1));
}

/// Whoever manages the account may name any address; the operator of the machine says which are none of its business.
#[test]
fn no_webhook_and_no_list_leads_the_server_into_a_network_that_is_denied() {
    let denied =
        "[outbound]\ndenied_networks = [\"127.0.0.0/8\", \"::1\"]\n[webhooks]\nloopback_http = true\n";
    let server = Server::with_config(denied);
    Maker::known_to(&server, &[]);
    let cas = server.muster_json(&["ca", "list"]);
    let ca = cas.as_array().expect("a list").iter().find(|ca| ca["role"] == "manufacturer").expect("one");
    let ca = ca["id"].as_str().expect("an id");
    let inside = TcpListener::bind("127.0.0.1:0").expect("a port");
    inside.set_nonblocking(true).expect("a listener");
    let port = inside.local_addr().expect("an address").port();
    let refused = |args: &[&str]| {
        let output = server.try_muster(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("127.0.0.0/8, which outbound.denied_networks"), "{said}");
    };
    for host in ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}/");
        refused(&["webhook", "add", &url]);
        refused(&["ca", "crl-source", ca, "--url", &url]);
    }
    // A name is judged by what it leads to.
    let url = format!("http://localhost:{port}/");
    let said = server.try_muster(&["ca", "crl-source", ca, "--url", &url]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("outbound.denied_networks"), "{said:?}");
    server.muster(&["webhook", "add", &url]);
    let webhook = server.muster_json(&["webhook", "list"])[0]["id"].as_str().expect("an id").to_owned();
    server.token("meter-1");
    let deadline = Instant::now() + Duration::from_secs(60);
    let letter = loop {
        let letters = server.muster_json(&["webhook", "dead-letters", &webhook]);
        match letters.get(0) {
            Some(letter) => break letter.clone(),
            None => assert!(Instant::now() < deadline, "it is not given up"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(letter["attempts"], 1, "{letter}");
    assert!(letter["why"].as_str().is_some_and(|why| why.contains("outbound.denied_networks")), "{letter}");
    assert!(inside.accept().is_err(), "somebody came");
}
