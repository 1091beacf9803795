//! Every refusal reason is caused over the wire, and shows in answer, metric and audit.
//!
//! A reason that is caused in no place, or in more than one, fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_policy::reason::{Fault, Reason};
use muster_tests::est::{basic, post};
use muster_tests::request::{CHALLENGE_PASSWORD, challenge, dns, request, request_by, request_with};
use muster_tests::{Est, Identity, Maker, Reply, Server};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Reasons that need a server of their own; the test that causes each over the wire.
const ELSEWHERE: &[(Reason, &str)] = &[
    (Reason::ApprovalQueueFull, "below: no_more_requests_wait_than_the_configuration_says"),
    (Reason::BodyTimeout, "resilience: a_body_that_does_not_come_is_given_up_and_uses_nothing_up"),
    (Reason::CaUnavailable, "time: no_certificate_outlives_its_ca_and_none_is_made_after_its_end"),
    (Reason::CertificateExpired, "time: an_ended_certificate_renews_only_inside_the_grace_of_its_profile"),
    (Reason::CertificateNotYetValid, "time: a_certificate_is_no_good_before_it_begins"),
    (Reason::CrlStale, "identity: a_manufacturer_s_own_crl_says_who_enrolls_for_as_long_as_it_is_good"),
    (Reason::ConnectionClosed, "edge: an_operator_ends_live_connections_and_who_has_its_right_comes_again"),
    (
        Reason::LedgerUnavailable,
        "resilience: a_full_disk_refuses_and_loses_nothing_and_space_is_enough_to_go_on",
    ),
    (Reason::Overloaded, "below: who_would_wait_too_long_for_a_key_is_told_to_come_back"),
    (Reason::TokenExpired, "time: a_lost_answer_is_repeated_for_a_day_though_the_token_has_ended"),
];

/// Reasons of the edge, which EST never gives; each is caused over the wire by a test of muster-edge.
/// They are alerts, statuses, log lines and metrics; not in the audit, which a stranger at the door could fill.
const EDGE: [(Reason, &str); 20] = [
    (Reason::AccessDenied, "gate: an_access_application_is_enforced_at_its_path"),
    (Reason::RuleBlocked, "gate: a_rule_blocks_who_it_means"),
    (Reason::CaNotAccepted, "live: whatever_takes_the_right_away_ends_the_connection"),
    (Reason::ChainExcessive, "identity: a_bad_certificate_is_refused_whether_or_not_one_is_demanded"),
    (Reason::ClientCertificateRequired, "identity: a_mode_says_who_is_served_without_a_certificate"),
    (Reason::GroupsChanged, "live: a_device_that_changes_its_groups_connects_anew"),
    (Reason::HostMisdirected, "http: a_request_for_another_hostname_is_misdirected_on_every_stream"),
    (Reason::HostUnknown, "live: whatever_takes_the_right_away_ends_the_connection"),
    (Reason::IdentityAmbiguous, "identity: a_bad_certificate_is_refused_whether_or_not_one_is_demanded"),
    (Reason::IdentityMalformed, "identity: a_bad_certificate_is_refused_whether_or_not_one_is_demanded"),
    (Reason::MethodRefused, "http: every_method_is_the_origins_to_answer_but_those_that_speak_of_the_way"),
    (Reason::OriginFailed, "http: an_origin_is_checked_against_its_pins_and_shown_the_accounts_certificate"),
    (Reason::OriginMissing, "http: an_origin_that_is_away_is_named_and_its_peers_take_over"),
    (Reason::OriginTimeout, "http: an_origin_that_does_not_answer_is_given_up"),
    (Reason::OriginUnreachable, "http: an_origin_that_is_away_is_named_and_its_peers_take_over"),
    (
        Reason::OriginUntrusted,
        "http: an_origin_is_checked_against_its_pins_and_shown_the_accounts_certificate",
    ),
    (Reason::ProtocolNotOffered, "live: a_port_serves_only_hostnames_that_speak_its_protocol"),
    (Reason::RequestMalformed, "http: a_request_that_can_be_read_two_ways_is_read_in_none"),
    (Reason::RevocationsStale, "identity: without_news_of_revocations_each_hostname_does_as_it_says"),
    (Reason::ServerStopping, "live: draining_lets_a_request_finish_and_tells_mqtt_to_go"),
];

/// The status that the contract gives each kind of fault.
const fn status(fault: Fault) -> u16 {
    match fault {
        Fault::Authentication => 401,
        Fault::Forbidden => 403,
        Fault::Malformed => 400,
        Fault::TooLarge => 413,
        Fault::MediaType => 415,
        Fault::NotFound => 404,
        Fault::NotOffered => 501,
        Fault::TooOften => 429,
        Fault::Unavailable => 503,
        Fault::Misdirected => 421,
        Fault::Origin => 502,
    }
}

fn pair(key: &KeyPair) -> KeyPair {
    KeyPair::try_from(key.serialize_der()).expect("a key")
}

struct Bench {
    server: Server,
    /// Each reason that was caused, with the ids of the requests.
    seen: BTreeMap<&'static str, Vec<String>>,
}

impl Bench {
    fn expect(&mut self, reason: Reason, reply: &Reply) {
        assert_eq!(reply.reason(), reason.code(), "{} {}", reply.head, reply.text());
        assert_eq!(reply.status, status(reason.fault()), "{reason}");
        assert!(reply.text().starts_with(reason.sentence()), "{reason}: {}", reply.text());
        let id = reply.header("X-Request-Id").expect("an id").to_owned();
        self.seen.entry(reason.code()).or_default().push(id);
    }

    fn token(&self, device: &str) -> String {
        self.server.token(device)
    }

    fn first(&self, device: &str, der: &[u8]) -> Reply {
        self.server.est().enroll(device, &self.token(device), der)
    }

    fn holder(&self, device: &str) -> (Est, KeyPair) {
        let (key, der) = request(device);
        let certificate = self.first(device, &der).certificate();
        let again = pair(&key);
        (self.server.est().with(Identity { chain: vec![certificate], key }), again)
    }
}

#[test]
fn every_reason_has_its_cause_answer_metric_and_audit() {
    let mut bench = Bench { server: Server::start(), seen: BTreeMap::new() };
    credentials(&mut bench);
    certificates(&mut bench);
    requests(&mut bench);
    profiles(&mut bench);
    audited(&bench);
    let metrics = bench.server.metrics();
    for (code, requests) in &bench.seen {
        let counted: usize = metrics
            .lines()
            .filter(|line| line.starts_with("muster_est_refusals_total"))
            .filter(|line| line.contains(&format!("reason=\"{code}\"")))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(counted, requests.len(), "{code} in the metrics");
    }
    assert!(bench.server.muster(&["audit", "verify"]).contains("intact"));
    let rest = limits();
    for reason in Reason::ALL {
        let here = bench.seen.contains_key(reason.code()) || rest.contains(reason);
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == reason);
        let edge = EDGE.iter().any(|(other, _)| other == reason);
        let places = [here, elsewhere, edge].iter().filter(|place| **place).count();
        assert_eq!(places, 1, "{reason} must be caused in one place");
    }
}

/// Waits until the audit has each refusal, with its reason, under the id that the answer named.
fn audited(bench: &Bench) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let wanted: Vec<(&str, &String)> =
        bench.seen.iter().flat_map(|(code, ids)| ids.iter().map(|id| (*code, id))).collect();
    loop {
        let audit = bench.server.muster_json(&["audit", "list"]);
        let entries = audit.as_array().expect("a list");
        let has = |(code, id): &&(&str, &String)| {
            entries.iter().any(|entry| {
                entry["reason"] == *code
                    && entry["details"].as_str().is_some_and(|details| details.contains(id.as_str()))
            })
        };
        let missing: Vec<_> = wanted.iter().filter(|wanted| !has(wanted)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "not in the audit: {missing:?}");
    }
}

/// A configured limit of waiting requests, over the wire.
#[test]
fn no_more_requests_wait_than_the_configuration_says() {
    let server = Server::with_config("[est]\napprovals_max = 2\napproval_retry_s = 7\n");
    server.muster(&["profile", "set", "checked", "approval=manual"]);
    let ask = |device: &str| {
        let (_, der) = request(device);
        server.est().post("checked/simpleenroll", Some(&basic(device, &server.token(device))), &der)
    };
    for device in ["meter-1", "meter-2"] {
        let reply = ask(device);
        assert_eq!((reply.status, reply.header("Retry-After")), (202, Some("7")));
    }
    let full = ask("meter-3");
    assert_eq!((full.status, full.reason()), (503, Reason::ApprovalQueueFull.code()));
    let id = server.muster_json(&["approval", "list"])[0]["id"].as_str().expect("an id").to_owned();
    server.muster(&["approval", "deny", &id]);
    assert_eq!(ask("meter-3").status, 202);
}

fn credentials(bench: &mut Bench) {
    let (_, der) = request("meter-1");
    let est = bench.server.est();
    bench.expect(Reason::CredentialsMissing, &est.post("simpleenroll", None, &der));
    bench.expect(Reason::CredentialsWrong, &est.enroll("meter-1", "nonsense", &der));
    let token = bench.token("meter-1");
    bench.expect(Reason::CredentialsWrong, &est.enroll("meter-2", &token, &der));
    // What was refused used nothing up.
    est.enroll("meter-1", &token, &der).certificate();
    let (_, other) = request("meter-1");
    bench.expect(Reason::TokenUsed, &est.enroll("meter-1", &token, &other));
    let revoked = bench.token("meter-1");
    let listed = bench.server.muster_json(&["token", "list"]);
    let id = listed[0]["id"].as_str().expect("the newest first").to_owned();
    bench.server.muster(&["token", "revoke", &id]);
    bench.expect(Reason::TokenRevoked, &est.enroll("meter-1", &revoked, &other));
    let bound = ["token", "new", "--device", "meter-1", "--key-sha256", &"00".repeat(32)];
    let bound = bench.server.muster(&bound);
    bench.expect(Reason::TokenKeyMismatch, &est.enroll("meter-1", &bound, &other));
    bench.server.muster(&["profile", "set", "elsewhere"]);
    let profile = bench.server.muster(&["token", "new", "--device", "meter-1", "--profile", "elsewhere"]);
    bench.expect(Reason::ProfileForbidden, &est.enroll("meter-1", &profile, &other));
}

fn certificates(bench: &mut Bench) {
    let (holder, key) = bench.holder("meter-3");
    let renewal = request_by(&key, "meter-3");
    bench.expect(Reason::CertificateMissing, &bench.server.est().post("simplereenroll", None, &renewal));
    let impostor = |purpose, ca_key: &KeyPair| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "impostor");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(params, ca_key);
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "meter-3");
        leaf.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate").der().to_vec();
        Identity { chain: vec![certificate], key }
    };
    let ca_key = KeyPair::generate().expect("a key");
    let stranger = bench.server.est().with(impostor(ExtendedKeyUsagePurpose::ClientAuth, &ca_key));
    bench.expect(Reason::CertificateUntrusted, &stranger.post("simplereenroll", None, &renewal));
    manufacturer(bench, &impostor);
    let changed = request_with(&key, &[], |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-3");
        params.distinguished_name.push(DnType::OrganizationName, "x");
    });
    bench.expect(Reason::SubjectChanged, &holder.post("simplereenroll", None, &changed));
    let san = request_with(&key, &[], |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-3");
        params.subject_alt_names = vec![dns("meter-3")];
    });
    bench.expect(Reason::SanChanged, &holder.post("simplereenroll", None, &san));
    let change_subject: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 7, 36];
    let changes = request_with(&key, &[(change_subject, &[0x30, 0x00])], |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-3");
    });
    bench.expect(Reason::SubjectChangeUnsupported, &holder.post("simplereenroll", None, &changes));
    bench.server.muster(&["cert", "revoke", "--device", "meter-3"]);
    bench.expect(Reason::CertificateRevoked, &holder.post("simplereenroll", None, &renewal));
}

/// Manufacturer's certificates (IDevID): listed, unlisted, unfit, and of a CA that knows no such one.
fn manufacturer(bench: &mut Bench, _: &dyn Fn(ExtendedKeyUsagePurpose, &KeyPair) -> Identity) {
    let maker = Maker::known_to(&bench.server, &[("meter-9", "SN-9")]);
    let made = |serial: &str, purpose: ExtendedKeyUsagePurpose| {
        bench.server.est().with(maker.idevid_for(serial, purpose))
    };
    let (_, der) = request("meter-9");
    let listed = made("SN-9", ExtendedKeyUsagePurpose::ClientAuth);
    let unlisted = made("SN-8", ExtendedKeyUsagePurpose::ClientAuth);
    let unfit = made("SN-9", ExtendedKeyUsagePurpose::ServerAuth);
    listed.post("simpleenroll", None, &der).certificate();
    bench.server.muster(&["profile", "set", "both", "credentials=certificate-and-token"]);
    bench.expect(Reason::CredentialsMissing, &listed.post("both/simpleenroll", None, &der));
    let (token, alone) = (bench.token("meter-9"), bench.server.est());
    let authorization = basic("meter-9", &token);
    let reply = alone.post("both/simpleenroll", Some(&authorization), &der);
    bench.expect(Reason::CredentialsMissing, &reply);
    let other = basic("meter-8", &bench.token("meter-8"));
    bench.expect(Reason::CredentialsWrong, &listed.post("both/simpleenroll", Some(&other), &der));
    listed.post("both/simpleenroll", Some(&authorization), &der).certificate();
    bench.expect(Reason::ManufacturerSerialUnlisted, &unlisted.post("simpleenroll", None, &der));
    bench.expect(Reason::CertificateUnfit, &unfit.post("simpleenroll", None, &der));
    bench.expect(Reason::CertificateUnknown, &listed.post("simplereenroll", None, &der));
}

fn requests(bench: &mut Bench) {
    let named = |names: &[&str]| {
        let key = KeyPair::generate().expect("a key");
        request_with(&key, &[], |params| {
            for name in names {
                params.distinguished_name.push(DnType::CommonName, *name);
            }
        })
    };
    let sans = |names: Vec<rcgen::SanType>| {
        let key = KeyPair::generate().expect("a key");
        request_with(&key, &[], |params| {
            params.distinguished_name.push(DnType::CommonName, "meter-4");
            params.subject_alt_names = names;
        })
    };
    bench.expect(Reason::NameMismatch, &bench.first("meter-4", &named(&["meter-5"])));
    bench.expect(Reason::NameMalformed, &bench.first("meter-4", &named(&["*"])));
    bench.expect(Reason::SubjectEmpty, &bench.first("meter-4", &named(&[])));
    bench.expect(Reason::SanForbidden, &bench.first("meter-4", &sans(vec![dns("bank.example")])));
    bench.expect(Reason::SanExcessive, &bench.first("meter-4", &sans(vec![dns("meter-4"); 40])));
    let ambiguous = include_bytes!("../vectors/two_common_names.der");
    bench.expect(Reason::SubjectAmbiguous, &bench.first("meter-4", ambiguous));
    let weak_signature = include_bytes!("../vectors/sha1_signature.der");
    bench.expect(Reason::SignatureWeak, &bench.first("meter-4", weak_signature));
    let weak_key = include_bytes!("../vectors/rsa1024.der");
    bench.expect(Reason::KeyWeak, &bench.first("meter-4", weak_key));
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    bench.expect(Reason::KeyKindForbidden, &bench.first("meter-4", &request_by(&ed25519, "meter-4")));
    let (_, good) = request("meter-4");
    let mut forged = good.clone();
    let at = forged.windows(7).position(|part| part == b"meter-4").expect("the name");
    forged[at] = b'M';
    bench.expect(Reason::SignatureWrong, &bench.first("meter-4", &forged));
    bench.expect(Reason::CsrMalformed, &bench.first("meter-4", &good[..good.len() - 1]));
    let authorization = basic("meter-4", &bench.token("meter-4"));
    let est = bench.server.est();
    let send = |body: &str| est.send(&post("simpleenroll", Some(&authorization), body)).expect("an answer");
    bench.expect(Reason::BodyMalformed, &send("%%%"));
    bench.expect(Reason::BodyTooLarge, &send(&"A".repeat(40_000)));
    let text = post("simpleenroll", Some(&authorization), &STANDARD.encode(&good));
    let text = String::from_utf8(text).expect("text").replace("application/pkcs10", "text/plain");
    bench.expect(Reason::MediaTypeWrong, &est.send(text.as_bytes()).expect("an answer"));
    let wrong = |tls: Est, value: &str| {
        let key = KeyPair::generate().expect("a key");
        let der = request_with(&key, &[(CHALLENGE_PASSWORD, &challenge(value))], |params| {
            params.distinguished_name.push(DnType::CommonName, "meter-4");
        });
        tls.post("simpleenroll", Some(&authorization), &der)
    };
    bench.expect(Reason::ChannelBindingMismatch, &wrong(est.clone(), "something else"));
    bench.expect(Reason::ChannelBindingUnavailable, &wrong(est.clone().on_tls12(), "something else"));
    let cmc = est.post("fullcmc", None, &good);
    bench.expect(Reason::CmcUnsupported, &cmc);
    let decrypt: &[u64] = &[1, 2, 840, 113549, 1, 9, 16, 2, 37];
    let key = KeyPair::generate().expect("a key");
    let encrypted = request_with(&key, &[(decrypt, &[0x04, 0x01, 0x01])], |params| {
        params.distinguished_name.push(DnType::CommonName, "meter-4");
    });
    let reply = est.post("serverkeygen", Some(&authorization), &encrypted);
    bench.expect(Reason::ServerKeygenEncryptionUnsupported, &reply);
}

fn profiles(bench: &mut Bench) {
    let (_, der) = request("meter-6");
    bench.server.muster(&["profile", "set", "bound", "channel_binding=required", "server_keygen=false"]);
    let authorization = basic("meter-6", &bench.token("meter-6"));
    let est = bench.server.est();
    let reply = est.post("bound/simpleenroll", Some(&authorization), &der);
    bench.expect(Reason::ChannelBindingMissing, &reply);
    bench.expect(Reason::ServerKeygenOff, &est.post("bound/serverkeygen", Some(&authorization), &der));
    bench.expect(Reason::ProfileUnknown, &est.post("nowhere/simpleenroll", Some(&authorization), &der));
    bench.server.muster(&["profile", "set", "checked", "approval=manual"]);
    assert_eq!(est.post("checked/simpleenroll", Some(&authorization), &der).status, 202);
    let listed = bench.server.muster_json(&["approval", "list"]);
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    bench.server.muster(&["approval", "deny", &id]);
    bench.expect(Reason::ApprovalDenied, &est.post("checked/simpleenroll", Some(&authorization), &der));
    let (holder, key) = bench.holder("meter-7");
    let renewal = request_by(&key, "meter-7");
    bench.server.muster(&["device", "suspend", "meter-7"]);
    bench.expect(Reason::DeviceSuspended, &holder.post("simplereenroll", None, &renewal));
    bench.server.muster(&["device", "resume", "meter-7"]);
    holder.post("simplereenroll", None, &renewal).certificate();
    bench.server.muster(&["device", "retire", "meter-7"]);
    bench.expect(Reason::DeviceRetired, &holder.post("simplereenroll", None, &renewal));
}

/// The limits, each on a server that has it tight.
fn limits() -> BTreeSet<Reason> {
    let mut seen = BTreeSet::new();
    let settings = [
        ("source_rate", Reason::RateLimitedSource),
        ("guess_rate", Reason::CredentialGuessing),
        ("device_rate", Reason::RateLimitedDevice),
        ("account_rate", Reason::RateLimitedAccount),
    ];
    for (field, reason) in settings {
        let server = Server::with_config(&format!("[est]\n{field} = {{ burst = 2, refill_s = 3600.0 }}\n"));
        let (_, der) = request("meter-1");
        let token = server.token("meter-1");
        let secret = if reason == Reason::CredentialGuessing { "wrong" } else { token.as_str() };
        let replies: Vec<Reply> = (0..3).map(|_| server.est().enroll("meter-1", secret, &der)).collect();
        assert_eq!(replies[2].reason(), reason.code());
        assert_eq!(replies[2].status, 429);
        assert!(replies[2].header("Retry-After").is_some());
        if reason == Reason::CredentialGuessing {
            // Only wrong credentials are slowed.
            server.est().enroll("meter-1", &token, &der).certificate();
        }
        seen.insert(reason);
    }
    seen
}

/// Making an RSA key takes a good part of a second, and one is made at a time: who would wait for more than 20 s
/// is told to come again. Nothing is used up by that.
#[test]
fn who_would_wait_too_long_for_a_key_is_told_to_come_back() {
    /// The largest keys at once: far more than one core makes in 20 s.
    const ASKING: usize = 160;
    let server = Server::start();
    server.muster(&["profile", "set", "large", "keys=rsa", "rsa_min_bits=4096"]);
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096).expect("a key");
    let der = request_by(&key, "meter-1");
    let token = server.muster(&["token", "new", "--device", "meter-1", "--uses", "1000"]);
    let authorization = basic("meter-1", token.trim());
    let (seen, replies) = std::sync::mpsc::sync_channel(ASKING);
    let first_refused = std::thread::scope(|scope| {
        for _ in 0..ASKING {
            let (est, seen) = (server.est(), seen.clone());
            let (authorization, der) = (&authorization, &der);
            scope.spawn(move || {
                // Once one was refused the test is over and the server is gone.
                let reply = est.try_post("large/serverkeygen", Some(authorization), der);
                let _ = seen.send(reply);
            });
        }
        drop(seen);
        let refused = replies.iter().flatten().find(|reply| reply.status != 200).expect("one is refused");
        server.signal("KILL");
        refused
    });
    assert_eq!((first_refused.status, first_refused.reason()), (503, Reason::Overloaded.code()));
    assert!(first_refused.header("Retry-After").is_some(), "{}", first_refused.head);
}
