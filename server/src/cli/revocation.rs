//! The commands on what CAs issued elsewhere: their own CRLs, and revoking by name.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Value, json};

use super::args::{CrlSourceArgs, PageArgs, RevocableSelector};
use super::client::Client;
use super::manage::{read_text, segment};
use super::print::{Column, Printer, cell};

/// A CRL of 4 MiB, which is the largest that is taken, in PEM.
const CRL_FILE_MAX_BYTES: u64 = 6 << 20;

const REVOKED: &[Column] = &[
    ("SERIAL", "/serial_number"),
    ("SHA-256", "/fingerprint_sha256"),
    ("REVOKED", "/revoked_at"),
    ("REASON", "/reason"),
    ("BY THE CRL", "/by_list"),
    ("BY NAME", "/by_operator"),
];

pub(super) async fn take_crl(
    client: &Client,
    id: &str,
    file: &Path,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let wanted = json!({ "crl": read_crl(file)? });
    let path = client.own(&format!("/cas/{}/crl", segment(id)));
    taken(&client.call(Method::PUT, &path, Some(&wanted)).await?, out)
}

pub(super) async fn fetch_crl(client: &Client, id: &str, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let path = client.own(&format!("/cas/{}/crl/fetch", segment(id)));
    taken(&client.call(Method::POST, &path, None).await?, out)
}

fn taken(answer: &Value, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let text = |pointer: &str| cell(answer.pointer(pointer));
    let sentence = format!(
        "The CRL of {} entries, valid until {}, is in force: {} newly revoked, {} reinstated",
        text("/revocation/list/entries"),
        text("/revocation/list/next_update"),
        text("/newly_revoked"),
        text("/reinstated"),
    );
    out.done(answer, &sentence)
}

/// Shows the settings when nothing is to be set.
pub(super) async fn crl_source(
    client: &Client,
    args: CrlSourceArgs,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let path = client.own(&format!("/cas/{}/crl/settings", segment(&args.id)));
    let shown = client.get(&path).await?;
    let CrlSourceArgs { url, upload, every, when_stale, distribution_point: point, .. } = args;
    if url.is_none() && !upload && every.is_none() && when_stale.is_none() && point.is_none() {
        return out.object(&shown);
    }
    let kept = |name: &str| shown.get(name).cloned().unwrap_or_default();
    let wanted = json!({
        "url": if upload { Value::Null } else { url.map_or_else(|| kept("url"), Value::from) },
        "every_s": every.map_or_else(|| kept("every_s"), |every| Value::from(every.as_secs())),
        "when_stale": when_stale.map_or_else(|| kept("when_stale"), Value::from),
        "distribution_point": match point {
            Some(none) if none.is_empty() => Value::Null,
            point => point.map_or_else(|| kept("distribution_point"), Value::from),
        },
    });
    let set = client.call(Method::PUT, &path, Some(&wanted)).await?;
    let source = match set.get("url").and_then(Value::as_str) {
        Some(url) => format!("is fetched from {url} every {} s", cell(set.get("every_s"))),
        None => "is uploaded".to_owned(),
    };
    let stale = cell(set.get("when_stale"));
    out.done(&set, &format!("The CRL of the CA {source}; without a fresh one the CA is {stale}"))
}

pub(super) async fn revoked(
    client: &Client,
    id: &str,
    page: PageArgs,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let path = client.own(&format!("/cas/{}/revoked", segment(id)));
    out.list(&client.list(&path, "", page).await?, REVOKED)
}

/// Revokes a certificate of a CA by what names it there.
pub(super) async fn revoke_named(
    client: &Client,
    ca: &str,
    which: &RevocableSelector,
    reason: &str,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let certificate = which.file.as_deref().map(read_text).transpose()?;
    let wanted = json!({
        "serial_number": which.serial, "fingerprint_sha256": which.sha256, "certificate": certificate,
        "reason": reason,
    });
    let path = client.own(&format!("/cas/{}/revoked", segment(ca)));
    let revoked = client.call(Method::POST, &path, Some(&wanted)).await?;
    out.done(&revoked, &format!("Revoked {} of the CA {ca}; the edge refuses it", cell(revoked.get("name"))))
}

/// Takes back what was said here of a certificate of a CA.
pub(super) async fn reinstate_named(
    client: &Client,
    ca: &str,
    which: &RevocableSelector,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let name = which.serial.as_deref().or(which.sha256.as_deref());
    let name = name.context("with --ca, name the certificate by --serial or --sha256")?;
    let path = client.own(&format!("/cas/{}/revoked/{}", segment(ca), segment(name)));
    let good = client.call(Method::DELETE, &path, None).await?;
    let name = cell(good.get("name"));
    let sentence = match good.get("revoked") {
        Some(Value::Bool(true)) => format!("{name} of the CA {ca} is revoked by the CA's own CRL still"),
        _ => format!("Reinstated {name} of the CA {ca}"),
    };
    out.done(&good, &sentence)
}

/// A CRL as PEM, whether the file is PEM or DER.
fn read_crl(path: &Path) -> anyhow::Result<String> {
    let unreadable = || format!("can't read {}", path.display());
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).with_context(unreadable)?;
    file.take(CRL_FILE_MAX_BYTES + 1).read_to_end(&mut octets).with_context(unreadable)?;
    let length = octets.len() as u64;
    ensure!(length <= CRL_FILE_MAX_BYTES, "{} is larger than a CRL can be: 4 MiB", path.display());
    if octets.starts_with(b"0") {
        return Ok(pem::encode(&pem::Pem::new("X509 CRL", octets)));
    }
    String::from_utf8(octets).with_context(|| format!("{} is neither PEM nor DER", path.display()))
}
