//! The admin API's own promises by strangers: schemathesis against its OpenAPI document, and a receiver of
//! webhooks that verifies them with the library of Standard Webhooks.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use muster_tests::Server;
use serde_json::{Value, json};

use crate::python::python;
use crate::try_run;

/// How long schemathesis tries what it can think of, in seconds.
const MAX_SECONDS: &str = "45";
/// Streams and downloads are no JSON; a token or zone that removes itself ends the run.
const LEFT_OUT: &str = r"/(events|backup|admin_tokens/\{id\})$|/zones/\{zone_id\}$";
/// What must hold for every answer.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// One request, verified.
const RECEIVER: &str = r#"
import http.server, sys
from standardwebhooks.webhooks import Webhook
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        secret = open(sys.argv[1]).read().strip()
        try:
            Webhook(secret).verify(body, {name.lower(): value for name, value in self.headers.items()})
            try:
                Webhook(secret).verify(body + b" ", {name.lower(): value for name, value in self.headers.items()})
                said = "anything"
            except Exception:
                said = "good"
        except Exception as error:
            said = repr(error)
        self.send_response(204)
        self.end_headers()
        print(said, flush=True)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.handle_request()
"#;

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let (status, answer) = server.api("POST", path, &[], &body.to_string());
    assert_eq!(status, 200, "{path}: {answer}");
    answer["result"].clone()
}

#[test]
fn schemathesis_finds_no_fault_and_no_answer_that_is_not_as_described() {
    let server = Server::start();
    let (account, token) = server.account_and_token();
    let zone = server.muster_json(&["zone", "list"])[0]["id"].as_str().expect("an id").to_owned();
    // So that lists have something in them.
    post(
        &server,
        "/devices/import",
        &json!([{ "id": "meter-1", "labels": { "floor": "2" }, "groups": ["a"] }]),
    );
    post(&server, "/tokens", &json!({ "claim": true }));
    post(&server, "/webhooks", &json!({ "name": "x", "url": "https://127.0.0.1:9/" }));
    server.muster(&["host", "set", "api.example.test", "--origin", "http://127.0.0.1:9"]);
    let (_, der) = muster_tests::request::request("meter-2");
    server.est().enroll("meter-2", &server.token("meter-2"), &der).certificate();
    let settings =
        format!("[parameters]\n\"path.account_id\" = \"{account}\"\n\"path.zone_id\" = \"{zone}\"\n");
    std::fs::write(server.scratch().join("schemathesis.toml"), settings).expect("written");
    let program = Path::new(&python()).with_file_name("schemathesis");
    let (url, header) = (server.api_url(), format!("Authorization: Bearer {token}"));
    let document = format!("{url}/openapi.json");
    let output = try_run(
        &server,
        program.to_str().expect("text"),
        &[
            "--config-file",
            "schemathesis.toml",
            "run",
            &document,
            "--url",
            &url,
            "--header",
            &header,
            "--phases",
            "coverage,fuzzing",
            "--checks",
            CHECKS,
            "--exclude-path-regex",
            LEFT_OUT,
            "--max-examples",
            "4",
            "--max-time",
            MAX_SECONDS,
            "--workers",
            "1",
            "--seed",
            "1",
            "--continue-on-failure",
            "--warnings",
            "off",
            "--no-color",
        ],
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("generated,") && !said.contains(" 0 generated"), "it tried nothing: {said}");
    // What it did left the server well.
    let (status, answer) = server.api("GET", "/audit/verify", &[], "");
    assert_eq!((status, &answer["result"]["sound"]), (200, &json!(true)), "{answer}");
}

#[test]
fn a_receiver_verifies_a_delivery_with_the_library_of_standard_webhooks() {
    let server = Server::with_config("[webhooks]\nloopback_http = true\n");
    let secret = server.scratch().join("secret");
    let mut receiver = Command::new(python())
        .args(["-c", RECEIVER, secret.to_str().expect("text")])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut said = BufReader::new(receiver.stdout.take().expect("piped"));
    let mut port = String::new();
    said.read_line(&mut port).expect("a port");
    let url = format!("http://127.0.0.1:{}/hook", port.trim());
    let wanted = json!({ "name": "ops", "url": url, "events": ["zone-added"] });
    let webhook = post(&server, "/webhooks", &wanted);
    std::fs::write(&secret, webhook["secret"].as_str().expect("shown once")).expect("written");
    let path = format!("/webhooks/{}/test", webhook["id"].as_str().expect("an id"));
    let done = post(&server, &path, &json!({}));
    assert_eq!((&done["delivered"], &done["status"]), (&json!(true), &json!(204)));
    let mut verdict = String::new();
    said.read_to_string(&mut verdict).expect("text");
    receiver.wait().expect("it ends");
    assert_eq!(verdict.trim(), "good");
}
