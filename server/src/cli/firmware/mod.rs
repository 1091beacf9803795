//! Devices with Muster's firmware: what the factory writes to each, and writing it.
//!
//! `factory` mints a token for each device of a list and writes its provisioning image; `flash` puts firmware and
//! image on a board, or boots the board in the emulator. One firmware serves all devices: only the image differs.

mod block;
mod board;
mod check;
mod elf;
mod flash;
mod image;
/// Where things lie in the flash of each real board; the firmware's own.
#[path = "../../../../no_std-agent/firmware/boards/layout.rs"]
mod layout;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use http::{Method, Uri};
use serde_json::json;

use self::block::{Settings, StaticAddress, token_block};
use self::check::endpoint;
#[cfg(test)]
pub(super) use self::elf::file as elf_file;
pub(super) use self::flash::flash;
use super::args::{Board, FactoryArgs};
use super::client::Client;
use super::device_csv;
use super::manage::is_missing;
use super::print::Printer;
use super::server::configuration;
use crate::datadir::{DataDir, Readers, write_file};

/// Makes the images.
pub(super) async fn factory(
    client: &Client,
    dir: &DataDir,
    args: FactoryArgs,
    out: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let file =
        fs::File::open(&args.devices).with_context(|| format!("can't read {}", args.devices.display()))?;
    let rows = device_csv::read(file).with_context(|| args.devices.display().to_string())?;
    let est = match &args.est {
        Some(given) => given.clone(),
        None => usual_est(client, dir).await?,
    };
    let common = Common::read(dir, &args, est)?;
    // A token is good from when it is made: nothing is minted before all that can be wrong with any device was looked at.
    for row in &rows {
        let device = row.id.to_string();
        let settings = common.settings(&args, &device).and_then(|settings| {
            settings.check()?;
            settings.block()
        });
        settings.with_context(|| format!("line {}: {device}", row.line))?;
        check_unretired(client, &device).await.with_context(|| format!("line {}", row.line))?;
        check_replaceable(&args.out, &device)?;
    }
    fs::create_dir_all(&args.out).with_context(|| format!("can't create {}", args.out.display()))?;
    let mut written = Vec::new();
    for row in &rows {
        let device = row.id.to_string();
        let settings = common.settings(&args, &device)?.block()?;
        let wanted = json!({
            "device": device, "claim": false, "uses": 1, "ttl_s": args.ttl.as_secs(),
            "profile": args.profile, "key_sha256": null,
        });
        let made = client.call(Method::POST, &client.own("/tokens"), Some(&wanted)).await?;
        let token = made.get("token").and_then(|token| token.as_str()).context("the API gave no token")?;
        write_images(&args.out, &device, args.board, &settings, &token_block(token)?)?;
        written.push(device);
    }
    let folder = args.out.display();
    let est = common.est.to_string();
    let est = est.trim_end_matches('/');
    let done = json!({ "devices": written, "folder": args.out, "board": args.board.to_string(), "est": est });
    let count = written.len();
    out.done(&done, &format!("Wrote images for {count} devices of {est} to {folder}; each holds a token"))
}

/// Where devices find EST if nobody says: at names that a certificate made by the services CA has.
async fn usual_est(client: &Client, dir: &DataDir) -> anyhow::Result<Uri> {
    let config = configuration(dir)?;
    let port = config.listen_est.port();
    if let Some(name) = config.est_names.first() {
        return Ok(format!("https://{name}:{port}").parse()?);
    }
    let zones = client.get("/zones").await?;
    match zones.as_array().map(Vec::as_slice) {
        Some([zone]) => {
            let name = zone.get("name").and_then(|name| name.as_str()).context("the API gave no zone")?;
            Ok(format!("https://est.{name}:{port}").parse()?)
        }
        _ => bail!(
            "give --est URL: the account does not have exactly one zone from which to derive the EST server's name"
        ),
    }
}

/// A device that will never get a certificate again gets no token either.
async fn check_unretired(client: &Client, device: &str) -> anyhow::Result<()> {
    match client.get(&client.own(&format!("/devices/{device}"))).await {
        // It is made with its first certificate.
        Err(error) if is_missing(&error) => Ok(()),
        found => {
            let is_retired = found?.get("status").is_some_and(|status| status == "retired");
            ensure!(!is_retired, "the device {device} is retired for good");
            Ok(())
        }
    }
}

/// Images of an earlier run give way to new ones; anything else in their places stays.
fn check_replaceable(folder: &Path, device: &str) -> anyhow::Result<()> {
    for kind in KINDS {
        let path = folder.join(format!("{device}.{kind}"));
        let known = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(error.into()),
            Ok(octets) => image::recognise(kind, &octets),
        };
        known.with_context(|| format!("{} already exists; move it away first", path.display()))?;
    }
    Ok(())
}

/// The three forms. They hold a secret: nobody else may read them.
fn write_images(
    folder: &Path,
    device: &str,
    board: Board,
    settings: &[u8],
    token: &[u8],
) -> anyhow::Result<()> {
    let place = board.place();
    let partition = image::partition(settings, token, place.page_octets);
    let hex = image::intel_hex(&partition, place.factory_address);
    let uf2 = image::uf2(&partition, place.factory_address, place.uf2_family);
    for (kind, octets) in KINDS.into_iter().zip([&partition[..], hex.as_bytes(), &uf2[..]]) {
        let path = folder.join(format!("{device}.{kind}"));
        write_file(&path, octets, Readers::Owner)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// What all devices of a list are told.
struct Common {
    est: Uri,
    anchors: Vec<Vec<u8>>,
    address: Option<StaticAddress>,
    wifi: Option<(String, String)>,
}

impl Common {
    fn read(dir: &DataDir, args: &FactoryArgs, est: Uri) -> anyhow::Result<Self> {
        let path = args.ca.clone().unwrap_or_else(|| dir.ca_file());
        let text = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let anchors = check::anchors(&text).with_context(|| path.display().to_string())?;
        let address = match (args.address.as_deref(), args.gateway, args.dns) {
            (Some(written), Some(gateway), Some(dns)) => Some(static_address(written, gateway, dns)?),
            _ => None,
        };
        let wifi = match (&args.wifi_ssid, &args.wifi_passphrase_file) {
            (Some(ssid), Some(file)) => {
                let phrase =
                    fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
                Some((ssid.clone(), phrase.trim_end_matches(['\r', '\n']).to_owned()))
            }
            (Some(ssid), None) => Some((ssid.clone(), String::new())),
            (None, _) => None,
        };
        Ok(Self { est, anchors, address, wifi })
    }

    fn settings<'a>(&'a self, args: &'a FactoryArgs, device: &'a str) -> anyhow::Result<Settings<'a>> {
        let https = args.https.as_ref().map(|uri| endpoint(uri, "https", 443)).transpose()?;
        Ok(Settings {
            device,
            est: endpoint(&self.est, "https", 8443)?,
            label: args.profile.as_deref(),
            anchors: &self.anchors,
            mqtt: args.mqtt.as_ref().map(|uri| endpoint(uri, "mqtts", 8883)).transpose()?,
            prefix: &args.prefix,
            https,
            path: args.https.as_ref().map_or("/", |uri| uri.path()),
            address: self.address,
            hosts: &args.hosts,
            report_every_s: u32::try_from(args.report_every.as_secs()).unwrap_or(u32::MAX),
            wifi: self.wifi.as_ref().map(|(ssid, phrase)| (ssid.as_str(), phrase.as_str())),
            apn: args.apn.as_deref(),
        })
    }
}

fn static_address(written: &str, gateway: Ipv4Addr, dns: Ipv4Addr) -> anyhow::Result<StaticAddress> {
    let parsed = written.split_once('/').and_then(|(address, prefix)| {
        Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
    });
    let (address, prefix) = parsed.with_context(|| format!("`{written}` is not ADDRESS/PREFIX"))?;
    Ok(StaticAddress { address, prefix, gateway, dns })
}

/// The forms of an image, by the ends of their names.
const KINDS: [&str; 3] = ["bin", "hex", "uf2"];

/// A name and its address, as `--host` takes them.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_host(text: &str) -> Result<(String, Ipv4Addr), String> {
    let parsed =
        text.split_once('=').and_then(|(name, address)| Some((name.to_owned(), address.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not NAME=IPV4"))
}
