//! What passes with time: certificates and their grace, windows of repetition, tokens, the CA itself.
//!
//! The server's clock is turned; nothing waits.

use muster_policy::reason::Reason;
use muster_tests::est::certificates_of;
use muster_tests::request::{request, request_by};
use muster_tests::{Est, Identity, Reply, Turned};
use rcgen::KeyPair;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// Lifetime of a leaf of the default profile.
const LIFETIME: i64 = 90 * DAY;
/// Lifetime of an issuing CA.
const CA_LIFETIME: i64 = 16 * 365 * DAY;

/// Enrolls a device; a client that holds its certificate, and a renewal.
fn enrolled(server: &Turned, device: &str) -> (Est, Vec<u8>) {
    let (key, der) = request(device);
    let certificate = server.est().enroll(device, &server.account.token(device), &der).certificate();
    let renewal = request_by(&KeyPair::try_from(key.serialize_der()).expect("a key"), device);
    (server.est().with(Identity { chain: vec![certificate], key }), renewal)
}

fn refused(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.reason())
}

#[test]
fn an_ended_certificate_renews_only_inside_the_grace_of_its_profile() {
    let server = Turned::start();
    server.account.muster(&["profile", "set", "lenient", &format!("renewal_grace_s={}", 2 * DAY)]);
    let (holder, renewal) = enrolled(&server, "meter-1");
    server.turn_to(LIFETIME - HOUR);
    holder.post("simplereenroll", None, &renewal).certificate();
    let expired = (403, Reason::CertificateExpired.code());
    server.turn_to(LIFETIME + HOUR);
    assert_eq!(refused(&holder.post("simplereenroll", None, &renewal)), expired, "no grace by default");
    assert_eq!(refused(&holder.post("simpleenroll", None, &renewal)), expired, "nor on the other path");
    let audit = || server.account.muster(&["audit", "list", "--json"]);
    assert!(!audit().contains("in grace"));
    holder.post("lenient/simplereenroll", None, &renewal).certificate();
    assert!(audit().contains("in grace"), "{}", audit());
    server.turn_to(LIFETIME + 2 * DAY + HOUR);
    assert_eq!(refused(&holder.post("lenient/simplereenroll", None, &renewal)), expired, "the grace ends");
    // A token is the way back, with the same key.
    let token = server.account.token("meter-1");
    server.est().enroll("meter-1", &token, &renewal).certificate();
}

#[test]
fn a_certificate_is_no_good_before_it_begins() {
    let server = Turned::start();
    let (holder, renewal) = enrolled(&server, "meter-1");
    server.turn_to(-DAY);
    let early = holder.post("simplereenroll", None, &renewal);
    assert_eq!(refused(&early), (403, Reason::CertificateNotYetValid.code()));
    server.turn_to(0);
    holder.post("simplereenroll", None, &renewal).certificate();
}

#[test]
fn a_lost_answer_is_repeated_for_a_day_though_the_token_has_ended() {
    let server = Turned::start();
    let (_, der) = request("meter-1");
    let token = server.account.token("meter-1");
    let first = server.est().enroll("meter-1", &token, &der).certificate();
    server.turn_to(DAY - HOUR);
    assert_eq!(server.est().enroll("meter-1", &token, &der).certificate(), first);
    server.turn_to(DAY + HOUR);
    let late = server.est().enroll("meter-1", &token, &der);
    assert_eq!(late.status, 401, "{}", late.text());
    let unused = {
        server.turn_to(0);
        server.account.token("meter-2")
    };
    server.turn_to(2 * HOUR);
    let (_, der) = request("meter-2");
    let late = server.est().enroll("meter-2", &unused, &der);
    assert_eq!(refused(&late), (401, Reason::TokenExpired.code()));
}

#[test]
fn no_certificate_outlives_its_ca_and_none_is_made_after_its_end() {
    let server = Turned::start();
    server.turn_to(CA_LIFETIME - DAY);
    let token = server.account.muster(&["token", "new", "--claim", "--uses", "9", "--ttl", "30d"]);
    let (_, der) = request("meter-1");
    let certificate = server.est().enroll("meter-1", &token, &der).certificate();
    let (_, leaf) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    let cas = certificates_of(&server.est().get("cacerts").decoded());
    let mut cas = cas.iter().map(|der| x509_parser::parse_x509_certificate(der).expect("a certificate").1);
    let issuer = cas.find(|ca| ca.subject().as_raw() == leaf.issuer().as_raw()).expect("its issuer");
    assert_eq!(leaf.validity().not_after, issuer.validity().not_after);
    server.turn_to(CA_LIFETIME + HOUR);
    let (_, der) = request("meter-2");
    let none = server.est().enroll("meter-2", &token, &der);
    assert_eq!(refused(&none), (503, Reason::CaUnavailable.code()));
    assert!(none.header("Retry-After").is_some());
    // A new issuing CA, and the token that was not used up is good.
    server.account.muster(&["ca", "rotate"]);
    server.est().enroll("meter-2", &token, &der).certificate();
}

#[test]
fn a_ca_that_has_ended_does_not_keep_the_server_from_starting() {
    let mut server = Turned::start();
    server.turn_to(CA_LIFETIME - DAY);
    server.account.muster(&["ca", "rotate", "--role", "devices"]);
    server.account.muster(&["ca", "rotate", "--role", "services"]);
    server.turn_to(CA_LIFETIME + HOUR);
    server.restart();
    assert!(server.account.muster(&["audit", "verify"]).contains("intact"));
}

#[test]
fn a_clock_that_was_ahead_leaves_nothing_of_the_future() {
    let mut server = Turned::start();
    server.turn_to(75 * DAY);
    server.restart();
    server.turn_to(0);
    server.restart();
    let now = x509_parser::time::ASN1Time::now();
    let chain = std::fs::read(server.account.dir().join("tls/est.pem")).expect("the listener's chain");
    let leaf = x509_parser::pem::Pem::iter_from_buffer(&chain).next().expect("a block").expect("PEM");
    let leaf = leaf.parse_x509().expect("a certificate").validity().not_before;
    assert!(leaf <= now, "the EST listener's certificate begins {leaf}");
    let cas = server.account.muster_json(&["ca", "list"]);
    let with_lists = cas.as_array().expect("a list").iter().filter(|ca| ca["has_key"] == true);
    let mut lists = 0;
    for ca in with_lists {
        let pem = server.account.muster(&["ca", "crl", ca["id"].as_str().expect("an id")]);
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, list) = x509_parser::parse_x509_crl(&pem.contents).expect("a CRL");
        assert!(list.last_update() <= now, "a CRL begins {}", list.last_update());
        lists += 1;
    }
    assert!(lists >= 2, "{cas}");
}
