//! `muster doctor`: is everything as it should be, one line a check.
//!
//! It changes nothing, but that a missing CRL is made when it is looked at. A failed check is something
//! that does not work or is not safe; a warning will become one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_enroll::{CaCertificate, Clock};
use muster_policy::time::UnixTime;
use serde::Serialize;
use serde_json::Value;

use super::args::PageArgs;
use super::client::Client;
use super::print::{Printer, cell};
use super::server::configuration;
use crate::datadir::DataDir;
use crate::est_tls;
use crate::server_tls::TELL_BEFORE;

/// A CA that ends sooner is warned of: replacing it takes the fleet a lifetime of certificates.
const CA_WARN_BEFORE: Duration = Duration::from_secs(365 * 86_400);
/// No clock is right that shows a time before this program was written: 2026-01-01.
const CLOCK_MIN: UnixTime = UnixTime::from_secs(1_767_225_600);
/// The newest entry of the audit may be so much ahead of this clock.
const CLOCK_SLACK: Duration = Duration::from_secs(300);
/// Less free space fails: the ledger grows by copying before it frees.
const SPACE_FAIL_BYTES: u64 = 100 << 20;
/// Less free space is warned of.
const SPACE_WARN_BYTES: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    message: String,
}

#[derive(Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn add(&mut self, check: &'static str, state: State, message: impl Into<String>) {
        self.0.push(Check { check, state, message: message.into() });
    }
}

/// Runs every check.
pub(super) async fn doctor(dir: &DataDir, out: &mut Printer<'_>) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    files(dir, &mut findings);
    space(dir, &mut findings);
    match configuration(dir) {
        Ok(config) => {
            findings.add("configuration", State::Ok, "can be used");
            if let Some(files) = &config.est_tls_files {
                est_certificate(files, Clock::system().now(), &mut findings);
            }
        }
        Err(error) => findings.add("configuration", State::Fail, format!("{error:#}")),
    }
    // A client that opens the ledger itself makes the key anew.
    let signs = dir.webhooks_key().exists();
    match Client::connect(dir).await {
        Ok(client) => account(&client, dir, signs, &mut findings).await,
        Err(error) => findings.add("ledger", State::Fail, format!("{error:#}")),
    }
    tell(&findings.0, out)
}

fn tell(findings: &[Check], out: &mut Printer<'_>) -> anyhow::Result<()> {
    if out.json() {
        out.value(&serde_json::to_value(findings)?)?;
    } else {
        for Check { check, state, message } in findings {
            let word = match state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Fail => "fail",
            };
            out.line(&format!("{word:<4}  {check}: {message}"))?;
        }
    }
    let failed = findings.iter().filter(|check| check.state == State::Fail).count();
    anyhow::ensure!(failed == 0, "{failed} checks failed; see the lines marked `fail`");
    Ok(())
}

/// Who may read what.
fn files(dir: &DataDir, findings: &mut Findings) {
    private(dir.path(), "directory", findings);
    for secret in [dir.ledger(), dir.est_tls(), dir.serving()] {
        if secret.exists() {
            private(&secret, "file", findings);
        }
    }
    let keys = match std::fs::read_dir(dir.keys()) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>(),
        Err(error) => {
            findings.add("keys", State::Fail, format!("can't read {}: {error}", dir.keys().display()));
            return;
        }
    };
    for key in &keys {
        private(key, "key file", findings);
    }
    let webhooks = dir.webhooks_key();
    let mut cas = keys.iter().filter(|key| **key != webhooks);
    if webhooks.exists() && cas.any(|key| is_encrypted(key)) && !is_encrypted(&webhooks) {
        let message = format!(
            "{} is not encrypted, and CA keys are; starting the server with their passphrase encrypts it too",
            webhooks.display()
        );
        findings.add("key file", State::Warn, message);
    }
}

/// Whether a key file says that it is encrypted (RFC 7468 §11); one that can't be read is told elsewhere.
fn is_encrypted(key: &Path) -> bool {
    std::fs::read(key).is_ok_and(|text| text.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"))
}

/// Nobody but the owner may have any access.
fn private(path: &Path, check: &'static str, findings: &mut Findings) {
    let name = path.display();
    match std::fs::metadata(path) {
        Err(error) => findings.add(check, State::Fail, format!("{name}: {error}")),
        Ok(found) if found.permissions().mode() & 0o077 == 0 => {
            findings.add(check, State::Ok, format!("{name} is its owner's alone"));
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            findings.add(check, State::Fail, format!("{name} has mode {mode:o}; run `chmod go= {name}`"));
        }
    }
}

fn space(dir: &DataDir, findings: &mut Findings) {
    let found = match rustix::fs::statvfs(dir.path()) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => return findings.add("disk", State::Fail, format!("{}: {error}", dir.path().display())),
    };
    let message = format!("{} MiB free", found >> 20);
    match found {
        0..SPACE_FAIL_BYTES => findings.add("disk", State::Fail, format!("{message}; make room")),
        SPACE_FAIL_BYTES..SPACE_WARN_BYTES => findings.add("disk", State::Warn, message),
        SPACE_WARN_BYTES.. => findings.add("disk", State::Ok, message),
    }
}

/// The operator's own certificate of the EST server.
fn est_certificate(files: &(PathBuf, PathBuf), now: UnixTime, findings: &mut Findings) {
    let (state, message) = match est_tls::end_of_files(files) {
        Ok(end) => (life(end, now), format!("ends {end}")),
        Err(error) => (State::Fail, error.to_string()),
    };
    findings.add("EST certificate", state, message);
}

fn life(end: UnixTime, now: UnixTime) -> State {
    match end {
        end if end < now => State::Fail,
        end if end < now.plus(TELL_BEFORE) => State::Warn,
        _ => State::Ok,
    }
}

/// What only the ledger knows.
async fn account(client: &Client, dir: &DataDir, signs: bool, findings: &mut Findings) {
    let reached = client
        .server()
        .map_or_else(|| "opens; no server runs".to_owned(), |address| format!("served at {address}"));
    findings.add("ledger", State::Ok, reached);
    let now = Clock::system().now();
    let asked = async {
        clock(client, now, findings).await?;
        cas(client, now, findings).await?;
        profiles(client, findings).await?;
        webhooks(client, dir, signs, findings).await?;
        trust(client, dir, findings).await
    };
    if let Err(error) = asked.await {
        findings.add("API", State::Fail, format!("{error:#}"));
    }
}

/// Receivers hold what was made of the key, so that one made anew signs nothing that they accept.
async fn webhooks(
    client: &Client,
    dir: &DataDir,
    signs: bool,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let webhooks = client.list(&client.own("/webhooks"), "", PageArgs::default()).await?;
    if !webhooks.is_empty() && !signs {
        let message = format!(
            "{} was missing, and {} webhooks sign with what is made of it; restore it from a backup, or make \
             the webhooks anew",
            dir.webhooks_key().display(),
            webhooks.len()
        );
        findings.add("webhooks", State::Fail, message);
    }
    Ok(())
}

async fn clock(client: &Client, now: UnixTime, findings: &mut Findings) -> anyhow::Result<()> {
    let newest = PageArgs { page: Some(1), per_page: Some(1) };
    let newest = client.list(&client.own("/audit"), "", newest).await?;
    let at = newest.first().and_then(|entry| time(entry, "at")).unwrap_or(UnixTime::EPOCH);
    if now < CLOCK_MIN || at > now.plus(CLOCK_SLACK) {
        let message = format!("it shows {now}, but the newest entry of the audit is of {at}; set it right");
        findings.add("clock", State::Fail, message);
    } else {
        findings.add("clock", State::Ok, now.to_string());
    }
    Ok(())
}

async fn cas(client: &Client, now: UnixTime, findings: &mut Findings) -> anyhow::Result<()> {
    let cas = client.list(&client.own("/cas"), "", PageArgs::default()).await?;
    let active = |role: &str, ca: &Value| {
        ca.get("role").and_then(Value::as_str) == Some(role)
            && ca.get("state").and_then(Value::as_str) == Some("active")
    };
    if !cas.iter().any(|ca| active("devices", ca)) {
        findings.add("CA", State::Fail, "none issues to devices; run `muster ca create`");
    }
    for ca in cas.iter().filter(|ca| ca.get("state").and_then(Value::as_str) != Some("retired")) {
        let name = format!("{} ({})", cell(ca.get("title")), cell(ca.get("state")));
        let end = time(ca, "not_after").unwrap_or(UnixTime::EPOCH);
        let retiring = ca.get("state").and_then(Value::as_str) == Some("retiring");
        match end {
            end if end < now && retiring => findings.add("CA", State::Warn, format!("{name} ended {end}")),
            end if end < now => findings.add("CA", State::Fail, format!("{name} ended {end}; replace it")),
            end if end < now.plus(CA_WARN_BEFORE) && !retiring => {
                findings.add("CA", State::Warn, format!("{name} ends {end}; plan to replace it"));
            }
            end => findings.add("CA", State::Ok, format!("{name} ends {end}")),
        }
        if ca.get("has_key") == Some(&Value::Bool(true)) {
            crl(client, &cell(ca.get("id")), &name, now, findings).await;
        } else {
            foreign_crl(client, &cell(ca.get("id")), &name, now, findings).await;
        }
    }
    Ok(())
}

async fn crl(client: &Client, id: &str, name: &str, now: UnixTime, findings: &mut Findings) {
    // One that came along when that was not looked at.
    if !signs_crls(client, id).await {
        let what = format!("{name} has no cRLSign: it keeps no CRL; run `muster ca rotate`");
        return findings.add("CRL", State::Warn, what);
    }
    let crl = match client.get(&client.own(&format!("/cas/{id}/crl"))).await {
        Ok(crl) => crl,
        Err(error) => return findings.add("CRL", State::Fail, format!("that of {name}: {error:#}")),
    };
    let next = time(&crl, "next_update").unwrap_or(UnixTime::EPOCH);
    match next {
        next if next < now => {
            findings.add("CRL", State::Fail, format!("that of {name} was good until {next}; see the log"));
        }
        next => findings.add("CRL", State::Ok, format!("that of {name} is good until {next}")),
    }
}

/// Whether the certificate of a CA allows it to sign CRLs; one that can't be read is told by what needs it.
async fn signs_crls(client: &Client, id: &str) -> bool {
    let ca = client.get(&client.own(&format!("/cas/{id}"))).await.unwrap_or_default();
    let text = ca.get("pem").and_then(Value::as_str).unwrap_or_default();
    let parsed = pem::parse(text).ok().and_then(|first| CaCertificate::parse(first.contents()).ok());
    parsed.is_none_or(|certificate| certificate.signs_crls())
}

/// The own CRL of a CA whose key is elsewhere; there need not be one.
async fn foreign_crl(client: &Client, id: &str, name: &str, now: UnixTime, findings: &mut Findings) {
    let known = match client.get(&client.own(&format!("/cas/{id}/crl/settings"))).await {
        Ok(known) => known,
        Err(error) => return findings.add("CRL", State::Fail, format!("that of {name}: {error:#}")),
    };
    let failed = known.pointer("/last_fetch/message").and_then(Value::as_str);
    if let Some(message) = failed {
        findings.add("CRL", State::Warn, format!("that of {name} was not fetched: {message}"));
    }
    let Some(next) = known.get("list").and_then(|list| time(list, "next_update")) else { return };
    let is_closed = known.get("closed") == Some(&Value::Bool(true));
    match next {
        next if next > now => findings.add("CRL", State::Ok, format!("that of {name} is good until {next}")),
        next if is_closed => {
            let what = format!("that of {name} was good until {next}: nobody gets in by its certificates");
            findings.add("CRL", State::Fail, what);
        }
        next => {
            findings.add("CRL", State::Warn, format!("that of {name} was good until {next}, and goes on"))
        }
    }
}

async fn profiles(client: &Client, findings: &mut Findings) -> anyhow::Result<()> {
    let profiles = client.list(&client.own("/profiles"), "", PageArgs::default()).await?;
    if !profiles.iter().any(|profile| profile.get("default") == Some(&Value::Bool(true))) {
        findings.add("profiles", State::Warn, "the default profile is missing; see est.default_profile");
    }
    for profile in profiles.iter().filter(|profile| profile.get("effective").is_none_or(Value::is_null)) {
        let label = cell(profile.get("label"));
        findings.add(
            "profiles",
            State::Fail,
            format!("{label} can't be used; run `muster profile set {label}`"),
        );
    }
    Ok(())
}

/// Whether the file that operators hand out still holds what clients should trust.
async fn trust(client: &Client, dir: &DataDir, findings: &mut Findings) -> anyhow::Result<()> {
    let roots = client.get(&client.own("/roots")).await?;
    let roots = roots.get("pem").and_then(Value::as_str).unwrap_or_default();
    let path = dir.ca_file();
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    if !path.exists() {
        // A backup leaves out what follows from the rest.
        findings.add("trust", State::Ok, format!("{} is written when the server starts", path.display()));
    } else if same_certificates(&file, roots) {
        findings.add("trust", State::Ok, format!("{} holds the account's roots", path.display()));
    } else {
        let message = format!("{} differs from `muster ca export`; write it anew from that", path.display());
        findings.add("trust", State::Warn, message);
    }
    Ok(())
}

/// Line ends and order don't matter.
fn same_certificates(left: &str, right: &str) -> bool {
    let ders = |text: &str| {
        let mut ders: Vec<Vec<u8>> =
            pem::parse_many(text).unwrap_or_default().into_iter().map(pem::Pem::into_contents).collect();
        ders.sort_unstable();
        ders
    };
    ders(left) == ders(right)
}

fn time(object: &Value, name: &str) -> Option<UnixTime> {
    UnixTime::parse_rfc3339(object.get(name)?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_certificate_is_warned_of_before_its_end() {
        let now = UnixTime::from_secs(1_800_000_000);
        let after = |days: u64| life(now.plus(Duration::from_secs(days * 86_400)), now);
        assert_eq!((after(13), after(15)), (State::Warn, State::Ok));
        assert_eq!(life(now.minus(Duration::from_secs(1)), now), State::Fail);
    }
}
