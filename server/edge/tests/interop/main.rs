//! Strangers' clients at the door: the attacks that openssl and curl can perform.
//!
//! A tool that is missing fails its test; nothing is skipped. Both are in Debian.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a step that fails is a failed test, in a helper as in the test itself"
)]

#[path = "../rig/mod.rs"]
mod rig;

mod curl;
mod fields;
mod openssl;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use muster_policy::host::{HostMode, MinTls, Protocol};
use rig::{Pair, Rig, host};
use tempfile::TempDir;

/// A rig with two hostnames that speak TLS 1.2 too, and files for strangers' tools.
pub(crate) struct Bench {
    pub(crate) rig: Rig,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let rig = Rig::start().await;
        for name in ["old.example.com", "older.example.com"] {
            let mut entry = host(&rig.server_ca, name, HostMode::Require, Protocol::Https, rig.origin);
            entry.rule.min_tls = MinTls::Tls12;
            rig.tell(vec![muster_edge::Event::Host(Box::new(entry))]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "ca.pem", &[("CERTIFICATE", &rig.server_ca.der)]);
        Self { rig, folder }
    }

    /// Writes a certificate and its key as `NAME.pem`.
    pub(crate) fn pair(&self, name: &str, pair: &Pair) {
        let mut blocks: Vec<(&str, &[u8])> =
            pair.chain.iter().map(|der| ("CERTIFICATE", der.as_ref())).collect();
        blocks.push(("PRIVATE KEY", &pair.key));
        write(self.folder.path(), &format!("{name}.pem"), &blocks);
    }

    /// Runs a stranger's tool in the folder; all it printed, and whether it was content.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: &str) -> (bool, String) {
        let mut child = Command::new("timeout")
            .args(["20", program])
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("timeout and the tool are installed");
        let mut stdin = child.stdin.take().expect("piped");
        // A tool that was refused reads no input.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

fn write(folder: &Path, name: &str, blocks: &[(&str, &[u8])]) {
    let text: String = blocks.iter().map(|(tag, der)| pem::encode(&pem::Pem::new(*tag, *der))).collect();
    std::fs::write(folder.join(name), text).expect("written");
}
