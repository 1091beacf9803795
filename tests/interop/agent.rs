//! Our agent against a stranger's EST server: the one of the crate est-ca, in `est_ca/`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use muster_tests::Agent;
use muster_tests::agent::program;

use crate::text;

const SECRET: &str = "correct horse battery staple";

/// A running est-ca with a free port; it ends when it is dropped.
struct EstCa {
    child: Child,
    folder: tempfile::TempDir,
    port: String,
}

impl EstCa {
    fn start(device: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(built());
        command.arg(folder.path().join("trust.pem")).args([device, SECRET]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("est-ca runs");
        let mut port = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut port).expect("a port");
        Self { child, folder, port: port.trim().to_owned() }
    }

    fn trust_file(&self) -> PathBuf {
        self.folder.path().join("trust.pem")
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for EstCa {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds est-ca in a target folder of its own, beside that of this test.
fn built() -> PathBuf {
    let target = program().ancestors().nth(2).expect("a target folder").join("est-ca");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/est_ca/Cargo.toml");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--manifest-path", &text(&manifest)]);
    assert!(build.env("CARGO_TARGET_DIR", &target).status().expect("cargo runs").success(), "est-ca builds");
    target.join("debug/est-ca-server")
}

#[test]
fn our_agent_enrolls_and_renews_at_the_est_server_of_est_ca() {
    let server = EstCa::start("meter-1");
    let (url, trust) = (server.url(), text(&server.trust_file()));
    let agent = Agent::new();
    let enroll = |secret: &str| {
        let arguments = ["enroll", "--server", &url, "--ca", &trust, "--device", "meter-1", "--token"];
        agent.command(&[arguments.as_slice(), &[secret, "--timeout", "20s"]].concat())
    };
    let refused = enroll("wrong");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the secret is not the device's"));
    let enrolled = enroll(SECRET);
    assert!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    let first = agent.status();
    assert_eq!(
        (&first["identity"]["device"], &first["identity"]["issuer"]),
        (&"meter-1".into(), &"est-ca.test".into())
    );
    // By nothing but its certificate, twice: the second time by one that was itself a renewal.
    for generation in 1..=2 {
        let renewed = agent.command(&["renew"]);
        assert!(renewed.status.success(), "{}", String::from_utf8_lossy(&renewed.stderr));
        let status = agent.status();
        assert_eq!(status["generation"], generation);
        assert_ne!(status["identity"]["serial"], first["identity"]["serial"]);
    }
}
