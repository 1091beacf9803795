//! An agent that is killed while it renews, over and over: it never loses its identity and never a certificate.
//!
//! The agent is asked to renew without pause and killed at a random moment, two hundred times. After each
//! kill the disk must hold an identity whose key and chain are right, in at most two slots, and the files
//! for other programs must be a pair. In the end each certificate in the server's ledger is a generation
//! that the agent stored: a lost answer was asked for again, and no key was certified and then forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use muster_agent::settings::identity_from_files;
use muster_tests::{Agent, Server};
use rustls::RootCertStore;
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

const KILLS: u32 = 200;
const ENROLMENT_KILLS: u32 = 60;
const DEVICES_MAX: u32 = 200;
/// The moments of the kills follow from it; a failure names it.
const SEED: u64 = 0x6d75_7374_6572;
/// What an agent that lives longest gets done.
const RENEWALS_OF_A_LIFE: usize = 4;

#[test]
fn two_hundred_kills_while_renewing_lose_no_identity_and_no_certificate() {
    let rate = "{ burst = 100000, refill_s = 0.001 }";
    let server = Server::with_config(&format!(
        "[est]\nsource_rate = {rate}\ndevice_rate = {rate}\naccount_rate = {rate}\n"
    ));
    let mut agent = Agent::enrolled(&server, "meter-1", &[]);
    let verifier = verifier(&server);
    let longest = longest_life(&mut agent);
    let mut random = SEED;
    for kill in 0..KILLS {
        let life = longest.mul_f64(next(&mut random));
        live(&mut agent, life);
        check(&agent, &server, verifier.as_ref(), &format!("seed {SEED:#x}, kill {kill} after {life:?}"));
    }
    // It goes on, and takes up whatever was under way.
    let output = agent.command(&["renew"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let held = agent.identities(&server);
    assert_eq!(held.len(), 1, "one identity, and no key beside it");
    let issued = server.muster_json(&["cert", "list"]).as_array().map_or(0, Vec::len);
    let generation = usize::try_from(held[0].generation).expect("few");
    println!("{KILLS} kills within {longest:?}, {generation} renewals");
    assert!(generation > 20 + RENEWALS_OF_A_LIFE, "the kills met renewals: {generation} within {longest:?}");
    assert_eq!(issued, generation + 1, "seed {SEED:#x}: a certificate for each generation and no other");
}

/// A one-time token yields one certificate, so each key but the last must have been forgotten before it was sent.
#[test]
fn kills_during_the_first_enrolment_cost_neither_the_token_nor_a_certificate() {
    let server = Server::start();
    // How long one takes is up to the machine; lives are to end before that.
    let mut agent = Agent::new();
    let token = server.token("meter");
    muster_tests::agent::program();
    let begin = Instant::now();
    agent.start_to_enroll(&server, "meter", &token);
    assert_eq!(agent.wait(), Some(0));
    let longest = begin.elapsed();
    let mut random = SEED;
    let mut kills = 0;
    let mut device = 0;
    while kills < ENROLMENT_KILLS {
        device += 1;
        assert!(device <= DEVICES_MAX, "the kills do not meet enrolments: {kills} within {longest:?}");
        let name = format!("meter-{device}");
        let token = server.token(&name);
        let mut agent = Agent::new();
        loop {
            agent.start_to_enroll(&server, &name, &token);
            let life = longest.mul_f64(next(&mut random));
            pass(life);
            agent.signal("KILL");
            let ended = agent.wait();
            let when = format!("seed {SEED:#x}, {name} after {life:?}");
            assert!(agent.slots().len() <= 1, "{when}: one key at a time");
            // It is done when it says so, and also when it was killed after its certificate was stored.
            if !agent.identities(&server).is_empty() {
                break;
            }
            assert_eq!(ended, None, "{when}: it was killed, and did not fail");
            kills += 1;
        }
        let output = agent.command(&["renew"]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let issued = server.muster_json(&["cert", "list", "--device", &name]);
        assert_eq!(
            issued.as_array().map(Vec::len),
            Some(2),
            "{name}: the first one and its renewal: {issued}"
        );
    }
    println!("{kills} kills before a certificate was stored, {device} devices");
}

/// How long a start and some renewals take is up to the machine, and to what else it does.
fn longest_life(agent: &mut Agent) -> Duration {
    let begin = Instant::now();
    agent.run();
    let mut renewals = 0;
    while renewals < RENEWALS_OF_A_LIFE {
        assert!(begin.elapsed() < Duration::from_secs(60), "{renewals} renewals: {}", agent.log());
        match agent.ask_to_renew() {
            Some(outcome) if outcome["outcome"] == "renewed" => renewals += 1,
            // Not there yet.
            _ => pass(Duration::from_millis(2)),
        }
    }
    let longest = begin.elapsed();
    agent.kill();
    longest
}

/// Runs the agent for a while, asking it to renew without pause, and kills it.
fn live(agent: &mut Agent, life: Duration) {
    agent.run();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = {
            let agent = &*agent;
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if agent.ask_to_renew().is_none() {
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                }
            })
        };
        pass(life);
        // The kill itself needs the agent for itself; the asking ends with the socket.
        agent.signal("KILL");
        over.store(true, Ordering::Relaxed);
        asking.join().expect("no panic");
    });
    agent.wait();
}

/// A timer and nothing else: nobody sends.
fn pass(life: Duration) {
    let (_timer, never) = sync_channel::<()>(0);
    let _ = never.recv_timeout(life);
}

fn check(agent: &Agent, server: &Server, verifier: &dyn ClientCertVerifier, when: &str) {
    let held = agent.identities(server);
    assert!(!held.is_empty(), "{when}: no identity is left");
    let mut keys: Vec<_> = agent.slots().iter().map(|content| content.key.as_pkcs8().to_vec()).collect();
    let slots = keys.len();
    keys.dedup();
    assert!(slots <= 2 && keys.len() == slots, "{when}: {slots} slots");
    for identity in &held {
        let (leaf, others) = identity.chain.split_first().expect("a leaf");
        verifier
            .verify_client_cert(leaf, others, UnixTime::now())
            .unwrap_or_else(|error| panic!("{when}: {error}"));
    }
    let current = agent.dir().join("current");
    let shown = identity_from_files(&current.join("cert.pem"), &current.join("key.pem"));
    assert_eq!(shown.map(|shown| shown.device).as_deref(), Ok("meter-1"), "{when}");
}

fn verifier(server: &Server) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    for certificate in muster_agent::settings::certificates(&server.ca_file()).expect("a CA") {
        roots.add(certificate).expect("a CA");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier")
}

/// The next number from 0 to 1 (xorshift64).
fn next(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    f64::from(u32::try_from(*state >> 32).expect("32 bits")) / f64::from(u32::MAX)
}
