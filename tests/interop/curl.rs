//! curl and openssl: the whole story by hand, as the README tells it.

use muster_tests::Server;
use muster_tests::local::Origin;

use crate::shell;

const CURL: &str = "curl -sS --fail-with-body --cacert ca.pem";

/// A server with its CA file and EST address at hand for shell lines.
fn server() -> (Server, String) {
    let server = Server::start();
    std::fs::copy(server.ca_file(), server.scratch().join("ca.pem")).expect("copied");
    let est = format!("https://localhost:{}/.well-known/est", server.est_address().port());
    (server, est)
}

fn make_request(server: &Server, device: &str) {
    shell(
        server,
        &format!(
            "openssl ecparam -name prime256v1 -genkey -noout -out {device}.key
             openssl req -new -key {device}.key -subj /CN={device} -outform DER | base64 > {device}.csr"
        ),
    );
}

/// The line that unwraps an enrolment answer.
const UNWRAP: &str = "base64 -d | openssl pkcs7 -inform DER -print_certs";

#[test]
fn enrolls_renews_and_follows_the_chain() {
    let (server, est) = server();
    make_request(&server, "meter-1");
    let token = server.token("meter-1");
    let post = "-H 'Content-Type: application/pkcs10' --data-binary @meter-1.csr";
    // Both ways to give a password: unasked, and after the 401.
    shell(
        &server,
        &format!("{CURL} --anyauth -u meter-1:{token} {post} {est}/simpleenroll | {UNWRAP} > first.pem"),
    );
    shell(&server, &format!("{CURL} -u meter-1:{token} {post} {est}/simpleenroll | {UNWRAP} > second.pem"));
    assert_eq!(shell(&server, "cmp first.pem second.pem && echo same").trim(), "same");
    shell(
        &server,
        &format!(
            "{CURL} --cert first.pem --key meter-1.key {post} {est}/simplereenroll | {UNWRAP} > renewed.pem"
        ),
    );
    shell(&server, &format!("{CURL} {est}/cacerts | {UNWRAP} > chain.pem"));
    let verify = "openssl verify -x509_strict -purpose sslclient -CAfile ca.pem -untrusted chain.pem";
    for leaf in ["first.pem", "renewed.pem"] {
        assert!(shell(&server, &format!("{verify} {leaf}")).contains("OK"));
    }
    let attributes =
        shell(&server, &format!("{CURL} {est}/csrattrs | base64 -d | openssl asn1parse -inform DER"));
    assert!(attributes.contains("id-ecPublicKey") && attributes.contains("prime256v1"), "{attributes}");
}

#[test]
fn a_change_of_root_is_followed_by_who_trusts_either_root_alone() {
    let (server, est) = server();
    make_request(&server, "meter-1");
    let token = server.token("meter-1");
    let post = "-H 'Content-Type: application/pkcs10' --data-binary @meter-1.csr";
    shell(&server, &format!("{CURL} -u meter-1:{token} {post} {est}/simpleenroll | {UNWRAP} > before.pem"));
    server.muster(&["ca", "create"]);
    std::fs::write(server.scratch().join("roots.pem"), server.muster(&["ca", "export"])).expect("written");
    shell(&server, "openssl x509 -in roots.pem -out new.pem && ! cmp -s new.pem ca.pem");
    let renew = format!("--cert before.pem --key meter-1.key {post} {est}/simplereenroll");
    for (root, version) in [("ca.pem", "1.2"), ("ca.pem", "1.3"), ("new.pem", "1.2"), ("new.pem", "1.3")] {
        let curl = format!("curl -sS --fail-with-body --cacert {root} --tls-max {version}");
        shell(
            &server,
            &format!("{curl} {renew} | {UNWRAP} > after.pem && {curl} {est}/cacerts | {UNWRAP} > chain.pem"),
        );
        // openssl goes no further from a root that it meets among untrusted certificates: those are left out.
        shell(
            &server,
            "rm -f each.*; csplit -sz -f each. chain.pem '/^subject/' '{*}'
             for file in each.*; do
                 names=$(openssl x509 -in $file -noout -subject -issuer | sed 's/^[a-z]*=//' | sort -u | wc -l)
                 [ $names = 2 ] || rm $file
             done
             cat each.* > chain.pem",
        );
        let verify = "openssl verify -x509_strict -purpose sslclient -untrusted chain.pem";
        for leaf in ["before.pem", "after.pem"] {
            assert!(
                shell(&server, &format!("{verify} -CAfile {root} {leaf}")).contains("OK"),
                "{root} {leaf}"
            );
        }
    }
}

#[test]
fn a_bearer_token_and_a_key_made_here() {
    let (server, est) = server();
    make_request(&server, "meter-2");
    let token = server.token("meter-2");
    let post = "-H 'Content-Type: application/pkcs10' --data-binary @meter-2.csr";
    shell(
        &server,
        &format!("{CURL} -H 'Authorization: Bearer {token}' {post} {est}/serverkeygen -D head -o body"),
    );
    shell(
        &server,
        "(cat head; cat body) | sed 1d | python3 -c '
import email, sys
message = email.message_from_binary_file(sys.stdin.buffer)
key, certificate = message.get_payload()
assert key.get_content_type() == \"application/pkcs8\", key.get_content_type()
open(\"made.key\", \"wb\").write(key.get_payload(decode=True))
open(\"made.p7\", \"wb\").write(certificate.get_payload(decode=True))'
        openssl pkcs7 -inform DER -in made.p7 -print_certs -out made.pem
        openssl pkey -inform DER -in made.key -pubout -out key.pub
        openssl x509 -in made.pem -noout -pubkey > certificate.pub
        cmp key.pub certificate.pub",
    );
}

#[test]
fn a_revoked_certificate_is_in_the_list_and_refused_at_once() {
    let (server, est) = server();
    make_request(&server, "meter-3");
    let token = server.token("meter-3");
    let post = "-H 'Content-Type: application/pkcs10' --data-binary @meter-3.csr";
    shell(&server, &format!("{CURL} -u meter-3:{token} {post} {est}/simpleenroll | {UNWRAP} > leaf.pem"));
    server.muster(&["cert", "revoke", "--device", "meter-3", "--reason", "keyCompromise"]);
    std::fs::write(server.scratch().join("list.pem"), server.muster(&["ca", "crl"])).expect("written");
    shell(&server, &format!("{CURL} {est}/cacerts | {UNWRAP} > chain.pem"));
    let list = shell(&server, "openssl crl -in list.pem -CAfile chain.pem -noout -text 2>&1");
    assert!(list.contains("verify OK") && list.contains("Key Compromise"), "{list}");
    let check = "openssl verify -crl_check -CAfile ca.pem -untrusted chain.pem -CRLfile list.pem leaf.pem 2>&1 || true";
    assert!(shell(&server, check).contains("certificate revoked"));
    let refused = shell(
        &server,
        &format!(
            "curl -sS --cacert ca.pem --cert leaf.pem --key meter-3.key {post} {est}/simplereenroll -w '%{{http_code}}'"
        ),
    );
    assert!(refused.ends_with("403") && refused.contains("certificate_revoked"), "{refused}");
}

/// A client that is told to speak HTTP/1.0 says so in the handshake, too.
#[test]
fn http_1_0_is_spoken_at_every_door() {
    let (server, est) = server();
    make_request(&server, "meter-4");
    let token = server.token("meter-4");
    let curl = format!("{CURL} --http1.0");
    let post = "-H 'Content-Type: application/pkcs10' --data-binary @meter-4.csr";
    shell(&server, &format!("{curl} -u meter-4:{token} {post} {est}/simpleenroll | {UNWRAP} > leaf.pem"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let origin = runtime.block_on(Origin::start());
    let address = format!("http://{}", origin.address);
    server.muster(&["host", "set", "api.example.test", "--origin", &address]);
    let port = server.https_address().port();
    let came = shell(
        &server,
        &format!(
            "{curl} --cert leaf.pem --key meter-4.key --resolve api.example.test:{port}:127.0.0.1 \
                 -d hello https://api.example.test:{port}/ -w ' %{{http_code}} %{{http_version}}'"
        ),
    );
    // Which is how curl says 1.0.
    assert_eq!(came, "hello 200 1");
}
