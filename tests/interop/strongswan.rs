//! strongSwan 5.9 `pki --est` and `--estca`: TLS 1.2, one line of base64, one record.

use std::time::{Duration, Instant};

use muster_tests::Server;

use crate::{run, shell, text};

#[test]
fn enrolls_and_renews() {
    let server = Server::start();
    let url = format!("https://localhost:{}", server.est_address().port());
    let ca = text(&server.ca_file());
    shell(&server, "pki --gen --type ecdsa --size 256 > key.der");
    shell(&server, "pki --req --type ecdsa --in key.der --dn CN=meter-1 > request.der");
    let caout = "ca";
    run(&server, "pki", &["--estca", "--url", &url, "--cacert", &ca, "--caout", caout, "--force"]);
    let found = shell(&server, "ls ca*");
    assert!(found.lines().count() >= 2, "root and issuing CA: {found}");
    let token = server.token("meter-1");
    shell(
        &server,
        &format!(
            "pki --est --url {url} --in request.der --cacert {ca} $(for file in ca*; do echo --cacert $file; done) \
             --userpass meter-1:{token} > first.der"
        ),
    );
    let subject = shell(&server, "openssl x509 -inform DER -in first.der -noout -subject");
    assert!(subject.contains("CN = meter-1"), "{subject}");
    shell(
        &server,
        &format!(
            "pki --est --url {url} --in request.der --cacert {ca} $(for file in ca*; do echo --cacert $file; done) \
             --cert first.der --key key.der > renewed.der"
        ),
    );
    let serials = shell(
        &server,
        "for file in first.der renewed.der; do openssl x509 -inform DER -in $file -noout -serial; done | sort -u | wc -l",
    );
    assert_eq!(serials.trim(), "2");
}

#[test]
fn renews_through_a_change_of_root() {
    let server = Server::start();
    let url = format!("https://localhost:{}", server.est_address().port());
    std::fs::copy(server.ca_file(), server.scratch().join("old.pem")).expect("copied");
    shell(&server, "pki --gen --type ecdsa --size 256 > key.der");
    shell(&server, "pki --req --type ecdsa --in key.der --dn CN=meter-1 > request.der");
    let token = server.token("meter-1");
    let estca = format!("pki --estca --url {url} --cacert old.pem --caout ca --force");
    let est = format!(
        "pki --est --url {url} --in request.der --cacert old.pem $(for file in ca*; do echo --cacert $file; done)"
    );
    shell(&server, &format!("{estca} && {est} --userpass meter-1:{token} > first.der"));
    server.muster(&["ca", "create"]);
    shell(&server, &format!("rm ca*; {estca} && {est} --cert first.der --key key.der > renewed.der"));
    let issuers = "for file in first.der renewed.der; do openssl x509 -inform DER -in $file -noout -issuer; done | sort -u | wc -l";
    assert_eq!(shell(&server, issuers).trim(), "2");
}

/// A request that waits: strongSwan repeats it by itself until a person has agreed.
#[test]
fn polls_until_a_person_agrees() {
    let server = Server::with_config("[est]\napproval_retry_s = 1\n");
    // It can't ask for a label, so the profile of plain paths is the one that waits.
    server.muster(&["profile", "set", "default", "approval=manual"]);
    let url = format!("https://localhost:{}", server.est_address().port());
    let ca = text(&server.ca_file());
    shell(&server, "pki --gen --type ecdsa --size 256 > key.der");
    shell(&server, "pki --req --type ecdsa --in key.der --dn CN=meter-2 > request.der");
    run(&server, "pki", &["--estca", "--url", &url, "--cacert", &ca, "--caout", "ca", "--force"]);
    let token = server.token("meter-2");
    let enroll = format!(
        "pki --est --url {url} --in request.der --cacert {ca} $(for file in ca*; do echo --cacert $file; done) \
         --userpass meter-2:{token} --interval 1 --maxpolltime 60 > first.der"
    );
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| shell(&server, &enroll));
        let deadline = Instant::now() + Duration::from_secs(30);
        let waiting = loop {
            let listed = server.muster_json(&["approval", "list"]);
            if let Some(id) = listed[0]["id"].as_str() {
                break id.to_owned();
            }
            assert!(Instant::now() < deadline, "nothing waits");
        };
        server.muster(&["approval", "approve", &waiting]);
        polling.join().expect("it has its certificate");
    });
    let subject = shell(&server, "openssl x509 -inform DER -in first.der -noout -subject");
    assert!(subject.contains("CN = meter-2"), "{subject}");
}
