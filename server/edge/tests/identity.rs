//! Who is let in by which certificate: each kind of certificate against each mode of a hostname.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

mod rig;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_edge::{CaEntry, CertificateKey, Event, PrintKey, Sought};
use muster_policy::host::{HostMode, Protocol};
use muster_policy::identity::{CaId, Fingerprint, Serial};
use muster_policy::mqtt::Sender;
use muster_policy::reason::Reason;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use rig::{ACCOUNT, NOW, OTHER_ACCOUNT, Pair, Rig, TestCa, at, device_params, host};
use rustls::crypto::CryptoProvider;

#[tokio::test]
async fn a_device_is_known_to_the_origin_by_every_header() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    let answer = rig.get("api.example.com", Some(&pair)).await.expect("served");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let certificate = answer.seen("client-cert").expect("RFC 9440");
    assert!(certificate.starts_with(':') && certificate.ends_with(':'));
    assert_eq!(
        answer.seen("cf-client-cert-der-base64").as_deref(),
        certificate.get(1..certificate.len() - 1)
    );
    for (name, value) in [
        ("cf-cert-presented", "true"),
        ("cf-cert-verified", "true"),
        ("cf-cert-revoked", "false"),
        ("cf-cert-serial", "07"),
        ("cf-cert-subject-dn", "CN=meter-1"),
        ("cf-cert-issuer-dn-legacy", "/CN=devices"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("host", "api.example.com"),
    ] {
        assert_eq!(answer.seen(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(answer.seen("cf-cert-fingerprint-sha256").expect("given").len(), 64);
    assert_eq!(answer.seen("cf-cert-fingerprint-sha1").expect("given").len(), 40);
}

#[tokio::test]
async fn a_mode_says_who_is_served_without_a_certificate() {
    let rig = Rig::start().await;
    let refused = rig.get("api.example.com", None).await.expect_err("refused");
    assert!(refused.contains("CertificateRequired"), "{refused}");
    rig.refused(Reason::ClientCertificateRequired, 1).await;
    for name in ["open.example.com", "off.example.com"] {
        let answer = rig.get(name, None).await.expect("served");
        assert_eq!(
            (answer.status.as_u16(), answer.seen("cf-cert-presented").as_deref()),
            (200, Some("false"))
        );
        assert_eq!(answer.seen("client-cert"), None);
    }
    let off = rig.get("off.example.com", Some(&rig.ca.device("meter-1", 7))).await.expect("served");
    assert_eq!(off.seen("client-cert"), None, "nobody asked for it");
}

/// Every bad certificate is refused with its alert and reason, demanded or only asked for.
#[tokio::test]
async fn a_bad_certificate_is_refused_whether_or_not_one_is_demanded() {
    let rig = Rig::start().await;
    let stranger = TestCa::new(5, ACCOUNT, "devices");
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = device_params("meter-1", 7);
        change(&mut params);
        rig.ca.sign(&params)
    };
    rig.tell(vec![Event::Revoked(rig.ca.key(66))]);
    let (_, issuing_of_stranger) = stranger.below("issuing");
    let mut crowd = rig.ca.device("meter-1", 8);
    crowd.chain.extend(std::iter::repeat_n(issuing_of_stranger, 4));
    let cases: [(&str, Pair, &str, Reason); 9] = [
        // The same name and serial as our CA's, another key.
        ("look-alike", stranger.device("meter-1", 7), "UnknownCA", Reason::CertificateUntrusted),
        ("expired", changed(|p| p.not_after = at(NOW - 1)), "CertificateExpired", Reason::CertificateExpired),
        (
            "early",
            changed(|p| p.not_before = at(NOW + 9)),
            "CertificateExpired",
            Reason::CertificateNotYetValid,
        ),
        ("revoked", rig.ca.device("meter-1", 66), "CertificateRevoked", Reason::CertificateRevoked),
        (
            "server",
            changed(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "UnsupportedCertificate",
            Reason::CertificateUnfit,
        ),
        (
            "any",
            changed(|p| p.extended_key_usages.clear()),
            "UnsupportedCertificate",
            Reason::CertificateUnfit,
        ),
        (
            "ambiguous",
            changed(|p| p.distinguished_name.push(rcgen::DnType::CommonName, "meter-2")),
            "CertificateUnknown",
            Reason::IdentityAmbiguous,
        ),
        (
            "unreadable",
            rig.ca.sign(&device_params("not an id", 9)),
            "BadCertificate",
            Reason::IdentityMalformed,
        ),
        ("crowd", crowd, "CertificateUnknown", Reason::ChainExcessive),
    ];
    let mut expected = BTreeMap::new();
    for (name, pair, alert, reason) in cases {
        for host in ["api.example.com", "open.example.com"] {
            let refused = rig.get(host, Some(&pair)).await.map(|answer| answer.status).expect_err(name);
            assert!(refused.contains(alert), "{name}: {refused}");
            *expected.entry(reason).or_insert(0) += 1;
            rig.refused(reason, expected[&reason]).await;
        }
    }
}

#[tokio::test]
async fn a_ca_counts_for_the_hostnames_of_its_own_account_alone() {
    let other = TestCa::new(5, OTHER_ACCOUNT, "devices");
    let (entry, id) = (other.entry(), other.id);
    // Even when the rule names the other account's CA.
    let rig = Rig::with(
        move |snapshot| {
            snapshot.cas.push(entry);
            snapshot.hosts[1].rule.cas = [id].into();
        },
        |_| {},
    )
    .await;
    for host in ["api.example.com", "open.example.com"] {
        let refused = rig.get(host, Some(&other.device("meter-1", 7))).await.map(|answer| answer.status);
        assert!(refused.expect_err(host).contains("UnknownCA"));
    }
}

#[tokio::test]
async fn an_association_says_which_of_the_accounts_cas_count() {
    let byo = TestCa::new(5, ACCOUNT, "byo");
    let mut entry = byo.entry();
    entry.is_default = false;
    let id = byo.id;
    let rig = Rig::with(
        move |snapshot| {
            snapshot.cas.push(entry);
            snapshot.hosts[1].rule.cas = [id].into();
        },
        |_| {},
    )
    .await;
    let (own, foreign) = (rig.ca.device("meter-1", 7), byo.device("meter-1", 7));
    assert!(rig.get("api.example.com", Some(&own)).await.is_ok());
    assert!(rig.get("api.example.com", Some(&foreign)).await.is_err());
    assert!(rig.get("open.example.com", Some(&foreign)).await.is_ok());
    assert!(rig.get("open.example.com", Some(&own)).await.is_err());
}

#[tokio::test]
async fn a_leaf_alone_passes_at_its_issuing_ca_and_a_whole_chain_at_the_root() {
    let root = TestCa::new(5, ACCOUNT, "root");
    let (issuing, issuing_der) = root.below("issuing");
    let rooted = root.entry();
    let rig = Rig::with(move |snapshot| snapshot.cas = vec![rooted], |_| {}).await;
    let alone = issuing.device("meter-1", 7);
    let mut whole = alone.clone();
    whole.chain.push(issuing_der.clone());
    let refused = rig.get("api.example.com", Some(&alone)).await.map(|answer| answer.status);
    assert!(refused.expect_err("the path is missing").contains("UnknownCA"));
    let answer = rig.get("api.example.com", Some(&whole)).await.expect("served");
    assert!(answer.seen("client-cert-chain").is_some_and(|chain| chain.starts_with(':')));
    assert_eq!(answer.seen("cf-cert-issuer-dn").as_deref(), Some("CN=issuing"));
    let mut both = root.entry();
    both.certificates.insert(0, serde_bytes::ByteBuf::from(issuing_der.to_vec()));
    rig.tell(vec![Event::Ca(both)]);
    assert!(rig.get("api.example.com", Some(&alone)).await.is_ok());
}

/// An association with a CA above the one that issued, or with a second copy of it, is another way to the same
/// certificates; what is revoked is so by each.
#[tokio::test]
async fn what_is_revoked_is_so_by_whichever_ca_it_is_verified_with() {
    let root = TestCa::new(5, ACCOUNT, "root");
    let (issuing, issuing_der) = root.below("issuing");
    let with = |id: u8, der: &[u8]| CaEntry {
        id: CaId::from_bytes([id; 16]),
        is_default: false,
        certificates: vec![serde_bytes::ByteBuf::from(der.to_vec())],
        ..root.entry()
    };
    // The CA that issues is in the middle, as its id says nothing of which one is found first.
    let above = with(7, &root.der);
    let copies = [with(4, &issuing_der), with(8, &issuing_der)];
    let issues = CaEntry { is_default: true, ..with(6, &issuing_der) };
    let mut whole = issuing.device("meter-1", 7);
    whole.chain.push(issuing_der.clone());
    let key = CertificateKey { ca: issues.id, serial: root.key(7).serial };
    for associated in [&above, &copies[0], &copies[1], &issues] {
        let cas = [vec![above.clone(), issues.clone()], copies.to_vec()].concat();
        let rig = Rig::with(
            |snapshot| {
                snapshot.cas = cas;
                snapshot.hosts[1].rule.cas = [associated.id].into();
            },
            |_| {},
        )
        .await;
        let mut open = rig.h1("open.example.com", Some(&whole)).await.expect("connected");
        assert_eq!(open.get("open.example.com", &[]).await.expect("served").status, 200);
        assert_eq!(rig.tell(vec![Event::Revoked(key)]), 1, "{:?}", associated.id);
        let refused = rig.get("open.example.com", Some(&whole)).await.map(|answer| answer.status);
        assert!(refused.expect_err("revoked").contains("CertificateRevoked"));
        rig.tell(vec![Event::Reactivated(key)]);
        assert_eq!(rig.get("open.example.com", Some(&whole)).await.expect("served").status, 200);
    }
}

/// A CA between leaf and anchor is a certificate too, and its anchor's list may name it.
#[tokio::test]
async fn nobody_comes_in_below_a_ca_that_is_revoked() {
    let root = TestCa::new(5, ACCOUNT, "root");
    let (issuing, issuing_der) = root.below("issuing");
    let mut whole = issuing.device("meter-1", 7);
    whole.chain.push(issuing_der.clone());
    let (_, read) = x509_parser::parse_x509_certificate(&issuing_der).expect("a certificate");
    let serial = Serial::from_bytes(read.raw_serial()).expect("a serial");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &issuing_der);
    let fingerprint = Fingerprint::from_bytes(digest.as_ref().try_into().expect("32 octets"));
    let by_serial = Event::Revoked(CertificateKey { ca: root.id, serial });
    let by_print = Event::PrintRevoked(PrintKey { ca: root.id, fingerprint });
    for revoked in [by_serial, by_print] {
        let entry = root.entry();
        let rig = Rig::with(|snapshot| snapshot.cas = vec![entry], |_| {}).await;
        // Whoever is in already is shown out.
        let mut cut = rig.h1("api.example.com", Some(&whole)).await.expect("connected");
        assert_eq!(cut.get("api.example.com", &[]).await.expect("served").status, 200);
        let direct = root.device("meter-2", 8);
        let mut kept = rig.h2("api.example.com", Some(&direct)).await.expect("connected");
        assert_eq!(kept.get("api.example.com").await.expect("served").status, 200);
        let holders = rig.edge.connections(&Sought::default(), 0, 9).found.into_iter();
        let senders: Vec<_> = holders.map(|one| Sender::from(&*one.holder.expect("it has one"))).collect();
        let may_speak = || {
            let known = rig.edge.senders();
            let may = |sender| known.groups(ACCOUNT, sender).map(drop);
            senders.iter().map(may).collect::<Vec<_>>()
        };
        assert_eq!(may_speak(), [Ok(()), Ok(())]);
        assert_eq!(rig.tell(vec![revoked]), 1);
        assert_eq!(may_speak(), [Ok(()), Err(Reason::CertificateRevoked)], "newest first");
        let ended = tokio::time::timeout(Duration::from_secs(10), cut.ended).await.expect("in time");
        ended.expect("no panic").expect("in good order");
        assert_eq!(kept.get("api.example.com").await.expect("served").status, 200);
        let refused = rig.get("api.example.com", Some(&whole)).await.map(|answer| answer.status);
        assert!(refused.expect_err("revoked").contains("CertificateRevoked"));
    }
}

/// A CA that neither issues nor vouches any more does not come back by the root above it.
#[tokio::test]
async fn a_ca_that_is_retired_is_so_below_its_root_too() {
    let root = TestCa::new(5, ACCOUNT, "root");
    let (issuing, issuing_der) = root.below("issuing");
    let mut retired = CaEntry { id: CaId::from_bytes([6; 16]), ..root.entry() };
    retired.certificates = vec![serde_bytes::ByteBuf::from(issuing_der.to_vec())];
    let mut whole = issuing.device("meter-1", 7);
    whole.chain.push(issuing_der);
    let (above, before) = (root.entry(), retired.clone());
    let rig = Rig::with(|snapshot| snapshot.cas = vec![above, before], |_| {}).await;
    assert_eq!(rig.get("api.example.com", Some(&whole)).await.expect("served").status, 200);
    (retired.vouches, retired.is_default) = (false, false);
    rig.tell(vec![Event::Ca(retired)]);
    let refused = rig.get("api.example.com", Some(&whole)).await.map(|answer| answer.status);
    assert!(refused.expect_err("retired").contains("UnknownCA"));
}

/// A CA certificate that was renewed has the same name and key as the one before it, which may have ended.
#[tokio::test]
async fn a_ca_certificate_that_was_renewed_takes_over_from_the_one_that_ended() {
    let issuer = TestCa::new(5, ACCOUNT, "devices");
    let renewed = |not_before: i64, not_after: i64| {
        let mut params = ca("devices");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (at(not_before), at(not_after));
        params.self_signed(issuer.issuer.key()).expect("a certificate").der().to_vec()
    };
    let entry = |id: u8, der: &[u8]| CaEntry {
        id: CaId::from_bytes([id; 16]),
        certificates: vec![serde_bytes::ByteBuf::from(der.to_vec())],
        ..issuer.entry()
    };
    let (past, present) = (renewed(NOW - 900, NOW - 100), renewed(NOW - 900, NOW + 900));
    let future = renewed(NOW + 100, NOW + 900);
    for [first, second, third] in
        [[&past, &present, &future], [&future, &present, &past], [&present, &past, &future]]
    {
        let cas = vec![entry(4, first), entry(6, second), entry(8, third)];
        let rig = Rig::with(|snapshot| snapshot.cas = cas, |_| {}).await;
        let answer = rig.get("api.example.com", Some(&issuer.device("meter-1", 7))).await;
        assert_eq!(answer.expect("served").status, 200);
    }
    let rig = Rig::with(|snapshot| snapshot.cas = vec![entry(4, &past), entry(6, &future)], |_| {}).await;
    let refused = rig.get("api.example.com", Some(&issuer.device("meter-1", 7))).await;
    assert!(
        refused.map(|answer| answer.status).expect_err("none is good now").contains("CertificateExpired")
    );
}

#[tokio::test]
async fn a_ca_that_has_ended_vouches_for_nobody() {
    let rig = Rig::start().await;
    let mut params = device_params("meter-1", 7);
    params.not_after = at(NOW + 10 * 31_536_000);
    let pair = rig.ca.sign(&params);
    assert!(rig.get("api.example.com", Some(&pair)).await.is_ok());
    // Remembered as verified by now, which must not outlast the CA.
    rig.clock.store(NOW + 31_536_001, Ordering::Relaxed);
    rig.edge
        .apply(muster_edge::Update::Snapshot(Box::new(muster_edge::Snapshot {
            made_at: muster_policy::time::UnixTime::from_secs(NOW + 31_536_001),
            ..rig.snapshot.clone()
        })))
        .expect("a heartbeat");
    let stream = tokio::net::TcpStream::connect(rig.https).await.expect("connected");
    let mut config = rig.client(Some(&pair), &[]);
    config.dangerous().set_certificate_verifier(std::sync::Arc::new(Trusting));
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut tls =
        connector.connect("api.example.com".try_into().expect("a name"), stream).await.expect("half done");
    let ended = tokio::io::AsyncReadExt::read_u8(&mut tls).await.expect_err("refused");
    assert!(ended.to_string().contains("CertificateExpired"), "{ended}");
}

/// RFC 5280 §6 in the cases that other verifiers got wrong; all of them name a CA that is accepted.
#[tokio::test]
async fn a_path_that_breaks_a_rule_of_its_cas_leads_nowhere() {
    use rcgen::{BasicConstraints, CustomExtension, GeneralSubtree, IsCa, NameConstraints};

    let rig = Rig::start().await;
    // Issued by a device: its certificate says that it is no CA.
    let device = rig.ca.issue(device_params("meter-1", 7), IsCa::ExplicitNoCa);
    let by_device = chain_of(&device.0.sign(&device_params("meter-2", 8)), &device.1);
    // Issued below a CA that allows no CA below itself.
    let short = rig.ca.issue(ca("short"), IsCa::Ca(BasicConstraints::Constrained(0)));
    let too_deep = short.0.issue(ca("deeper"), IsCa::Ca(BasicConstraints::Unconstrained));
    let mut too_long = chain_of(&too_deep.0.sign(&device_params("meter-1", 9)), &too_deep.1);
    too_long.chain.push(short.1.clone());
    let good = chain_of(&short.0.sign(&device_params("meter-1", 10)), &short.1);
    // Issued by a CA for other names.
    let mut constrained = ca("constrained");
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let constrained = rig.ca.issue(constrained, IsCa::Ca(BasicConstraints::Unconstrained));
    let mut named = device_params("meter-1", 11);
    named.subject_alt_names.push(rcgen::SanType::DnsName("a.example".try_into().expect("ASCII")));
    let elsewhere = chain_of(&constrained.0.sign(&named), &constrained.1);
    // Issued by a CA that is for servers.
    let mut services = ca("services");
    services.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let services = rig.ca.issue(services, IsCa::Ca(BasicConstraints::Unconstrained));
    let by_services = chain_of(&services.0.sign(&device_params("meter-1", 12)), &services.1);
    // With a critical extension that nobody knows.
    let mut unknown = device_params("meter-1", 13);
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    unknown.custom_extensions.push(extension);
    let unknown = rig.ca.sign(&unknown);
    // A CA, shown as if it were a device.
    let as_device = rig.ca.sign(&{
        let mut params = device_params("meter-1", 14);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    });
    // Larger than is looked at.
    let mut large = device_params("meter-1", 15);
    large
        .custom_extensions
        .push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 2], vec![0; 17_000]));
    let large = rig.ca.sign(&large);
    for (name, pair) in [
        ("by_device", by_device),
        ("too_long", too_long),
        ("elsewhere", elsewhere),
        ("by_services", by_services),
        ("unknown", unknown),
        ("as_device", as_device),
        ("large", large),
    ] {
        let refused = rig.get("open.example.com", Some(&pair)).await.map(|answer| answer.status);
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    assert_eq!(rig.get("open.example.com", Some(&good)).await.expect("served").status, 200);
}

/// RFC 8446 §4.4.3: who shows a certificate has to have its key, also when its chain was verified before.
#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let rig = Rig::start().await;
    let mut stolen = rig.ca.device("meter-1", 7);
    assert_eq!(rig.get("api.example.com", Some(&stolen)).await.expect("served").status, 200);
    stolen.key = rig.ca.device("meter-2", 8).key;
    for host in ["api.example.com", "open.example.com"] {
        let refused = rig.get(host, Some(&stolen)).await.map(|answer| answer.status);
        assert!(refused.expect_err("not its own").contains("DecryptError"));
    }
}

/// What stands first is what is shown; the rest is there to lead from it to a CA, if it does.
#[tokio::test]
async fn certificates_beside_the_leaf_are_no_identity() {
    let rig = Rig::start().await;
    let (mine, stranger) = (rig.ca.device("meter-1", 7), TestCa::new(5, ACCOUNT, "devices"));
    let (first, second) = (stranger.below("first"), stranger.below("second"));
    // Each vouches for the other, and none of our CAs for either.
    let circle = |of: &TestCa, by: &TestCa, name: &str| {
        let mut params = ca(name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.signed_by(of.issuer.key(), &by.issuer).expect("a certificate").der().clone()
    };
    let (one, other) = (circle(&first.0, &second.0, "first"), circle(&second.0, &first.0, "second"));
    let round = first.0.device("meter-1", 9);
    let foreign = stranger.device("meter-2", 7);
    for (name, pair) in [
        (
            "ours behind a stranger's",
            Pair { chain: [foreign.chain.clone(), mine.chain.clone()].concat(), ..foreign },
        ),
        (
            "our CA first",
            Pair { chain: [vec![rig.ca.der.clone().into()], mine.chain.clone()].concat(), ..mine.clone() },
        ),
        (
            "a circle",
            Pair { chain: [round.chain.clone(), vec![one.clone(), other.clone(), one]].concat(), ..round },
        ),
        ("without end", Pair { chain: vec![mine.chain[0].clone(); 400], ..mine.clone() }),
    ] {
        let refused = rig.get("open.example.com", Some(&pair)).await.map(|answer| answer.status);
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    let twice = Pair { chain: vec![mine.chain[0].clone(); 2], ..mine };
    let answer = rig.get("open.example.com", Some(&twice)).await.expect("served");
    assert_eq!(answer.seen("cf-cert-subject-dn").as_deref(), Some("CN=meter-1"));
    assert_eq!(answer.seen("client-cert-chain"), None, "only what was verified is told");
}

fn ca(name: &str) -> CertificateParams {
    let mut params = device_params(name, 1);
    params.subject_alt_names.clear();
    params.extended_key_usages.clear();
    params.serial_number = None;
    params
}

fn chain_of(leaf: &Pair, issuer: &rustls::pki_types::CertificateDer<'static>) -> Pair {
    Pair { chain: [leaf.chain.clone(), vec![issuer.clone()]].concat(), key: leaf.key.clone() }
}

/// A client that resumes wherever it can finds no way to: each handshake checks everything.
#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let rig = Rig::with(
        |snapshot| {
            for host in &mut snapshot.hosts {
                host.rule.min_tls = muster_policy::host::MinTls::Tls12;
            }
        },
        |_| {},
    )
    .await;
    let pair = rig.ca.device("meter-1", 7);
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rig.server_ca.der.clone().into()).expect("a CA");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.key.clone()).into();
        // One configuration, so one memory of sessions, for all connections.
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(pair.chain.clone(), key)
            .expect("a pair");
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        for _ in 0..3 {
            let stream = tokio::net::TcpStream::connect(rig.https).await.expect("connected");
            let name = "api.example.com".try_into().expect("a name");
            let mut tls = connector.connect(name, stream).await.expect("a handshake");
            let request = b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut tls, request).await.expect("written");
            let mut answer = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut answer).await;
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            let kind = tls.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full));
        }
    }
}

#[tokio::test]
async fn a_suspended_device_is_told_so_and_comes_back_when_resumed() {
    let rig = Rig::start().await;
    let pair = rig.ca.device("meter-1", 7);
    rig.suspend("meter-1");
    let answer = rig.get("api.example.com", Some(&pair)).await.expect("answered");
    assert_eq!((answer.status.as_u16(), answer.reason()), (403, "device_suspended"));
    assert!(answer.body.contains("\"reason\":\"device_suspended\""));
    rig.tell(vec![Event::Device(muster_edge::DeviceEntry {
        account: ACCOUNT,
        device: "meter-1".parse().expect("an id"),
        status: muster_policy::enrol::DeviceStatus::Active,
        groups: Default::default(),
    })]);
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
}

#[tokio::test]
async fn without_news_of_revocations_each_hostname_does_as_it_says() {
    let rig = Rig::with(
        |snapshot| snapshot.hosts[1].rule.when_stale = muster_policy::host::WhenStale::Open,
        |config| config.staleness_allowed_for = Duration::from_secs(60),
    )
    .await;
    let pair = rig.ca.device("meter-1", 7);
    rig.clock.store(NOW + 61, Ordering::Relaxed);
    let closed = rig.get("api.example.com", Some(&pair)).await.expect("answered");
    assert_eq!((closed.status.as_u16(), closed.reason()), (503, "revocations_stale"));
    assert_eq!(rig.get("open.example.com", Some(&pair)).await.expect("served").status, 200);
    assert_eq!(rig.tell(Vec::new()), 0, "a heartbeat");
    assert_eq!(rig.get("api.example.com", Some(&pair)).await.expect("served").status, 200);
}

#[tokio::test]
async fn a_change_of_a_hostname_is_in_force_at_once() {
    let rig = Rig::start().await;
    let entry = host(&rig.server_ca, "new.example.com", HostMode::Off, Protocol::Https, rig.origin);
    assert!(rig.get("new.example.com", None).await.is_err());
    rig.tell(vec![Event::Host(Box::new(entry.clone()))]);
    assert_eq!(rig.get("new.example.com", None).await.expect("served").status, 200);
    rig.tell(vec![Event::HostRemoved(entry.rule.host)]);
    assert!(rig.get("new.example.com", None).await.is_err());
}

/// A client that looks at no server certificate.
#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test]
async fn aes_128_is_spoken_unless_a_client_would_rather_not_do_aes_or_does_not_offer_it() {
    use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};

    let rig = Rig::start().await;
    let [aes_128, aes_256, chacha20] = [
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    for (offered, spoken) in [
        (vec![aes_256, aes_128, chacha20], aes_128),
        (vec![chacha20, aes_128, aes_256], chacha20),
        (vec![aes_256, chacha20], aes_256),
        (vec![aes_256], aes_256),
    ] {
        let provider = CryptoProvider { cipher_suites: offered, ..default_provider() };
        let config = rig.client_of(provider, Some(&rig.ca.device("meter-1", 7)), &[b"http/1.1"]);
        let stream = rig.tls(rig.https, "api.example.com", config).await.expect("connected");
        assert_eq!(stream.get_ref().1.negotiated_cipher_suite(), Some(spoken));
    }
}
