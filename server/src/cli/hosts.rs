//! The commands on hostnames.

use std::path::Path;

use http::Method;
use serde_json::{Map, Value, json};

use super::args::{HostCommand, HostSetArgs};
use super::client::Client;
use super::manage::{read_text, segment};
use super::print::{Column, Printer, cell};

const HOSTS: &[Column] = &[
    ("HOST", "/host"),
    ("MODE", "/mode"),
    ("PROTOCOLS", "/protocols"),
    ("MIN TLS", "/min_tls"),
    ("ORIGINS", "/origins"),
    ("CAS", "/cas"),
];
/// What stands for the account's devices CAs on the command line.
const DEVICES: &str = "devices";
/// What stands for the CAs that the machine trusts on the command line.
const MACHINE: &str = "machine";

pub(super) async fn host(client: &Client, command: HostCommand, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let hosts = client.own("/hosts");
    match command {
        HostCommand::Set(args) => {
            let path = format!("{hosts}/{}", segment(&args.host));
            let set = client.call(Method::PUT, &path, Some(&wish(*args)?)).await?;
            out.done(&set, &format!("Set {}: mode {}", cell(set.get("host")), cell(set.get("mode"))))
        }
        HostCommand::List(page) => out.list(&client.list(&hosts, "", page).await?, HOSTS),
        HostCommand::Rm { host } => {
            let removed = client.call(Method::DELETE, &format!("{hosts}/{}", segment(&host)), None).await?;
            out.done(&removed, &format!("Removed {}", cell(removed.get("host"))))
        }
    }
}

/// What is given; the rest stays as it is.
fn wish(args: HostSetArgs) -> anyhow::Result<Value> {
    let mut wish = Map::new();
    let identify = args.origin_client_cert.map(|word| Value::from(word == "yes"));
    wish.extend(identify.map(|value| ("origin_client_cert".to_owned(), value)));
    wish.extend(args.origin_timeout.map(|seconds| ("origin_timeout_s".to_owned(), Value::from(seconds))));
    for (field, value) in [
        ("mode", args.mode),
        ("min_tls", args.min_tls),
        ("when_stale", args.when_stale),
        ("origin_ca", args.origin_ca.map(|file| origin_cas(&file)).transpose()?),
        ("origin_name", args.origin_name),
    ] {
        wish.extend(value.map(|value| (field.to_owned(), Value::from(value))));
    }
    let (names_cas, names_devices) = (!args.cas.is_empty(), args.cas.iter().any(|ca| ca == DEVICES));
    let cas: Vec<_> = args.cas.into_iter().filter(|ca| ca != DEVICES).collect();
    if names_devices && !cas.is_empty() {
        // Without a word they would be accepted only where no other is named.
        wish.insert("default_cas".to_owned(), Value::from("always"));
    }
    for (field, given, values) in [
        ("protocols", !args.protocols.is_empty(), args.protocols),
        ("cas", names_cas, cas),
        ("origins", !args.origins.is_empty(), args.origins),
    ] {
        wish.extend(given.then(|| (field.to_owned(), json!(values))));
    }
    Ok(Value::Object(wish))
}

fn origin_cas(file: &Path) -> anyhow::Result<String> {
    if file == Path::new(MACHINE) { Ok(String::new()) } else { read_text(file) }
}
