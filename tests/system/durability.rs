//! Nothing that was answered is lost, whatever moment the server dies at.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_store::Ledger;
use muster_tests::Server;
use muster_tests::request::{request, request_by};
use rcgen::KeyPair;

const CLIENTS: u64 = 32;
const ROUNDS: u64 = 6;

/// What the clients were told.
#[derive(Default)]
struct Told {
    serials: Mutex<Vec<String>>,
    tokens_used: Mutex<Vec<(String, String)>>,
    next: AtomicU64,
}

fn serial_of(certificate: &[u8]) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    parsed.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Enrolls devices with a claim token, and some with one-time tokens, until told to stop.
fn client(server: &muster_tests::Est, told: &Told, claim: &str, once: &[String], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let number = told.next.fetch_add(1, Ordering::Relaxed);
        let device = format!("meter-{number}");
        let single = once.get(usize::try_from(number).expect("fits"));
        let token = single.map_or(claim, String::as_str);
        let (_, der) = request(&device);
        let authorization = match single {
            Some(token) => format!("Bearer {token}"),
            None => muster_tests::est::basic(&device, token),
        };
        // A dead server answers nobody; what it did not answer is not owed.
        let Ok(reply) = server.try_post("simpleenroll", Some(&authorization), &der) else { continue };
        if reply.status == 200 {
            told.serials.lock().expect("not poisoned").push(serial_of(&reply.certificate()));
            if single.is_some() {
                told.tokens_used.lock().expect("not poisoned").push((token.to_owned(), device));
            }
        }
    }
}

#[test]
fn a_server_killed_at_any_moment_loses_nothing_it_answered() {
    let mut server = Server::start();
    let claim = server.muster(&["token", "new", "--claim", "--uses", "4000000000", "--ttl", "1d"]);
    // The first devices come with tokens that are good once, for whoever comes.
    let once: Vec<String> =
        (0..64).map(|_| server.muster(&["token", "new", "--claim", "--uses", "1", "--ttl", "1d"])).collect();
    let (told, once) = (Arc::new(Told::default()), Arc::new(once));
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (est, told, once) = (server.est(), Arc::clone(&told), Arc::clone(&once));
                let (claim, stop) = (claim.clone(), Arc::clone(&stop));
                std::thread::spawn(move || client(&est, &told, &claim, &once, &stop))
            })
            .collect();
        // Another moment of the work each round; the moment need not be exact.
        std::thread::park_timeout(Duration::from_millis(900 + 173 * round));
        server.kill();
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let checked = Ledger::check(&server.dir().join("ledger.redb"));
        checked.expect("the ledger is whole");
        server.serve();
    }
    let told_serials = told.serials.lock().expect("not poisoned").clone();
    let distinct: HashSet<&String> = told_serials.iter().collect();
    assert_eq!(distinct.len(), told_serials.len(), "a serial was used twice");
    let listed = server.muster_json(&["cert", "list"]);
    let stored: HashSet<&str> =
        listed.as_array().expect("a list").iter().filter_map(|row| row["serial_number"].as_str()).collect();
    let lost = told_serials.iter().filter(|serial| !stored.contains(serial.as_str())).count();
    println!("kill -9: {} acknowledged, {lost} lost", told_serials.len());
    assert_eq!(lost, 0);
    assert!(told_serials.len() > 500, "only {} were answered", told_serials.len());
    for (token, device) in told.tokens_used.lock().expect("not poisoned").iter() {
        let (_, other) = request(device);
        let reply = server.est().post("simpleenroll", Some(&format!("Bearer {token}")), &other);
        assert_eq!(reply.reason(), "token_used");
    }
    assert!(server.muster(&["audit", "verify"]).contains("intact"));
}

#[test]
fn the_same_request_gets_the_same_certificate_also_after_a_crash() {
    let mut server = Server::start();
    let (key, der) = request("meter-1");
    let token = server.token("meter-1");
    let first = server.est().enroll("meter-1", &token, &der).certificate();
    server.kill();
    server.serve();
    assert_eq!(server.est().enroll("meter-1", &token, &der).certificate(), first);
    // A device that signs its request anew is the same device with the same key.
    let again = KeyPair::try_from(key.serialize_der()).expect("a key");
    let resigned = request_by(&again, "meter-1");
    assert_eq!(server.est().enroll("meter-1", &token, &resigned).certificate(), first);
}

#[test]
fn a_post_with_an_idempotency_key_is_answered_the_same_after_a_crash() {
    let mut server = Server::start();
    let key = [("Idempotency-Key", "one")];
    let make = |server: &Server| server.api("POST", "/tokens", &key, "{\"claim\":true}");
    let first = make(&server);
    assert_eq!(first.0, 200, "{}", first.1);
    server.kill();
    server.serve();
    assert_eq!(make(&server), first);
    let tokens = server.muster_json(&["token", "list"]);
    assert_eq!(tokens.as_array().map(Vec::len), Some(1), "{tokens}");
}
