//! The factory partition: what one device has been told, written once on the bench by `muster factory`.
//!
//! Two blocks, each at the beginning of a flash page of its own: the settings, and the token that enrolls the device
//! the first time. The token has its own page so that it can be erased without rewriting anything else.
//! A block is a header of 16 bytes (magic, version, length, CRC-32), then fields of tag, length and value; all
//! numbers are little-endian. A field whose tag has the top bit set may be passed over by firmware that does not
//! know it; another unknown one refuses the block, because it may change the meaning of the rest.

use core::net::Ipv4Addr;

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use heapless::Vec;
use muster_proto::enrollment::Identity;
use muster_proto::est::{Credential, Server};

/// The settings of one device, checked.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Who it is.
    pub identity: Identity<'a>,
    /// Where it enrolls.
    pub est: Server<'a>,
    /// Whom it trusts.
    pub trust: TrustSetting<'a>,
    /// The broker, if it has one.
    pub mqtt: Option<Endpoint<'a>>,
    /// What all its topics begin with; ends with a slash.
    pub prefix: &'a str,
    /// The HTTPS service, if it has one.
    pub https: Option<Endpoint<'a>>,
    /// The path that it asks and posts to.
    pub path: &'a str,
    /// How it gets its address.
    pub address: Addressing,
    /// Names that are known without asking.
    pub hosts: Vec<(&'a str, Ipv4Addr), MAX_HOSTS>,
    /// Seconds between two reports of its status.
    pub report_every_s: u32,
    /// The wireless network to join: name and passphrase.
    pub wifi: Option<(&'a str, &'a str)>,
    /// The access point of a cellular network.
    pub apn: Option<&'a str>,
}

/// Where trust begins.
#[derive(Clone, Debug)]
pub enum TrustSetting<'a> {
    /// CA certificates in DER.
    Certificates(Vec<&'a [u8], MAX_ANCHORS>),
    /// SHA-256 of one.
    Fingerprint([u8; 32]),
}

/// A TLS server of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// Its name, in its certificate too.
    pub host: &'a str,
    /// Its TCP port.
    pub port: u16,
}

/// How a device gets its IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// By DHCP.
    Dhcp,
    /// It was told.
    Static {
        /// Its own.
        address: Ipv4Addr,
        /// Length of the network's prefix.
        prefix: u8,
        /// The router.
        gateway: Ipv4Addr,
        /// The name server.
        dns: Ipv4Addr,
    },
}

impl<'a> Settings<'a> {
    /// Reads the settings block at the beginning of `bytes`.
    ///
    /// # Errors
    /// [`BadBlock`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadBlock> {
        let mut raw = Raw::default();
        for field in Fields(body(bytes, SETTINGS_MAGIC)?) {
            let (tag, value) = field?;
            raw.take(tag, value)?;
        }
        raw.check()
    }
}

/// Reads the token block at the beginning of `bytes`.
///
/// # Errors
/// [`BadBlock`]; [`BadBlock::Absent`] is the usual state of an enrolled device.
pub fn parse_token(bytes: &[u8]) -> Result<&str, BadBlock> {
    let mut token = None;
    for field in Fields(body(bytes, TOKEN_MAGIC)?) {
        match field? {
            (tag::TOKEN, value) => token = Some(text(value)?),
            (tag, _) => skip(tag)?,
        }
    }
    token.filter(|token| !token.is_empty()).ok_or(BadBlock::Missing(tag::TOKEN))
}

/// The device id and its token as EST takes them.
#[must_use]
pub fn credential<'a>(settings: &Settings<'a>, token: &'a str) -> Option<Credential<'a>> {
    Credential::basic(settings.identity.device(), token).ok()
}

/// The fields as they are found.
#[derive(Default)]
struct Raw<'a> {
    device: Option<&'a str>,
    est_host: Option<&'a str>,
    est_port: Option<u16>,
    est_label: Option<&'a str>,
    anchors: Vec<&'a [u8], MAX_ANCHORS>,
    fingerprint: Option<[u8; 32]>,
    mqtt_host: Option<&'a str>,
    mqtt_port: Option<u16>,
    prefix: Option<&'a str>,
    https_host: Option<&'a str>,
    https_port: Option<u16>,
    path: Option<&'a str>,
    address: Option<Addressing>,
    hosts: Vec<(&'a str, Ipv4Addr), MAX_HOSTS>,
    report_every_s: Option<u32>,
    ssid: Option<&'a str>,
    passphrase: Option<&'a str>,
    apn: Option<&'a str>,
}

impl<'a> Raw<'a> {
    fn take(&mut self, tag: u8, value: &'a [u8]) -> Result<(), BadBlock> {
        match tag {
            tag::DEVICE => self.device = Some(text(value)?),
            tag::EST_HOST => self.est_host = Some(text(value)?),
            tag::EST_PORT => self.est_port = Some(number(value)?),
            tag::EST_LABEL => self.est_label = Some(text(value)?),
            tag::ANCHOR => self.anchors.push(value).map_err(|_| BadBlock::TooMany(tag))?,
            tag::FINGERPRINT => {
                self.fingerprint = Some(value.try_into().map_err(|_| BadBlock::Value(tag))?);
            }
            tag::MQTT_HOST => self.mqtt_host = Some(text(value)?),
            tag::MQTT_PORT => self.mqtt_port = Some(number(value)?),
            tag::PREFIX => self.prefix = Some(text(value)?),
            tag::HTTPS_HOST => self.https_host = Some(text(value)?),
            tag::HTTPS_PORT => self.https_port = Some(number(value)?),
            tag::PATH => self.path = Some(text(value)?),
            tag::ADDRESS => self.address = Some(address(value)?),
            tag::HOST => self.hosts.push(host(value)?).map_err(|_| BadBlock::TooMany(tag))?,
            tag::REPORT_EVERY => {
                let bytes = value.try_into().map_err(|_| BadBlock::Value(tag))?;
                self.report_every_s = Some(u32::from_le_bytes(bytes));
            }
            tag::SSID => self.ssid = Some(text(value)?),
            tag::PASSPHRASE => self.passphrase = Some(text(value)?),
            tag::APN => self.apn = Some(text(value)?),
            tag => skip(tag)?,
        }
        Ok(())
    }

    fn check(self) -> Result<Settings<'a>, BadBlock> {
        let device = self.device.ok_or(BadBlock::Missing(tag::DEVICE))?;
        let est_host = self.est_host.ok_or(BadBlock::Missing(tag::EST_HOST))?;
        let est_port = self.est_port.ok_or(BadBlock::Missing(tag::EST_PORT))?;
        let trust = match self.fingerprint {
            Some(fingerprint) => TrustSetting::Fingerprint(fingerprint),
            None if self.anchors.is_empty() => return Err(BadBlock::Missing(tag::ANCHOR)),
            None => TrustSetting::Certificates(self.anchors),
        };
        let endpoint = |host: Option<&'a str>, port: Option<u16>| Some(Endpoint { host: host?, port: port? });
        let prefix = self.prefix.unwrap_or_default();
        if self.mqtt_host.is_some() && (!prefix.ends_with('/') || prefix.len() > MAX_PREFIX_BYTES) {
            return Err(BadBlock::Value(tag::PREFIX));
        }
        let path = self.path.unwrap_or("/");
        // It goes into a request head.
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadBlock::Value(tag::PATH));
        }
        Ok(Settings {
            identity: Identity::new(device, None).map_err(|_| BadBlock::Value(tag::DEVICE))?,
            est: Server::new(est_host, est_port, self.est_label)
                .map_err(|_| BadBlock::Value(tag::EST_HOST))?,
            trust,
            mqtt: endpoint(self.mqtt_host, self.mqtt_port),
            prefix,
            https: endpoint(self.https_host, self.https_port),
            path,
            address: self.address.unwrap_or(Addressing::Dhcp),
            hosts: self.hosts,
            report_every_s: self.report_every_s.unwrap_or(DEFAULT_REPORT_EVERY_S).max(1),
            wifi: self.ssid.map(|ssid| (ssid, self.passphrase.unwrap_or_default())),
            apn: self.apn,
        })
    }
}

/// The body of a block whose header is sound.
fn body<'a>(bytes: &'a [u8], magic: &[u8; 4]) -> Result<&'a [u8], BadBlock> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(BadBlock::Cut)?;
    let [m0, m1, m2, m3, v0, v1, _, _, l0, l1, l2, l3, c0, c1, c2, c3] = *header else {
        return Err(BadBlock::Cut);
    };
    if [m0, m1, m2, m3] != *magic {
        return Err(BadBlock::Absent);
    }
    if u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(BadBlock::Version);
    }
    let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(|_| BadBlock::Cut)?;
    let body = rest.get(..len).ok_or(BadBlock::Cut)?;
    let mut digest = CRC.digest();
    digest.update(header.get(..CRC_OFFSET).unwrap_or_default());
    digest.update(body);
    if digest.finalize() != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(BadBlock::Crc);
    }
    Ok(body)
}

/// Fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), BadBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let taken = self.0.split_first_chunk().and_then(|(&[tag, low, high], rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
            self.0 = rest;
            Some((tag, value))
        });
        if taken.is_none() {
            self.0 = &[];
        }
        Some(taken.ok_or(BadBlock::Cut))
    }
}

fn text(value: &[u8]) -> Result<&str, BadBlock> {
    core::str::from_utf8(value).map_err(|_| BadBlock::Text)
}

fn number(value: &[u8]) -> Result<u16, BadBlock> {
    value.try_into().map(u16::from_le_bytes).map_err(|_| BadBlock::Cut)
}

fn address(value: &[u8]) -> Result<Addressing, BadBlock> {
    let &[a, b, c, d, prefix @ 0..=32, g0, g1, g2, g3, d0, d1, d2, d3] = value else {
        return Err(BadBlock::Value(tag::ADDRESS));
    };
    Ok(Addressing::Static {
        address: Ipv4Addr::new(a, b, c, d),
        prefix,
        gateway: Ipv4Addr::new(g0, g1, g2, g3),
        dns: Ipv4Addr::new(d0, d1, d2, d3),
    })
}

fn host(value: &[u8]) -> Result<(&str, Ipv4Addr), BadBlock> {
    let (&[a, b, c, d], name) = value.split_first_chunk().ok_or(BadBlock::Value(tag::HOST))?;
    Ok((text(name)?, Ipv4Addr::new(a, b, c, d)))
}

const fn skip(tag: u8) -> Result<(), BadBlock> {
    if tag & MAY_BE_SKIPPED == 0 { Err(BadBlock::Unknown(tag)) } else { Ok(()) }
}

/// Why a block is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBlock {
    /// There is no block: the page is blank, or was erased.
    Absent,
    /// The check value is wrong: the page was damaged, or its erasure was cut short.
    Crc,
    /// A length leads past the end.
    Cut,
    /// A field that must be there is not.
    Missing(u8),
    /// Not UTF-8.
    Text,
    /// More fields of this tag than there is room for.
    TooMany(u8),
    /// A field that this firmware does not know, and must.
    Unknown(u8),
    /// A field's value is out of its range.
    Value(u8),
    /// Another version of the format.
    Version,
}

/// What each field is. `muster factory` writes the same numbers.
mod tag {
    pub(super) const DEVICE: u8 = 1;
    pub(super) const EST_HOST: u8 = 2;
    pub(super) const EST_PORT: u8 = 3;
    pub(super) const EST_LABEL: u8 = 4;
    pub(super) const ANCHOR: u8 = 5;
    pub(super) const FINGERPRINT: u8 = 6;
    pub(super) const MQTT_HOST: u8 = 7;
    pub(super) const MQTT_PORT: u8 = 8;
    pub(super) const PREFIX: u8 = 9;
    pub(super) const HTTPS_HOST: u8 = 10;
    pub(super) const HTTPS_PORT: u8 = 11;
    pub(super) const PATH: u8 = 12;
    pub(super) const ADDRESS: u8 = 13;
    pub(super) const HOST: u8 = 14;
    pub(super) const REPORT_EVERY: u8 = 15;
    pub(super) const TOKEN: u8 = 32;
    pub(super) const SSID: u8 = 0x80;
    pub(super) const PASSPHRASE: u8 = 0x81;
    pub(super) const APN: u8 = 0x82;
}

/// Longest settings block: two CA certificates of 500 bytes and the rest.
pub const MAX_SETTINGS_BYTES: usize = 1536;
/// Longest token block.
pub const MAX_TOKEN_BYTES: usize = 160;
/// Most trust anchors: the account's root and its successor.
pub const MAX_ANCHORS: usize = 3;
/// Most names that are known without asking.
pub const MAX_HOSTS: usize = 4;
/// As for the agent on Linux.
const MAX_PREFIX_BYTES: usize = 100;
const DEFAULT_REPORT_EVERY_S: u32 = 60;
const SETTINGS_MAGIC: &[u8; 4] = b"MUFS";
const TOKEN_MAGIC: &[u8; 4] = b"MUFT";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
const CRC_OFFSET: usize = 12;
const MAY_BE_SKIPPED: u8 = 0x80;

/// Bit by bit: a table of 1 KiB would be read a few times in a boot.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `muster factory`; the server's tests write the same bytes.
    const SETTINGS: &[u8] = include_bytes!("../testdata/settings.bin");
    const TOKEN: &[u8] = include_bytes!("../testdata/token.bin");

    #[test]
    fn reads_what_the_command_writes() {
        let settings = Settings::parse(SETTINGS).expect("sound");
        assert_eq!(settings.identity.device(), "pump-7");
        assert_eq!(settings.est.port(), 8443);
        assert_eq!(settings.mqtt, Some(Endpoint { host: "mqtt.example.com", port: 8883 }));
        assert_eq!(settings.https, Some(Endpoint { host: "api.example.com", port: 443 }));
        assert_eq!((settings.prefix, settings.path), ("devices/pump-7/", "/telemetry"));
        assert_eq!(settings.hosts.as_slice(), [("est.example.com", Ipv4Addr::new(10, 0, 2, 2))]);
        assert_eq!(settings.wifi, Some(("plant", "secret phrase")));
        assert_eq!(settings.apn, Some("iot.example"));
        let TrustSetting::Certificates(anchors) = &settings.trust else { panic!("certificates") };
        assert_eq!(anchors.len(), 1);
        let dns = Ipv4Addr::new(10, 0, 2, 3);
        let gateway = Ipv4Addr::new(10, 0, 2, 2);
        let address = Ipv4Addr::new(10, 0, 2, 15);
        assert_eq!(settings.address, Addressing::Static { address, prefix: 24, gateway, dns });
        assert_eq!(parse_token(TOKEN), Ok("one-time-token"));
    }

    #[test]
    fn the_corpus_of_the_fuzzer_is_read_or_refused() {
        extern crate std;
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/fuzz/corpus/firmware_factory");
        let (mut good, mut refused) = (0, 0);
        for file in std::fs::read_dir(corpus).expect("there") {
            let path = file.expect("there").path();
            let bytes = std::fs::read(&path).expect("readable");
            let is_read = Settings::parse(&bytes).is_ok() || parse_token(&bytes).is_ok();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(is_read == name.starts_with("good-") || name.starts_with("find-"), "{name}");
            *(if is_read { &mut good } else { &mut refused }) += 1;
        }
        assert!(good > 0 && refused > 0, "{good} good, {refused} refused");
    }

    #[test]
    fn a_changed_or_cut_block_is_never_taken() {
        let mut bytes = [0xff; MAX_SETTINGS_BYTES];
        for at in 0..SETTINGS.len() {
            bytes[..SETTINGS.len()].copy_from_slice(SETTINGS);
            bytes[at] ^= 0x10;
            // Two bytes of the header are reserved, and in the check all the same.
            assert!(Settings::parse(&bytes).is_err(), "byte {at}");
            assert!(Settings::parse(&SETTINGS[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(Settings::parse(&[0xff; 64]).err(), Some(BadBlock::Absent));
        assert_eq!(parse_token(&[0xff; 64]), Err(BadBlock::Absent));
        assert_eq!(parse_token(SETTINGS), Err(BadBlock::Absent));
    }

    fn block(fields: &[(u8, &[u8])], bytes: &mut [u8]) -> usize {
        let mut len = HEADER_BYTES;
        for (tag, value) in fields {
            let length = u16::try_from(value.len()).expect("short").to_le_bytes();
            bytes[len..len + 3].copy_from_slice(&[*tag, length[0], length[1]]);
            bytes[len + 3..len + 3 + value.len()].copy_from_slice(value);
            len += 3 + value.len();
        }
        let (header, body) = bytes.split_at_mut(HEADER_BYTES);
        header.fill(0);
        header[..4].copy_from_slice(TOKEN_MAGIC);
        header[4] = 1;
        let body_len = len - HEADER_BYTES;
        header[8..12].copy_from_slice(&u32::try_from(body_len).expect("short").to_le_bytes());
        let mut digest = CRC.digest();
        digest.update(&header[..CRC_OFFSET]);
        digest.update(&body[..body_len]);
        header[12..].copy_from_slice(&digest.finalize().to_le_bytes());
        len
    }

    #[test]
    fn unknown_fields_are_passed_over_only_if_they_say_that_they_may_be() {
        let mut bytes = [0; 128];
        let len = block(&[(0xf0, b"later"), (tag::TOKEN, b"t")], &mut bytes);
        assert_eq!(parse_token(&bytes[..len]), Ok("t"));
        let len = block(&[(0x70, b"later"), (tag::TOKEN, b"t")], &mut bytes);
        assert_eq!(parse_token(&bytes[..len]), Err(BadBlock::Unknown(0x70)));
        let len = block(&[], &mut bytes);
        assert_eq!(parse_token(&bytes[..len]), Err(BadBlock::Missing(tag::TOKEN)));
    }
}
