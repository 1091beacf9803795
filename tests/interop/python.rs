//! Python clients: the channel binding of RFC 9266 by pyOpenSSL, and acme2certifier's EST handler.

use muster_tests::Server;

use crate::{run, text};

#[expect(clippy::disallowed_methods, reason = "the test command says which interpreter has the packages")]
pub(crate) fn python() -> String {
    std::env::var("MUSTER_TEST_PYTHON").expect("MUSTER_TEST_PYTHON names an interpreter (see tests/check.sh)")
}

/// Enrolls over TLS 1.3 with challengePassword = base64(tls-exporter) of the same connection.
const CHANNEL_BINDING: &str = r#"
import base64, socket, sys
from OpenSSL import SSL, crypto
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, NameOID
port, ca_file, token, honest = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "honest"
context = SSL.Context(SSL.TLS_CLIENT_METHOD)
context.load_verify_locations(ca_file)
context.set_verify(SSL.VERIFY_PEER)
connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", port)))
connection.set_tlsext_host_name(b"localhost")
connection.set_connect_state()
connection.do_handshake()
assert connection.get_protocol_version_name() == "TLSv1.3"
exporter = connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
if not honest:
    exporter = bytes(32)
key = ec.generate_private_key(ec.SECP256R1())
request = (x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meter-1")]))
    .add_attribute(AttributeOID.CHALLENGE_PASSWORD, base64.b64encode(exporter))
    .sign(key, hashes.SHA256()))
body = base64.b64encode(request.public_bytes(serialization.Encoding.DER))
basic = base64.b64encode(b"meter-1:" + token.encode()).decode()
connection.sendall((f"POST /.well-known/est/bound/simpleenroll HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {basic}\r\n"
    f"Content-Type: application/pkcs10\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body)
answer = b""
try:
    while True:
        answer += connection.recv(65536)
except (SSL.ZeroReturnError, SSL.SysCallError):
    pass
print(answer.split(b"\r\n")[0].decode(), [line for line in answer.decode().split("\r\n") if line.startswith("Muster-Reason")])
"#;

#[test]
fn the_tls_exporter_binds_a_request_to_its_connection() {
    let server = Server::start();
    server.muster(&["profile", "set", "bound", "channel_binding=required"]);
    let port = server.est_address().port().to_string();
    let ca = text(&server.ca_file());
    let token = server.token("meter-1");
    let forged = run(&server, &python(), &["-c", CHANNEL_BINDING, &port, &ca, &token, "forged"]);
    assert!(forged.contains("400") && forged.contains("channel_binding_mismatch"), "{forged}");
    let honest = run(&server, &python(), &["-c", CHANNEL_BINDING, &port, &ca, &token, "honest"]);
    assert!(honest.contains("200"), "{honest}");
}

/// acme2certifier as a registration authority: it fetches cacerts with Basic, then enrolls.
const ACME2CERTIFIER: &str = r#"
import base64, logging, sys
url, ca_file, token = sys.argv[1:4]
import importlib.util, pathlib, site
found = [path for folder in site.getsitepackages() + [sys.prefix]
         for path in pathlib.Path(folder).rglob("est_ca_handler.py")]
assert found, "acme2certifier's EST handler is not there"
spec = importlib.util.spec_from_file_location("est_ca_handler", found[0])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.CAhandler(False, logging.getLogger("test"))
handler.est_host = url + "/.well-known/est"
handler.est_user, handler.est_password = "meter-7", token
handler.ca_bundle = ca_file
import requests
handler.session = requests.Session()
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
request = (x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meter-7")]))
    .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()))
csr = base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()
error, bundle, raw, _ = handler.enroll(csr)
assert not error, error
certificates = x509.load_pem_x509_certificates(bundle.encode())
print(certificates[0].subject.rfc4514_string(), len(certificates))
"#;

#[test]
fn acme2certifier_enrolls_as_a_registration_authority() {
    let server = Server::start();
    let url = format!("https://localhost:{}", server.est_address().port());
    let token = server.token("meter-7");
    let told = run(&server, &python(), &["-c", ACME2CERTIFIER, &url, &text(&server.ca_file()), &token]);
    assert!(told.contains("CN=meter-7"), "{told}");
}
