//! The commands on hostnames.

use http::Method;
use serde_json::{Map, Value, json};

use super::args::HostCommand;
use super::client::Client;
use super::manage::segment;
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

pub(super) async fn host(client: &Client, command: HostCommand, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let hosts = client.own("/hosts");
    match command {
        HostCommand::Set { host, mode, protocols, mut cas, origins, min_tls, when_stale } => {
            let mut wish = Map::new();
            for (field, value) in [("mode", mode), ("min_tls", min_tls), ("when_stale", when_stale)] {
                wish.extend(value.map(|value| (field.to_owned(), Value::from(value))));
            }
            let names_cas = !cas.is_empty();
            cas.retain(|ca| ca != DEVICES);
            for (field, given, values) in [
                ("protocols", !protocols.is_empty(), protocols),
                ("cas", names_cas, cas),
                ("origins", !origins.is_empty(), origins),
            ] {
                wish.extend(given.then(|| (field.to_owned(), json!(values))));
            }
            let path = format!("{hosts}/{}", segment(&host));
            let set = client.call(Method::PUT, &path, Some(&Value::Object(wish))).await?;
            out.done(&set, &format!("Set {}: mode {}", cell(set.get("host")), cell(set.get("mode"))))
        }
        HostCommand::List(page) => out.list(&client.list(&hosts, "", page).await?, HOSTS),
        HostCommand::Rm { host } => {
            let removed = client.call(Method::DELETE, &format!("{hosts}/{}", segment(&host)), None).await?;
            out.done(&removed, &format!("Removed {}", cell(removed.get("host"))))
        }
    }
}
