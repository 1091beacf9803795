//! The commands on devices and their certificates.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use serde_json::{Value, json};

use super::args::{CertCommand, CertSelector, DeviceCommand, PageArgs, RevocableSelector};
use super::client::{Client, Refused};
use super::device_csv::{self, Row};
use super::manage::{read_bounded, segment};
use super::print::{Column, Printer, cell};
use super::revocation;

/// Devices sent at once: as many as an edge is told one by one. For more it reads all there are, and no revocation comes into
/// force meanwhile.
const IMPORT_CHUNK: usize = 1_000;

/// Devices whose status is set at once; the most that the API takes.
const STATUS_CHUNK: usize = 1_000;
const NO_MATCH: &str = "no certificate matches; `muster cert list` shows what there is, and one that a CA issued \
                        elsewhere is named with --ca";

const DEVICES: &[Column] = &[
    ("ID", "/id"),
    ("STATUS", "/status"),
    ("GROUPS", "/groups"),
    ("LABELS", "/labels"),
    ("KNOWN SINCE", "/created_at"),
];
const CERTIFICATES: &[Column] = &[
    ("ID", "/id"),
    ("STATUS", "/status"),
    ("DEVICE", "/device"),
    ("PROFILE", "/profile"),
    ("SERIAL", "/serial_number"),
    ("ENDS", "/not_after"),
];

pub(super) async fn device(
    client: &Client,
    command: DeviceCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let devices = client.own("/devices");
    let (ids, status) = match command {
        DeviceCommand::List { prefix, status, page } => {
            let query = query(&[("prefix", prefix), ("status", status)]);
            return out.list(&client.list(&devices, &query, page).await?, DEVICES);
        }
        DeviceCommand::Show { id } => {
            let shown = client.get(&format!("{devices}/{}", segment(&id))).await?;
            return show_device(shown, out);
        }
        DeviceCommand::Import { file } => return import(client, &file, out).await,
        DeviceCommand::Suspend { ids } => (ids, "suspended"),
        DeviceCommand::Resume { ids } => (ids, "active"),
        DeviceCommand::Retire { ids } => (ids, "retired"),
    };
    let [id] = ids.as_slice() else { return set_status(client, &ids, status, out).await };
    let path = format!("{devices}/{}", segment(id));
    let set = client.call(Method::PATCH, &path, Some(&json!({ "status": status }))).await?;
    out.done(&set, &format!("The device {id} is {status}"))
}

/// Sets the status of many; says of each what became of it, and fails when one could not be set.
async fn set_status(
    client: &Client,
    ids: &[String],
    status: &str,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let (mut rows, mut failed) = (Vec::new(), 0);
    for chunk in ids.chunks(STATUS_CHUNK) {
        let wanted = json!({ "devices": chunk, "status": status });
        let mut answer = client.call(Method::PATCH, &client.own("/devices"), Some(&wanted)).await?;
        failed += answer.get("failed").and_then(Value::as_u64).unwrap_or_default();
        if let Some(Value::Array(found)) = answer.get_mut("rows") {
            rows.append(found);
        }
    }
    out.list(&rows, &[("ID", "/id"), ("OUTCOME", "/outcome")])?;
    ensure!(failed == 0, "{failed} of {} devices are not {status}: unknown, or retired for good", ids.len());
    Ok(())
}

fn show_device(mut device: Value, out: &mut Printer<'_>) -> anyhow::Result<()> {
    if out.json() {
        return out.value(&device);
    }
    let certificates = device.as_object_mut().and_then(|fields| fields.remove("certificates"));
    out.object(&device)?;
    let certificates = certificates.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    out.line("")?;
    out.list(certificates, CERTIFICATES)
}

/// Sends a CSV in chunks; each is imported whole or not at all.
async fn import(client: &Client, path: &Path, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let file = std::fs::File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let rows = device_csv::read(file).with_context(|| path.display().to_string())?;
    let target = client.own("/devices/import");
    let progress = std::io::stderr().is_terminal() && rows.len() > IMPORT_CHUNK;
    let (mut done, mut created, mut updated, mut kept) = (0, 0, 0, 0);
    for chunk in rows.chunks(IMPORT_CHUNK) {
        let answer = client.call(Method::POST, &target, Some(&serde_json::to_value(chunk)?)).await;
        let answer = answer.map_err(|error| in_file(error, chunk, done))?;
        let count = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
        created += count("created");
        updated += count("updated");
        kept += count("kept");
        done += chunk.len();
        if progress {
            eprint!("\r{done} of {} devices", rows.len());
        }
    }
    if progress {
        eprintln!();
    }
    let total = json!({ "created": created, "updated": updated, "kept": kept });
    out.done(&total, &format!("Imported {done} devices: {created} new, {updated} changed, {kept} unchanged"))
}

/// The API counts rows of the chunk; people count lines of the file.
fn in_file(error: anyhow::Error, chunk: &[Row], done: usize) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<Refused>() else { return error };
    let pointer = refused.pointer.as_deref().unwrap_or_default();
    let number = pointer.trim_start_matches('/').split('/').next().and_then(|number| number.parse().ok());
    let before = if done > 0 { format!(" (the {done} devices before are imported)") } else { String::new() };
    match number.and_then(|number: usize| Some((number, chunk.get(number)?))) {
        Some((number, row)) => {
            let message = refused.message.trim_start_matches(&format!("row {number}: "));
            anyhow::anyhow!("line {}, device {}: {message}{before}", row.line, row.id)
        }
        None => anyhow::anyhow!("{refused}{before}"),
    }
}

pub(super) async fn cert(client: &Client, command: CertCommand, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let certificates = client.own("/certificates");
    match command {
        CertCommand::List { status, device, page } => {
            let query = query(&[("status", status), ("device", device)]);
            out.list(&client.list(&certificates, &query, page).await?, CERTIFICATES)
        }
        CertCommand::Show { which } => {
            let mut shown = Vec::new();
            for id in select(client, &which, "active").await? {
                shown.push(client.get(&format!("{certificates}/{id}")).await?);
            }
            all(&shown, &which, out, |out, one| out.object(one))
        }
        CertCommand::Revoke { which: RevocableSelector { device: Some(device), .. }, reason, .. } => {
            let wanted = json!({ "devices": [device], "reason": reason });
            let answer = client.call(Method::POST, &format!("{certificates}/revoke"), Some(&wanted)).await?;
            let rows = answer.get("rows").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let revoked: Vec<Value> = rows.iter().filter_map(|row| row.get("certificate").cloned()).collect();
            ensure!(!revoked.is_empty(), "{NO_MATCH}");
            if out.json() {
                return out.list(&revoked, &[]);
            }
            revoked.iter().try_for_each(|one| out.done(one, &change("Revoked", one)))
        }
        CertCommand::Revoke { which, ca: Some(ca), reason } => {
            revocation::revoke_named(client, &ca, &which, &reason, out).await
        }
        CertCommand::Revoke { which, ca: None, reason } => {
            let which = issued_here(which);
            let body = json!({ "reason": reason });
            let revoked = each(client, &which, "active", "revoke", Some(&body)).await?;
            all(&revoked, &which, out, |out, one| out.done(one, &change("Revoked", one)))
        }
        CertCommand::Reactivate { which, ca: Some(ca) } => {
            revocation::reinstate_named(client, &ca, &which, out).await
        }
        CertCommand::Reactivate { which, ca: None } => {
            let which = issued_here(which);
            let good = each(client, &which, "revoked", "reactivate", None).await?;
            all(&good, &which, out, |out, one| out.done(one, &change("Reactivated", one)))
        }
        CertCommand::Sign { csr, device, profile, dry_run } => {
            let wanted =
                json!({ "csr": read_csr(&csr)?, "device": device, "profile": profile, "dry_run": dry_run });
            let answer = client.call(Method::POST, &format!("{certificates}/sign"), Some(&wanted)).await?;
            if dry_run { explain(&answer, out) } else { signed(&answer, out) }
        }
    }
}

/// Without a CA, only what this server issued can be meant.
fn issued_here(which: RevocableSelector) -> CertSelector {
    CertSelector { id: which.id, serial: which.serial, device: which.device }
}

/// The ids of the certificates that are meant; `status` is which of a device's are.
async fn select(client: &Client, which: &CertSelector, status: &str) -> anyhow::Result<Vec<String>> {
    let query = match which {
        CertSelector { id: Some(id), .. } => return Ok(vec![segment(id)]),
        CertSelector { serial: Some(serial), .. } => format!("serial={}", segment(serial)),
        CertSelector { device, .. } => {
            format!("device={}&status={status}", segment(device.as_deref().unwrap_or_default()))
        }
    };
    let found = client.list(&client.own("/certificates"), &query, PageArgs::default()).await?;
    ensure!(!found.is_empty(), "{NO_MATCH}");
    ensure!(
        which.serial.is_none() || found.len() == 1,
        "several CAs used this serial; name the certificate with --id"
    );
    let ids = found.iter().filter_map(|one| one.get("id")?.as_str()).map(str::to_owned);
    Ok(ids.collect())
}

/// Does the same to every certificate that is meant.
async fn each(
    client: &Client,
    which: &CertSelector,
    status: &str,
    verb: &str,
    body: Option<&Value>,
) -> anyhow::Result<Vec<Value>> {
    let certificates = client.own("/certificates");
    let mut done = Vec::new();
    for id in select(client, which, status).await? {
        done.push(client.call(Method::POST, &format!("{certificates}/{id}/{verb}"), body).await?);
    }
    Ok(done)
}

/// Prints what was done to each; in JSON one object, or for a device an array.
fn all(
    done: &[Value],
    which: &CertSelector,
    out: &mut Printer<'_>,
    print: impl Fn(&mut Printer<'_>, &Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if out.json() && which.device.is_some() {
        return out.list(done, &[]);
    }
    done.iter().try_for_each(|one| print(out, one))
}

fn change(done: &str, certificate: &Value) -> String {
    let (serial, device) = (cell(certificate.get("serial_number")), cell(certificate.get("device")));
    format!("{done} {serial} of {device}; the CRL has it")
}

/// A request as PEM, whether the file is PEM or DER.
fn read_csr(path: &Path) -> anyhow::Result<String> {
    let octets = if path.as_os_str() == "-" {
        read_bounded(Ok(std::io::stdin().lock()), path)?
    } else {
        read_bounded(std::fs::File::open(path), path)?
    };
    // DER begins with a SEQUENCE; text that does is none.
    if octets.first() == Some(&0x30) && octets.get(1).is_some_and(|octet| *octet >= 0x80) {
        return Ok(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", octets)));
    }
    String::from_utf8(octets).with_context(|| format!("{} is neither PEM nor DER", path.display()))
}

/// The certificate alone; what was left out of it goes to standard error.
fn signed(answer: &Value, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let dropped = answer.get("dropped").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for one in dropped {
        eprintln!("muster: not granted: {}", cell(Some(one)));
    }
    out.field(answer, "pem")
}

/// What would be issued, or why not.
fn explain(answer: &Value, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let granted = answer.get("would_issue") == Some(&Value::Bool(true));
    if granted || out.json() {
        out.object(answer)?;
    }
    if granted {
        return Ok(());
    }
    let text = |name: &str| cell(answer.get(name));
    let detail = answer.get("detail").and_then(Value::as_str).map(|detail| format!(": {detail}"));
    let (sentence, code, field) = (text("sentence"), text("code"), text("field"));
    bail!("would be refused: {sentence} [{code} at {field}]{}", detail.unwrap_or_default())
}

/// The filters that were given.
fn query(filters: &[(&str, Option<String>)]) -> String {
    let given = filters.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", segment(value))).collect();
    pairs.join("&")
}
