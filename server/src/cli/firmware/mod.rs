//! Devices with Muster's firmware: what the factory writes to each, and writing it.
//!
//! `factory` mints a token for each device of a list and writes its provisioning image; `flash` puts firmware and
//! image on a board, or boots the board in the emulator. One firmware serves all devices: only the image differs.

mod block;
mod check;
mod image;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use http::Method;
use muster_policy::name::DeviceId;
use serde_json::json;

use self::block::{Settings, StaticAddress, check_settings_block, token_block};
use self::check::endpoint;
use super::args::{Board, FactoryArgs, FlashArgs};
use super::client::Client;
use super::device_csv;
use super::manage::is_missing;
use super::print::Printer;
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
    let common = Common::read(dir, &args)?;
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
    fs::create_dir_all(&args.out).with_context(|| format!("can't make {}", args.out.display()))?;
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
    let done = json!({ "devices": written, "folder": args.out, "board": args.board.to_string() });
    out.done(&done, &format!("Wrote images for {} devices to {folder}; each holds a token", written.len()))
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
        known.with_context(|| format!("{} is not overwritten; move it away", path.display()))?;
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
    let facts = board.facts();
    let partition = image::partition(settings, token, facts.page_octets);
    let hex = image::intel_hex(&partition, facts.factory_address);
    let uf2 = image::uf2(&partition, facts.factory_address, facts.uf2_family);
    for (kind, octets) in KINDS.into_iter().zip([&partition[..], hex.as_bytes(), &uf2[..]]) {
        let path = folder.join(format!("{device}.{kind}"));
        write_file(&path, octets, Readers::Owner)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// What all devices of a list are told.
struct Common {
    anchors: Vec<Vec<u8>>,
    address: Option<StaticAddress>,
    wifi: Option<(String, String)>,
}

impl Common {
    fn read(dir: &DataDir, args: &FactoryArgs) -> anyhow::Result<Self> {
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
        Ok(Self { anchors, address, wifi })
    }

    fn settings<'a>(&'a self, args: &'a FactoryArgs, device: &'a str) -> anyhow::Result<Settings<'a>> {
        let https = args.https.as_ref().map(|uri| endpoint(uri, "https", 443)).transpose()?;
        Ok(Settings {
            device,
            est: endpoint(&args.est, "https", 8443)?,
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

/// Puts firmware and image on a board.
pub(super) fn flash(args: &FlashArgs) -> anyhow::Result<()> {
    let device: DeviceId = args.device.parse().with_context(|| format!("`{}`", args.device))?;
    let image = args.images.join(format!("{device}.bin"));
    let octets = fs::read(&image)
        .with_context(|| format!("can't read {}; `muster factory` makes it", image.display()))?;
    check_settings_block(&octets)
        .with_context(|| format!("{} is no image of this version", image.display()))?;
    ensure!(args.firmware.is_file(), "no firmware at {}; build.sh makes it", args.firmware.display());
    emulate(args, &octets, &device)
}

/// Writes the image into the file that is the emulated board's flash, and boots the board.
fn emulate(args: &FlashArgs, partition: &[u8], device: &DeviceId) -> anyhow::Result<()> {
    let flash = args.images.join(format!("{device}.flash"));
    let mut content = match fs::read(&flash) {
        Ok(content) => {
            check_flash(&content)
                .with_context(|| format!("{} is not overwritten; move it away", flash.display()))?;
            content
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![0xff; EMULATED_FLASH_OCTETS],
        Err(error) => return Err(error).with_context(|| format!("can't read {}", flash.display())),
    };
    content.iter_mut().zip(partition).for_each(|(place, octet)| *place = *octet);
    write_file(&flash, &content, Readers::Owner)
        .with_context(|| format!("can't write {}", flash.display()))?;
    if args.no_boot {
        return Ok(());
    }
    let flash = flash.canonicalize()?;
    let flash = flash.to_str().filter(|path| !path.contains([' ', ',']));
    let flash = flash.context("the path of the images must be without blanks and commas")?;
    let status = Command::new(EMULATOR)
        .args(["-machine", &args.board.to_string(), "-nographic", "-monitor", "none", "-serial", "none"])
        .args(["-nic", "user,model=lan9118", "-semihosting-config"])
        .arg(format!("enable=on,target=native,arg=muster,arg=flash={flash}"))
        .arg("-kernel")
        .arg(&args.firmware)
        .status();
    let status = status.with_context(|| format!("can't run {EMULATOR}; install qemu-system-arm"))?;
    ensure!(status.success(), "the board stopped: {status}");
    Ok(())
}

/// Whether a file is the flash of an emulated board, blank or with factory data of this version.
fn check_flash(content: &[u8]) -> anyhow::Result<()> {
    ensure!(content.len() == EMULATED_FLASH_OCTETS, "it is not as long as the flash of this board");
    let is_blank = content.iter().take(EMULATED_PAGE_OCTETS).all(|octet| *octet == 0xff);
    if is_blank { Ok(()) } else { check_settings_block(content) }
}

/// Where things are on a board.
struct Facts {
    /// Where in the flash the factory partition begins.
    factory_address: u32,
    /// The flash's erase unit.
    page_octets: usize,
    /// The family that UF2 loaders look for.
    uf2_family: u32,
}

impl Board {
    const fn facts(self) -> Facts {
        match self {
            // The emulator takes `bin`, and no loader looks at the family.
            Self::Mps2An385 | Self::Mps2An386 => {
                Facts { factory_address: 0, page_octets: EMULATED_PAGE_OCTETS, uf2_family: 0 }
            }
        }
    }
}

/// Factory data, journal and identities: 2 + 2 + 4 pages.
const EMULATED_FLASH_OCTETS: usize = 8 * EMULATED_PAGE_OCTETS;
const EMULATED_PAGE_OCTETS: usize = 4096;
/// The forms of an image, by the ends of their names.
const KINDS: [&str; 3] = ["bin", "hex", "uf2"];
const EMULATOR: &str = "qemu-system-arm";

/// A name and its address, as `--host` takes them.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_host(text: &str) -> Result<(String, Ipv4Addr), String> {
    let parsed =
        text.split_once('=').and_then(|(name, address)| Some((name.to_owned(), address.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not NAME=IPV4"))
}
