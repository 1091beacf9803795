//! The official Cloudflare clients: nothing is changed but the base URL and the token.
//!
//! `MUSTER_TEST_NODE_FOLDER` names a folder in which npm installed `tests/interop/cloudflare/package.json`.

use std::path::PathBuf;
use std::process::{Command, Output};

use muster_tests::Server;
use serde_json::Value;

use crate::python::python;
use crate::shell;

/// What the clients need to know, and nothing else.
struct Base {
    server: Server,
    url: String,
    token: String,
    account: String,
}

impl Base {
    fn new() -> Self {
        let server = Server::start();
        let (account, token) = server.account_and_token();
        let url = server.api_url();
        // Two files that the scripts upload.
        shell(
            &server,
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj '/CN=Own CA' -days 100
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.pem -subj /CN=leaf -days 100 -addext basicConstraints=critical,CA:FALSE
             openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout csr.key -out csr.pem -subj /CN=ts-1",
        );
        Self { server, url, token, account }
    }

    /// Runs a script with base URL, token, account and folder; it must say that everything passed.
    fn run_script(&self, program: &str, script: &str) {
        let folder = self.server.scratch().display().to_string();
        let output = Command::new(program)
            .args([script, &self.url, &self.token, &self.account, &folder])
            .output()
            .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        assert!(said(&output).ends_with("everything passed\n"), "{}", said(&output));
    }

    /// Runs wrangler, which asks nobody but our server.
    fn wrangler(&self, args: &[&str], account: Option<&str>) -> Output {
        let scratch = self.server.scratch();
        let mut command = Command::new("node");
        command
            .arg(node_folder().join("node_modules/wrangler/bin/wrangler.js"))
            .args(args)
            .current_dir(scratch)
            .env("CLOUDFLARE_API_BASE_URL", &self.url)
            .env("CLOUDFLARE_API_TOKEN", &self.token)
            .env("WRANGLER_SEND_METRICS", "false")
            .env("WRANGLER_SEND_ERROR_REPORTS", "false")
            .env("WRANGLER_HIDE_BANNER", "true")
            .env("WRANGLER_LOG_PATH", scratch.join("logs"))
            .env("CI", "1")
            .env("HOME", scratch)
            .env("XDG_CONFIG_HOME", scratch);
        if let Some(account) = account {
            command.env("CLOUDFLARE_ACCOUNT_ID", account);
        }
        command.output().expect("node runs")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

fn node_folder() -> PathBuf {
    let folder = std::env::var_os("MUSTER_TEST_NODE_FOLDER");
    folder.expect("MUSTER_TEST_NODE_FOLDER names the folder of the clients (see tests/check.sh)").into()
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("interop/cloudflare").join(name)
}

#[test]
fn the_python_sdk_finds_everything_where_it_looks() {
    Base::new().run_script(&python(), &script("everything.py").display().to_string());
}

#[test]
fn the_typescript_sdk_finds_everything_where_it_looks() {
    // A module finds its packages next to itself.
    let beside = node_folder().join("everything.mjs");
    std::fs::copy(script("everything.mjs"), &beside).expect("a copy");
    Base::new().run_script("node", &beside.display().to_string());
}

#[test]
fn wrangler_manages_certificates() {
    let base = Base::new();
    let passes = |args: &[&str], account: Option<&str>, says: &str| {
        let output = base.wrangler(args, account);
        let said = said(&output);
        assert!(output.status.success() && said.contains(says), "{args:?}: {said}");
        said
    };
    passes(&["whoami"], None, &base.account);
    // Without an account of its own it asks for the memberships.
    let leaf = ["mtls-certificate", "upload", "--cert", "leaf.pem", "--key", "leaf.key", "--name", "leaf"];
    passes(&leaf, None, "Success! Uploaded mTLS Certificate leaf");
    let account = Some(base.account.as_str());
    let ca = ["cert", "upload", "certificate-authority", "--ca-cert", "ca.pem", "--name", "ca"];
    passes(&ca, account, "Issuer: CN=Own CA");
    let leaves = passes(&["mtls-certificate", "list"], account, "Name: leaf");
    assert!(!leaves.contains("Own CA"), "{leaves}");
    passes(&["cert", "list"], account, "CA: true");
    let again =
        ["cert", "upload", "mtls-certificate", "--cert", "leaf.pem", "--key", "leaf.key", "--name", "leaf"];
    let twice = base.wrangler(&again, account);
    assert!(!twice.status.success() && said(&twice).contains("[code: 1471]"), "{}", said(&twice));
    passes(&["mtls-certificate", "delete", "--name", "leaf"], account, "successfully");
    passes(&again, account, "Success! Uploaded mTLS Certificate leaf");
    let listed = passes(&["mtls-certificate", "list"], account, "Name: leaf");
    let id = listed.lines().find_map(|line| line.trim().strip_prefix("ID: ")).expect("an id").trim();
    passes(&["mtls-certificate", "delete", "--id", id], account, "successfully");
    let gone = base.wrangler(&["cert", "delete", "--id", id], account);
    assert!(!gone.status.success() && said(&gone).contains("[code: 1472]"), "{}", said(&gone));
    // The wrong way round, and both in one file, are told in words.
    let swapped = ["mtls-certificate", "upload", "--cert", "leaf.key", "--key", "leaf.key", "--name", "x"];
    let swapped = base.wrangler(&swapped, account);
    assert!(said(&swapped).contains("Unable to parse certificate") && said(&swapped).contains("PRIVATE KEY"));
    passes(&["cert", "delete", "--name", "ca"], account, "successfully");
    let none = passes(&["cert", "list"], account, "");
    assert!(!none.contains("ID:"), "{none}");
    let missing = base.wrangler(&["cert", "delete", "--name", "ca"], account);
    assert!(
        !missing.status.success() && said(&missing).contains("certificate not found"),
        "{}",
        said(&missing)
    );
}

#[test]
fn what_the_api_revokes_the_edge_refuses_at_once() {
    let base = Base::new();
    let api = |method: &str, path: &str, body: Value| -> Value {
        let line = format!(
            "curl -sS -X {method} -H 'Authorization: Bearer {}' -H 'Content-Type: text/plain;charset=UTF-8' \
             --data-binary @- '{}{path}'",
            base.token, base.url
        );
        std::fs::write(base.server.scratch().join("body.json"), body.to_string()).expect("a body");
        let answer = shell(&base.server, &format!("{line} < body.json"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["success"], true, "{answer}");
        answer["result"].clone()
    };
    let zones = api("GET", "/zones?name=example.test", Value::Null);
    let zone = zones[0]["id"].as_str().expect("an id").to_owned();
    let csr = std::fs::read_to_string(base.server.scratch().join("csr.pem")).expect("a request");
    let certificates = format!("/zones/{zone}/client_certificates");
    let made = api("POST", &certificates, serde_json::json!({ "csr": csr, "validity_days": 30 }));
    let pem = made["certificate"].as_str().expect("PEM");
    std::fs::write(base.server.scratch().join("device.pem"), pem).expect("a file");
    let associations = format!("/zones/{zone}/certificate_authorities/hostname_associations");
    api("PUT", &associations, serde_json::json!({ "hostnames": ["api.example.test"] }));
    let port = base.server.https_address().port();
    let ca = base.server.ca_file().display().to_string();
    // Nothing is behind the hostname, so who is let in is told 502; who is not, sees the handshake fail.
    let visit = || {
        let line = format!(
            "curl -sS -o /dev/null -w '%{{http_code}}' --cacert {ca} --cert device.pem --key csr.key \
             --resolve api.example.test:{port}:127.0.0.1 https://api.example.test:{port}/ || echo refused"
        );
        shell(&base.server, &line)
    };
    assert!(visit().starts_with("502"), "{}", visit());
    let one = format!("{certificates}/{}", made["id"].as_str().expect("an id"));
    assert_eq!(api("DELETE", &one, Value::Null)["status"], "pending_revocation");
    let refused = visit();
    assert!(refused.contains("refused") || refused.starts_with("403"), "{refused}");
    assert_eq!(
        api("PATCH", &one, serde_json::json!({ "reactivate": true }))["status"],
        "pending_reactivation"
    );
    assert!(visit().starts_with("502"), "{}", visit());
    api("PUT", &associations, serde_json::json!({ "hostnames": [] }));
    assert!(visit().contains("refused"), "the hostname is gone");
}
