//! `muster-agent enroll`: the first certificate, with somebody watching.
//!
//! Interrupted or put off it loses nothing: key and request are in the store, and the same command goes on
//! with them. Afterwards the folder has all that `run` needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use muster_proto::enrollment::{Identity as DeviceId, Slot, Window};
use muster_proto::time::UnixTime;
use muster_proto::x509::Certificate;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::EnrollArgs;
use super::attend::{PACE, until_adopted};
use super::describe::{Described, date};
use super::print;
use crate::clock::Clock;
use crate::config::{Config, CredentialSection, FILE_NAME, ServerSection, base_of};
use crate::enroll::{Device, Ground, SLOTS, key};
use crate::identity::{self, Identity};
use crate::settings::{Proof, ServerUrl, Settings, TrustRoots, Wrong, identity_from_files};
use crate::status::Status;
use crate::store::files::{self, Durability};
use crate::store::{Content, Found, Kept, KeptPair, Key, Store, StoreError};

pub(super) async fn enroll(args: &EnrollArgs) -> anyhow::Result<()> {
    let settings = settings(args)?;
    let existing = existing(args)?;
    let config_path = args.config.clone().unwrap_or_else(|| settings.dir.join(FILE_NAME));
    check_config(&config_path, &settings)?;
    let store = Arc::new(Store::open(&settings.dir)?);
    let clock = Clock::start();
    check_unheld(&store, &settings, clock.wall(), args.replace)?;
    // Before the certificate: whoever is interrupted after it must find all that `run` needs.
    let made = write_config(args, &settings, &config_path)?;
    let displaced = match &existing {
        Some(content) => Some(take_over(&store, content)?),
        None => keep_one(&store, clock.wall()).map(|()| None)?,
    };
    eprintln!("enrolling {} at {}", settings.device, settings.server);
    let mut ground = Ground::new(&settings);
    let (publisher, _) = identity::channel();
    let mut device = Device::start(&mut ground, Arc::clone(&store), clock, publisher)?;
    if existing.is_some() {
        device.renew_now();
    } else if args.replace {
        device.enroll_anew()?;
    }
    let adopted = until_adopted(&mut device, args.timeout).await;
    device.finish().await;
    let identity = match adopted {
        Ok(identity) => identity,
        Err(error) => {
            if let Some(displaced) = displaced {
                give_back(&store, displaced)?;
            }
            // They may name the wrong server and CA; the next try writes its own.
            made.iter().try_for_each(|path| files::remove(path))?;
            return Err(error);
        }
    };
    write_trust(&settings)?;
    Status::succeeded(&settings.dir);
    tell(args, &identity, &config_path)
}

fn settings(args: &EnrollArgs) -> Result<Settings, Wrong> {
    if DeviceId::new(&args.device, None).is_err() {
        return Err(Wrong(format!(
            "--device `{}` must have 1 to 64 characters out of A-Z a-z 0-9 . _ -",
            args.device
        )));
    }
    let trust = match (&args.ca, &args.ca_sha256) {
        (Some(file), _) => TrustRoots::from_file(file)?,
        (None, sha256) => TrustRoots::from_sha256(sha256.as_deref().unwrap_or_default())?,
    };
    Ok(Settings {
        server: ServerUrl::parse(&args.server, args.label.as_deref())?,
        device: args.device.clone(),
        dir: args.dir.clone(),
        trust,
        credential: credential(args)?,
        pace: PACE,
    })
}

/// What is named on the command line counts more than the environment.
fn credential(args: &EnrollArgs) -> Result<Option<Proof>, Wrong> {
    if args.existing_cert.is_some() {
        return Ok(None);
    }
    let token = match (&args.token_file, &args.token) {
        (Some(file), _) => Some(Proof::from_token_file(file)?),
        (None, Some(token)) => Some(Proof::Token(Zeroizing::new(token.trim().to_owned()))),
        (None, None) => None,
    };
    let proof = match (&args.idevid_cert, &args.idevid_key) {
        (Some(certificate), Some(key)) => Some(Proof::from_manufacturer(certificate, key)?.joined(token)),
        _ => token,
    };
    proof.map(Some).ok_or_else(|| {
        Wrong(
            "a credential is missing: --token-file, --idevid-cert with --idevid-key, or --existing-cert with \
             --existing-key; `muster token new` on the server makes a token"
                .to_owned(),
        )
    })
}

/// The identity to take over, as an identity that is due for renewal.
fn existing(args: &EnrollArgs) -> Result<Option<Content>, Wrong> {
    let (Some(certificate), Some(key_file)) = (&args.existing_cert, &args.existing_key) else {
        return Ok(None);
    };
    let identity = identity_from_files(certificate, key_file)?;
    if identity.device != args.device {
        return Err(Wrong(format!(
            "the certificate belongs to device `{}`, not to `{}`",
            identity.device, args.device
        )));
    }
    let leaf = identity.chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
    let leaf = leaf.ok_or_else(|| Wrong(format!("{} is not a certificate", certificate.display())))?;
    let validity = leaf.validity;
    let window = Window::new(validity.not_before, validity.not_after, validity.not_after)
        .ok_or_else(|| Wrong("the certificate expires before it becomes valid".to_owned()))?;
    let key = key::adopt(&identity.key)
        .ok_or_else(|| Wrong(format!("the key in {} is of an unknown kind", key_file.display())))?;
    let pair = KeptPair {
        generation: 0,
        chain: identity.chain.iter().flat_map(|der| der.to_vec()).collect(),
        anchor: Vec::new(),
        window,
        saved_at: UnixTime::default(),
    };
    Ok(Some(Content { key, record: Some(Kept::Pair(pair)) }))
}

/// A configuration that is there must be about the same, or `run` would go on with something else.
fn check_config(path: &Path, settings: &Settings) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let config = Config::read(path)?;
    let server = ServerUrl::parse(&config.server.url, None)?;
    if config.device != settings.device || server != settings.server {
        bail!(
            "{} is for {} at {server}; choose another --dir, or remove that file",
            path.display(),
            config.device
        );
    }
    let dir = config.dir_at(path);
    if !same(&dir, &settings.dir) {
        bail!(
            "{} keeps its keys in {}; name that as --dir, or remove that file",
            path.display(),
            dir.display()
        );
    }
    // The file of earlier CA certificates is written again, once a server has proven itself by the new ones.
    let trust_file = settings.dir.join(TRUST_FILE);
    let names_it = |file: &PathBuf| same(&base_of(path).join(file), &trust_file);
    let is_ours =
        config.server.ca_file.as_ref().is_some_and(names_it) && settings.trust.fingerprint().is_none();
    if !is_ours && config.trust_at(path)? != settings.trust {
        bail!(
            "{} names a different CA to trust (ca_file, ca_sha256); name the same here, or change it there first",
            path.display()
        );
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> bool {
    std::path::absolute(a).ok() == std::path::absolute(b).ok()
}

/// Enrolling over a certificate that still holds would throw it away for nothing.
fn check_unheld(store: &Store, settings: &Settings, now: UnixTime, replace: bool) -> anyhow::Result<()> {
    for (_, _, pair) in held(store)? {
        let leaf = muster_proto::x509::Bundle::new(&pair.chain).first();
        let device = leaf.ok().and_then(|leaf| leaf.common_name()).unwrap_or_default();
        if device != settings.device {
            bail!("{} belongs to device `{device}`; choose another --dir", store.dir().display());
        }
        if pair.window.expires_at() > now && !replace {
            bail!(
                "{} holds a certificate for `{device}` until {}; use `muster-agent renew --dir {}`, or --replace, \
                 or another --dir",
                store.dir().display(),
                date(pair.window.expires_at()),
                store.dir().display()
            );
        }
    }
    Ok(())
}

/// An identity in its slot, with its key.
type Held = (Slot, Key, KeptPair);

fn held(store: &Store) -> Result<Vec<Held>, StoreError> {
    let mut held = Vec::new();
    for slot in SLOTS {
        if let Found::Whole(Content { key, record: Some(Kept::Pair(pair)) }) =
            crate::store::look(store.dir(), slot)?
        {
            held.push((slot, key, pair));
        }
    }
    Ok(held)
}

/// Leaves one identity to begin from. Of two, the newer waits to be tried: it would be taken into use unseen, and
/// the one that works would be lost whether or not anything comes of this.
fn keep_one(store: &Store, now: UnixTime) -> Result<(), StoreError> {
    let mut held = held(store)?;
    held.sort_by_key(|(_, _, pair)| pair.generation);
    if let [(older_slot, _, older), (newer_slot, ..)] = held.as_slice() {
        let is_older_over = older.window.expires_at() <= now;
        store.clear(if is_older_over { *older_slot } else { *newer_slot })?;
    }
    Ok(())
}

/// Puts the identity to take over in the place of those that are held, and returns these: an older one beside it
/// would pass for its successor.
fn take_over(store: &Store, existing: &Content) -> Result<Vec<Held>, StoreError> {
    let displaced = held(store)?;
    for (slot, ..) in &displaced {
        store.clear(*slot)?;
    }
    store.put(Slot::A, existing)?;
    Ok(displaced)
}

/// Nothing came of taking over: all is as before, but that the request stays where there is room, for another try.
fn give_back(store: &Store, displaced: Vec<Held>) -> Result<(), StoreError> {
    store.clear(Slot::A)?;
    for (slot, key, pair) in displaced {
        store.put(slot, &Content { key, record: Some(Kept::Pair(pair)) })?;
    }
    Ok(())
}

/// Writes the CA certificates that the server proved itself by.
fn write_trust(settings: &Settings) -> anyhow::Result<()> {
    let TrustRoots::Certificates(certificates) = &settings.trust else { return Ok(()) };
    let text: String = certificates.iter().map(|der| crate::store::armoured("CERTIFICATE", der)).collect();
    let path = settings.dir.join(TRUST_FILE);
    files::replace(&path, text.as_bytes(), Durability::Durable)
        .with_context(|| format!("{} could not be written", path.display()))
}

/// Writes what `run` needs and is not there, and returns which files that were. A configuration that was there
/// stays: people edit it. So do CA certificates: an identity may be held that is renewed by them.
fn write_config(args: &EnrollArgs, settings: &Settings, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let trust = settings.dir.join(TRUST_FILE);
    if !trust.exists() {
        write_trust(settings)?;
        made.push(trust);
    }
    if path.exists() {
        return Ok(made);
    }
    let failed = || format!("{} could not be written", path.display());
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Beside the keys the configuration names nothing: the folder can be moved.
    let dir = args.config.is_some().then(|| absolute(&settings.dir));
    let config = Config {
        device: settings.device.clone(),
        server: ServerSection {
            url: settings.server.to_string(),
            ca_file: args
                .ca
                .is_some()
                .then(|| dir.as_ref().map_or_else(|| TRUST_FILE.into(), |dir| dir.join(TRUST_FILE))),
            ca_sha256: args.ca_sha256.clone(),
        },
        dir,
        relay: Vec::new(),
        telemetry: None,
        credential: args.idevid_cert.as_ref().map(|certificate| CredentialSection {
            token_file: None,
            idevid_cert: Some(absolute(certificate)),
            idevid_key: args.idevid_key.as_deref().map(absolute),
        }),
        pace: Default::default(),
        log: Default::default(),
    };
    let text = toml::to_string(&config).with_context(failed)?;
    match &args.config {
        None => files::replace(path, text.as_bytes(), Durability::Durable).with_context(failed)?,
        Some(_) => files::publish(path, text.as_bytes()).with_context(failed)?,
    }
    made.push(path.to_owned());
    Ok(made)
}

fn tell(args: &EnrollArgs, identity: &Identity, config: &Path) -> anyhow::Result<()> {
    let described = identity.chain.first().and_then(|leaf| Described::new(leaf));
    let described = described.context("the new certificate can't be read")?;
    if args.json {
        let mut told = serde_json::to_value(&described)?;
        if let Some(fields) = told.as_object_mut() {
            fields.insert("dir".to_owned(), json!(args.dir));
            fields.insert("config".to_owned(), json!(config));
        }
        print(&told.to_string())?;
    } else {
        print(&format!(
            "{} has a certificate until {}\nkeep it renewed: muster-agent run --config {}",
            described.device,
            described.expires_at,
            config.display()
        ))?;
    }
    Ok(())
}

/// The CA certificates that were given at enrollment.
const TRUST_FILE: &str = "trust.pem";
