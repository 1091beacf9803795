//! strongSwan 5.9 `pki --est` and `--estca`: TLS 1.2, one line of base64, one record.

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
