//! What origins and rules are told of a certificate, held against what `openssl` prints of it (contract §8).

use muster_edge::{AccountEntry, CaEntry, Event};
use muster_policy::gate::{Action, GateWritten, RuleWritten, ZoneRules};
use muster_policy::identity::CaId;
use serde_bytes::ByteBuf;

use crate::Bench;
use crate::rig::{ACCOUNT, account};

/// A root, an issuing CA, and a leaf of its, with names that are hard to print and serials that begin with a
/// high bit and with a zero.
const FILES: &str = r#"set -e; exec 2>&1
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -utf8 -keyout $1.key -out $1.csr -subj "$2"; }
sign() { printf '%b' "$4" > $1.ext; openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -set_serial $3 -days 30 -extfile $1.ext -out $1.pem; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -out root.pem -subj /CN=root -days 30
new issuing '/C=DE/ST=Bav,aria/O=#Acme; "Iss<u>ing"/OU= two+OU=three /DC=exam/CN=issu\=ing'
sign issuing root 0x8001020304 'basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\nkeyUsage=keyCertSign'
new device '/C=DE/L=München/street=Am Tor 1/SN=Sur/GN=Given/title=Dr/serialNumber=42/UID=u1/emailAddress=a@b.example/organizationIdentifier=VAT1/CN=meter-1'
sign device issuing 0x00f1 'extendedKeyUsage=clientAuth\nsubjectKeyIdentifier=hash'
cat device.pem issuing.pem device.key > chain.pem
date +%s"#;

/// What openssl prints of a certificate, after the last `=` of its label.
fn openssl(bench: &Bench, args: &str) -> String {
    let line = format!("openssl x509 -noout {args}");
    let (content, text) = bench.run("bash", &["-c", &line], "");
    assert!(content, "{line}: {text}");
    let text = text.trim_end();
    text.split_once('=').map_or(text, |(_, value)| value).to_owned()
}

fn key_id(bench: &Bench, file: &str) -> String {
    let (_, text) =
        bench.run("openssl", &["x509", "-noout", "-ext", "subjectKeyIdentifier", "-in", file], "");
    text.lines().last().expect("a line").trim().replace(':', "")
}

/// A certificate as base64, between the colons of RFC 9440.
fn encoded(bench: &Bench, file: &str) -> String {
    let line = format!("openssl x509 -in {file} -outform DER | base64 -w0");
    format!(":{}:", bench.run("bash", &["-c", &line], "").1.trim())
}

fn der(bench: &Bench, file: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(bench.folder.path().join(file)).expect("made");
    pem::parse(text).expect("PEM").into_contents()
}

/// Each field with its value; those that are none of a header come last.
fn expected(bench: &Bench) -> Vec<(&'static str, String)> {
    let fingerprint = |hash: &str| {
        openssl(bench, &format!("-fingerprint -{hash} -in device.pem")).replace(':', "").to_lowercase()
    };
    let name = |which: &str, form: &str| openssl(bench, &format!("-{which} -nameopt {form} -in device.pem"));
    vec![
        ("cert_presented", "true".to_owned()),
        ("cert_verified", "true".to_owned()),
        ("cert_revoked", "false".to_owned()),
        ("cert_issuer_dn", name("issuer", "RFC2253")),
        ("cert_subject_dn", name("subject", "RFC2253")),
        ("cert_issuer_dn_rfc2253", name("issuer", "RFC2253")),
        ("cert_subject_dn_rfc2253", name("subject", "RFC2253")),
        ("cert_issuer_dn_legacy", name("issuer", "compat")),
        ("cert_subject_dn_legacy", name("subject", "compat")),
        ("cert_serial", openssl(bench, "-serial -in device.pem")),
        ("cert_issuer_serial", openssl(bench, "-serial -in issuing.pem")),
        ("cert_fingerprint_sha256", fingerprint("sha256")),
        ("cert_fingerprint_sha1", fingerprint("sha1")),
        ("cert_not_before", openssl(bench, "-startdate -in device.pem")),
        ("cert_not_after", openssl(bench, "-enddate -in device.pem")),
        ("cert_ski", key_id(bench, "device.pem")),
        ("cert_issuer_ski", key_id(bench, "issuing.pem")),
        ("cert_rfc9440", encoded(bench, "device.pem")),
        ("cert_chain_rfc9440", encoded(bench, "issuing.pem")),
        ("cert_rfc9440_too_large", "false".to_owned()),
        ("cert_chain_rfc9440_too_large", "false".to_owned()),
    ]
}

/// The header that tells a field; two have none.
fn header(field: &str) -> Option<String> {
    match field {
        "cert_rfc9440" => Some("client-cert".to_owned()),
        "cert_chain_rfc9440" => Some("client-cert-chain".to_owned()),
        field if field.ends_with("_too_large") => None,
        field => Some(format!("cf-{}", field.replace('_', "-"))),
    }
}

/// A condition that holds for the value alone.
fn is(field: &str, value: &str) -> String {
    let field = format!("cf.tls_client_auth.{field}");
    match value {
        "true" => field,
        "false" => format!("not {field}"),
        text => format!("{field} eq \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

impl Bench {
    /// Blocks what meets a condition.
    fn block(&self, expression: String) {
        let rules = vec![RuleWritten { expression, action: Action::Block }];
        let zones = vec![ZoneRules { zone: self.rig.snapshot.hosts[0].rule.zone, rules }];
        let gate = GateWritten { zones, ..GateWritten::default() };
        self.rig.tell(vec![Event::Account(AccountEntry { gate, ..account(ACCOUNT) })]);
    }

    fn visit(&self, args: &[&str]) -> String {
        self.curl("https://open.example.com/", args).1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_and_rules_are_told_what_openssl_prints() {
    let bench = Bench::start().await;
    let (content, text) = bench.run("bash", &["-c", FILES], "");
    assert!(content, "{text}");
    let now: i64 = text.lines().last().and_then(|line| line.parse().ok()).expect("the time");
    bench.rig.clock.store(now, std::sync::atomic::Ordering::Relaxed);
    let certificates = vec![ByteBuf::from(der(&bench, "root.pem"))];
    let id = CaId::from_bytes([77; 16]);
    let ca = CaEntry { id, account: ACCOUNT, certificates, is_default: true, vouches: true };
    bench.rig.tell(vec![Event::Ca(ca)]);
    let expected = expected(&bench);
    assert_eq!(expected.len(), 21);

    let told = bench.visit(&["--cert", "chain.pem"]);
    assert!(told.contains(" 200"), "{told}");
    for (field, value) in &expected {
        let Some(name) = header(field) else { continue };
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        assert_eq!(line.map(str::trim_end), Some(value.as_str()), "{name}");
    }
    assert!(!told.contains("too-large"), "{told}");
    for (field, value) in &expected {
        bench.block(is(field, value));
        assert!(bench.visit(&["--cert", "chain.pem"]).contains(" 403"), "{}", is(field, value));
        bench.block(format!("not ({})", is(field, value)));
        assert!(bench.visit(&["--cert", "chain.pem"]).contains(" 200"), "{}", is(field, value));
    }

    // Without one all text is empty, and nothing is true.
    let told = bench.visit(&[]);
    for (field, value) in &expected {
        let nothing = if ["true", "false"].contains(&value.as_str()) { "false" } else { "" };
        bench.block(is(field, nothing));
        assert!(bench.visit(&[]).contains(" 403"), "{}", is(field, nothing));
        let said = header(field).and_then(|name| {
            told.lines().find_map(|line| Some(line.strip_prefix(&format!("{name}: "))?.trim_end().to_owned()))
        });
        assert_eq!(
            said.unwrap_or_default(),
            if field.ends_with("_too_large") { "" } else { nothing },
            "{field}"
        );
    }
}
