//! Bouncy Castle's EST client, which asks without credentials first, and whose body follows its head by a while.

use muster_tests::Server;

use crate::{run, text};

/// Where Debian has it.
const JARS: &str = "/usr/share/java/bcprov.jar:/usr/share/java/bcutil.jar:/usr/share/java/bcpkix.jar";

#[test]
fn bouncy_castle_enrolls_renews_and_has_a_key_made() {
    let server = Server::start();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/bouncy_castle/Enroll.java");
    let address = format!("localhost:{}", server.est_address().port());
    let (ca, token) = (text(&server.ca_file()), server.token("meter-1"));
    let said = run(&server, "java", &["-cp", JARS, program, &address, &ca, "meter-1", &token]);
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(
        said,
        [
            "found 2 CA certificates",
            "attributes true",
            "enrolled CN=meter-1",
            "renewed on TLSv1.2 true",
            "renewed on TLSv1.3 true",
            "key made 1.2.840.10045.2.1",
            "refused 401",
        ]
    );
}
