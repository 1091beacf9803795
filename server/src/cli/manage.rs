//! The commands on zones, tokens, CAs, profiles, approvals and the audit: each is a call of the API.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::{Map, Value, json};

use super::args::{
    AdminTokenCommand, ApprovalCommand, AuditCommand, CaAlgorithmArg, CaCommand, ImportUse, PageArgs,
    ProfileCommand, RotateRole, TokenCommand, ZoneCommand,
};
use super::client::{Client, Refused};
use super::print::{Column, Printer, cell};
use super::{profile_fields, revocation};

/// Larger files are no bundle of certificates and no request.
pub(super) const PEM_FILE_MAX_BYTES: u64 = 256 << 10;

const ZONES: &[Column] = &[("ID", "/id"), ("NAME", "/name"), ("ADDED", "/created_on")];
const TOKENS: &[Column] = &[
    ("ID", "/id"),
    ("STATUS", "/status"),
    ("DEVICE", "/device"),
    ("PROFILE", "/profile"),
    ("TAKEN", "/uses_taken"),
    ("ALLOWED", "/uses_allowed"),
    ("EXPIRES", "/expires_at"),
];
const CAS: &[Column] = &[
    ("ID", "/id"),
    ("ROLE", "/role"),
    ("STATE", "/state"),
    ("KIND", "/kind"),
    ("KEY", "/has_key"),
    ("ENDS", "/not_after"),
    ("TITLE", "/title"),
];
const APPROVALS: &[Column] = &[
    ("REQUEST", "/id"),
    ("DEVICE", "/device"),
    ("PROFILE", "/profile"),
    ("SINCE", "/since"),
    ("FROM", "/source"),
    ("CALLER", "/caller"),
];
const ADMIN_TOKENS: &[Column] =
    &[("ID", "/id"), ("NAME", "/name"), ("ROLE", "/role"), ("STATUS", "/status"), ("EXPIRES", "/expires_at")];
const AUDIT: &[Column] = &[
    ("NUMBER", "/number"),
    ("AT", "/at"),
    ("ACTION", "/action"),
    ("ACTOR", "/actor"),
    ("DEVICE", "/subjects/device"),
    ("SERIAL", "/subjects/serial"),
    ("REASON", "/reason"),
    ("DETAILS", "/details"),
];

pub(super) async fn zone(client: &Client, command: ZoneCommand, out: &mut Printer<'_>) -> anyhow::Result<()> {
    match command {
        ZoneCommand::Add { zone } => {
            let made = client.call(Method::POST, "/zones", Some(&json!({ "name": zone }))).await?;
            out.done(&made, &format!("Added the zone {} ({})", cell(made.get("name")), cell(made.get("id"))))
        }
        ZoneCommand::List(page) => out.list(&client.list("/zones", "", page).await?, ZONES),
    }
}

pub(super) async fn token(
    client: &Client,
    command: TokenCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let tokens = client.own("/tokens");
    match command {
        TokenCommand::New { device, claim, uses, ttl, profile, key_sha256 } => {
            let wanted = json!({
                "device": device, "claim": claim, "uses": uses, "ttl_s": ttl.as_secs(),
                "profile": profile, "key_sha256": key_sha256,
            });
            let made = client.call(Method::POST, &tokens, Some(&wanted)).await?;
            out.field(&made, "token")
        }
        TokenCommand::List(page) => out.list(&client.list(&tokens, "", page).await?, TOKENS),
        TokenCommand::Revoke { id } => {
            let path = format!("{tokens}/{}", segment(&id));
            let revoked = client.call(Method::DELETE, &path, None).await?;
            out.done(&revoked, &format!("Revoked the token {id}"))
        }
    }
}

pub(super) async fn admin_token(
    client: &Client,
    command: AdminTokenCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let tokens = client.own("/admin_tokens");
    match command {
        AdminTokenCommand::New { name, read_only, ttl } => {
            let role = if read_only { "reader" } else { "admin" };
            let wanted = json!({ "name": name, "role": role, "ttl_s": ttl.map(|ttl| ttl.as_secs()) });
            let made = client.call(Method::POST, &tokens, Some(&wanted)).await?;
            out.field(&made, "token")
        }
        AdminTokenCommand::List => {
            out.list(&client.list(&tokens, "", PageArgs::default()).await?, ADMIN_TOKENS)
        }
        AdminTokenCommand::Revoke { id } => {
            let path = format!("{tokens}/{}", segment(&id));
            let revoked = client.call(Method::DELETE, &path, None).await?;
            out.done(&revoked, &format!("Revoked the admin token {id}"))
        }
    }
}

pub(super) async fn ca(client: &Client, command: CaCommand, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let cas = client.own("/cas");
    match command {
        CaCommand::List(page) => out.list(&client.list(&cas, "", page).await?, CAS),
        CaCommand::Create { algorithm, cut_off } => {
            let wanted = json!({ "algorithm": algorithm_name(algorithm), "cut_off": cut_off });
            let made = client.call(Method::POST, &cas, Some(&wanted)).await?;
            out.done(&made, &new_ca("Created the root", &made))
        }
        CaCommand::Import { file, purpose, name, key, key_passphrase_file } => {
            let key = key.as_deref().map(read_text).transpose()?.unwrap_or_default();
            let wanted = json!({
                "pem": format!("{}\n{key}", read_text(&file)?),
                "use": match purpose { ImportUse::Devices => "devices", ImportUse::Manufacturer => "manufacturer" },
                "name": name,
                "passphrase": key_passphrase_file.as_deref().map(read_passphrase).transpose()?,
            });
            let made = client.call(Method::POST, &format!("{cas}/import"), Some(&wanted)).await?;
            out.done(&made, &new_ca("Imported", &made))
        }
        CaCommand::Rotate { role } => {
            let role = match role {
                RotateRole::Devices => "devices",
                RotateRole::Services => "services",
            };
            let made =
                client.call(Method::POST, &format!("{cas}/rotate"), Some(&json!({ "role": role }))).await?;
            out.done(&made, &new_ca(&format!("Now issuing for {role}:"), &made))
        }
        CaCommand::Retire { id } => {
            let retired = client.call(Method::POST, &format!("{cas}/{}/retire", segment(&id)), None).await?;
            out.done(&retired, &format!("Retired {} ({id})", cell(retired.get("title"))))
        }
        CaCommand::Export { id: Some(id) } => {
            out.field(&client.get(&format!("{cas}/{}", segment(&id))).await?, "pem")
        }
        CaCommand::Export { id: None } => out.field(&client.get(&client.own("/roots")).await?, "pem"),
        CaCommand::Crl { id } => {
            let id = match id {
                Some(id) => id,
                None => issuing_ca(client).await?,
            };
            out.field(&client.get(&format!("{cas}/{}/crl", segment(&id))).await?, "pem")
        }
        CaCommand::TakeCrl { id, file } => revocation::take_crl(client, &id, &file, out).await,
        CaCommand::CrlSource(args) => revocation::crl_source(client, args, out).await,
        CaCommand::FetchCrl { id } => revocation::fetch_crl(client, &id, out).await,
        CaCommand::Revoked { id, page } => revocation::revoked(client, &id, page, out).await,
    }
}

fn new_ca(done: &str, ca: &Value) -> String {
    format!("{done} {} ({}), until {}", cell(ca.get("title")), cell(ca.get("id")), cell(ca.get("not_after")))
}

const fn algorithm_name(algorithm: CaAlgorithmArg) -> &'static str {
    match algorithm {
        CaAlgorithmArg::EcdsaP256 => "ecdsa-p256",
        CaAlgorithmArg::EcdsaP384 => "ecdsa-p384",
        CaAlgorithmArg::Rsa3072 => "rsa3072",
    }
}

/// The CA that issues to devices: the newest active one.
async fn issuing_ca(client: &Client) -> anyhow::Result<String> {
    let query = "role=devices&state=active";
    let cas = client.list(&client.own("/cas"), query, PageArgs::default()).await?;
    let id = cas.first().and_then(|ca| ca.get("id")).and_then(Value::as_str);
    Ok(id.context("no CA issues to devices; create one with `muster ca create`")?.to_owned())
}

pub(super) async fn profile(
    client: &Client,
    command: ProfileCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let profiles = client.own("/profiles");
    match command {
        ProfileCommand::List => {
            let found = client.list(&profiles, "", PageArgs::default()).await?;
            if out.json() {
                return out.list(&found, &[]);
            }
            for profile in &found {
                print_profile(profile, out)?;
            }
            Ok(())
        }
        ProfileCommand::Set { label, fields } => {
            let path = format!("{profiles}/{}", segment(&label));
            let mut written = match client.get(&path).await {
                Ok(mut profile) => profile.get_mut("written").map(Value::take),
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(error),
            };
            let mut fresh = Map::new();
            let current = written.as_mut().and_then(Value::as_object_mut).unwrap_or(&mut fresh);
            profile_fields::apply(current, &fields)?;
            let body = Value::Object(core::mem::take(current));
            let set = client.call(Method::PUT, &path, Some(&body)).await?;
            if out.json() { out.value(&set) } else { print_profile(&set, out) }
        }
    }
}

/// Whether the API knows no such thing.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == http::StatusCode::NOT_FOUND)
}

/// Every value in force; those that were written are marked.
fn print_profile(profile: &Value, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let default =
        if profile.get("default") == Some(&Value::Bool(true)) { "   (of paths without a label)" } else { "" };
    out.line(&format!("{}{default}", cell(profile.get("label"))))?;
    let Some(Value::Object(effective)) = profile.get("effective") else {
        return out.line("  invalid: set it again");
    };
    for (name, value) in effective {
        let set = profile.pointer(&format!("/written/{name}")).is_some_and(|written| !written.is_null());
        let mark = if set { "   (set)" } else { "" };
        out.line(&format!("  {name:<20}  {}{mark}", cell(Some(value))))?;
    }
    Ok(())
}

pub(super) async fn approval(
    client: &Client,
    command: ApprovalCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let approvals = client.own("/approvals");
    let (request, verb, word) = match command {
        ApprovalCommand::List(page) => return out.list(&client.list(&approvals, "", page).await?, APPROVALS),
        ApprovalCommand::Approve { request } => (request, "approve", "Approved"),
        ApprovalCommand::Deny { request } => (request, "deny", "Denied"),
    };
    let path = format!("{approvals}/{}/{verb}", segment(&request));
    let decided = client.call(Method::POST, &path, None).await?;
    out.done(&decided, &format!("{word} the request of {}", cell(decided.get("device"))))
}

pub(super) async fn audit(
    client: &Client,
    command: AuditCommand,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    match command {
        AuditCommand::List(page) => out.list(&client.list(&client.own("/audit"), "", page).await?, AUDIT),
        AuditCommand::Verify => {
            let found = client.get_patiently(&client.own("/audit/verify")).await?;
            let sound = found.get("sound") == Some(&Value::Bool(true));
            let entries = cell(found.get("count"));
            let text = format!("The audit is intact: {entries} entries, head {}", cell(found.get("head")));
            if sound || out.json() {
                out.done(&found, &text)?;
            }
            if sound {
                return Ok(());
            }
            let (number, what) = (cell(found.get("broken_at")), cell(found.get("what")));
            bail!("the audit is broken at entry {number}: {what}; compare it with a backup")
        }
    }
}

/// An id as a segment of a path: whatever was typed stays one segment.
pub(super) fn segment(id: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | b'~');
    id.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}

/// A text file that is not larger than a bundle can be.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    let octets = read_bounded(std::fs::File::open(path), path)?;
    String::from_utf8(octets).with_context(|| format!("{} is not PEM text", path.display()))
}

fn read_passphrase(path: &Path) -> anyhow::Result<String> {
    Ok(read_text(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a stream to its end, up to the size of the largest PEM file.
pub(super) fn read_bounded(
    stream: std::io::Result<impl std::io::Read>,
    path: &Path,
) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("can't read {}", path.display());
    let mut octets = Vec::new();
    stream
        .with_context(unreadable)?
        .take(PEM_FILE_MAX_BYTES + 1)
        .read_to_end(&mut octets)
        .with_context(unreadable)?;
    anyhow::ensure!(
        octets.len() as u64 <= PEM_FILE_MAX_BYTES,
        "{} is larger than {PEM_FILE_MAX_BYTES} bytes",
        path.display()
    );
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(segment("a/../b?x#y %"), "a%2F..%2Fb%3Fx%23y%20%25");
        assert_eq!(segment("Dev-1_2.x"), "Dev-1_2.x");
    }
}
