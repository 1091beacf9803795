//! Strangers' clients against our server, and our agent against a stranger's server. A tool that is missing
//! fails its test; nothing is skipped.
//!
//! `tests/check.sh` installs them: openssl, curl, strongSwan, mosquitto, nginx, nats-server, Node and mqtt.js, a JDK and Bouncy Castle from Debian;
//! `cryptography`, `pyOpenSSL`, `paho-mqtt`, schemathesis, `standardwebhooks` and acme2certifier's EST handler from PyPI, in the interpreter that
//! `MUSTER_TEST_PYTHON` names; the Cloudflare clients from npm, in the folder that
//! `MUSTER_TEST_NODE_FOLDER` names; the crate est-ca is built when its test runs.

mod agent;
mod carry;
mod cloudflare;
mod curl;
mod edges;
mod elsewhere;
mod java;
mod mqtt_clients;
mod mqtt_edge;
mod mqtt_upstream;
mod openapi;
mod origin;
mod python;
mod strongswan;

use std::path::Path;
use std::process::{Command, Output};

use muster_tests::Server;

/// Runs a stranger's program in the server's scratch folder.
fn try_run(server: &Server, program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .current_dir(server.scratch())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"))
}

/// Runs a stranger's program that must succeed; what it printed.
fn run(server: &Server, program: &str, args: &[&str]) -> String {
    let output = try_run(server, program, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}{errors}");
    text
}

/// Runs a stranger's program that needs no folder and must succeed; what it printed.
fn command(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs a shell line, for pipes.
fn shell(server: &Server, line: &str) -> String {
    run(server, "bash", &["-o", "pipefail", "-ec", line])
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
