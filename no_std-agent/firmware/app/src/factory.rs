//! The factory partition: what one device has been told, written once on the bench by `muster factory`.
//!
//! Two blocks, each at the beginning of a flash page of its own: the settings, and the token that enrolls the device
//! the first time. The token has its own page so that it can be erased without rewriting anything else.
//! A block is a header of 16 bytes (magic, version, length, CRC-32), then fields of tag, length and value; all
//! numbers are little-endian. A field whose tag has the top bit set may be passed over by firmware that does not
//! know it; another unknown one refuses the block, because it may change the meaning of the rest.

use core::fmt;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

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
    // Apart: what is made here is large, and goes from here straight to its place.
    #[inline(never)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadBlock> {
        let fields = Fields::open(bytes, SETTINGS_MAGIC, tag::DEVICE..=tag::REPORT_EVERY)?;
        let mqtt = fields.endpoint(tag::MQTT_HOST, tag::MQTT_PORT)?;
        let prefix = fields.text(tag::PREFIX)?.unwrap_or_default();
        if mqtt.is_some() && (!prefix.ends_with('/') || prefix.len() > MAX_PREFIX_BYTES) {
            return Err(BadBlock::Value(tag::PREFIX));
        }
        let path = fields.text(tag::PATH)?.unwrap_or("/");
        // It goes into a request head.
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadBlock::Value(tag::PATH));
        }
        let ssid = fields.text(tag::SSID)?;
        let passphrase = fields.text(tag::PASSPHRASE)?.unwrap_or_default();
        let report_every_s = fields.find(tag::REPORT_EVERY).map(|value| fixed(value, tag::REPORT_EVERY));
        Ok(Settings {
            identity: Identity::new(fields.needed(tag::DEVICE)?, None)
                .map_err(|_| BadBlock::Value(tag::DEVICE))?,
            est: fields.est()?,
            trust: fields.trust()?,
            mqtt,
            prefix,
            https: fields.endpoint(tag::HTTPS_HOST, tag::HTTPS_PORT)?,
            path,
            address: fields.find(tag::ADDRESS).map_or(Ok(Addressing::Dhcp), address)?,
            hosts: fields.hosts()?,
            report_every_s: report_every_s
                .transpose()?
                .map_or(DEFAULT_REPORT_EVERY_S, u32::from_le_bytes)
                .max(1),
            wifi: ssid.map(|ssid| (ssid, passphrase)),
            apn: fields.text(tag::APN)?,
        })
    }
}

/// Reads the token block at the beginning of `bytes`.
///
/// # Errors
/// [`BadBlock`]; [`BadBlock::Absent`] is the usual state of an enrolled device.
pub fn parse_token(bytes: &[u8]) -> Result<&str, BadBlock> {
    let token = Fields::open(bytes, TOKEN_MAGIC, tag::TOKEN..=tag::TOKEN)?.needed(tag::TOKEN)?;
    if token.is_empty() { Err(BadBlock::Missing(tag::TOKEN)) } else { Ok(token) }
}

/// The device id and its token as EST takes them.
#[must_use]
pub fn credential<'a>(settings: &Settings<'a>, token: &'a str) -> Option<Credential<'a>> {
    Credential::basic(settings.identity.device(), token).ok()
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

/// The fields of a block that is sound and says nothing that must be known and is not. Each is looked up when it is
/// wanted: there are few, and what is found need not be kept. Of two with one tag the last one counts.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn open(bytes: &'a [u8], magic: &[u8; 4], known: RangeInclusive<u8>) -> Result<Self, BadBlock> {
        let fields = Self(body(bytes, magic)?);
        let mut rest = fields;
        for (tag, _) in rest.by_ref() {
            if tag & MAY_BE_SKIPPED == 0 && !known.contains(&tag) {
                return Err(BadBlock::Unknown(tag));
            }
        }
        if rest.0.is_empty() { Ok(fields) } else { Err(BadBlock::Cut) }
    }

    fn all(self, tag: u8) -> impl Iterator<Item = &'a [u8]> {
        self.filter_map(move |(found, value)| (found == tag).then_some(value))
    }

    #[inline(never)]
    fn find(self, tag: u8) -> Option<&'a [u8]> {
        self.all(tag).last()
    }

    #[inline(never)]
    fn text(self, tag: u8) -> Result<Option<&'a str>, BadBlock> {
        self.find(tag).map(text).transpose()
    }

    fn needed(self, tag: u8) -> Result<&'a str, BadBlock> {
        self.text(tag)?.ok_or(BadBlock::Missing(tag))
    }

    fn port(self, tag: u8) -> Result<Option<u16>, BadBlock> {
        self.find(tag).map(|value| fixed(value, tag).map(u16::from_le_bytes)).transpose()
    }

    #[inline(never)]
    fn endpoint(self, host: u8, port: u8) -> Result<Option<Endpoint<'a>>, BadBlock> {
        let (host, port) = (self.text(host)?, self.port(port)?);
        Ok(host.zip(port).map(|(host, port)| Endpoint { host, port }))
    }

    fn est(self) -> Result<Server<'a>, BadBlock> {
        let host = self.needed(tag::EST_HOST)?;
        let port = self.port(tag::EST_PORT)?.ok_or(BadBlock::Missing(tag::EST_PORT))?;
        Server::without_ipv6(host, port, self.text(tag::EST_LABEL)?)
            .map_err(|_| BadBlock::Value(tag::EST_HOST))
    }

    fn trust(self) -> Result<TrustSetting<'a>, BadBlock> {
        if let Some(fingerprint) = self.find(tag::FINGERPRINT) {
            return fixed(fingerprint, tag::FINGERPRINT).map(TrustSetting::Fingerprint);
        }
        let mut anchors = Vec::new();
        for anchor in self.all(tag::ANCHOR) {
            anchors.push(anchor).map_err(|_| BadBlock::TooMany(tag::ANCHOR))?;
        }
        if anchors.is_empty() {
            return Err(BadBlock::Missing(tag::ANCHOR));
        }
        Ok(TrustSetting::Certificates(anchors))
    }

    fn hosts(self) -> Result<Vec<(&'a str, Ipv4Addr), MAX_HOSTS>, BadBlock> {
        let mut hosts = Vec::new();
        for value in self.all(tag::HOST) {
            hosts.push(host(value)?).map_err(|_| BadBlock::TooMany(tag::HOST))?;
        }
        Ok(hosts)
    }
}

/// Ends at the end, or before a field that is not all there.
impl<'a> Iterator for Fields<'a> {
    type Item = (u8, &'a [u8]);

    // Once in the image.
    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, low, high], rest) = self.0.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        self.0 = rest;
        Some((tag, value))
    }
}

fn text(value: &[u8]) -> Result<&str, BadBlock> {
    core::str::from_utf8(value).map_err(|_| BadBlock::Text)
}

fn fixed<const N: usize>(value: &[u8], tag: u8) -> Result<[u8; N], BadBlock> {
    value.try_into().map_err(|_| BadBlock::Value(tag))
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

/// Why a block is not taken.
#[derive(Clone, Copy, PartialEq, Eq)]
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

/// By hand: what the derived one calls is large, and nobody else in an image calls it.
impl fmt::Debug for BadBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, tag) = match self {
            Self::Absent => ("Absent", None),
            Self::Crc => ("Crc", None),
            Self::Cut => ("Cut", None),
            Self::Missing(tag) => ("Missing", Some(tag)),
            Self::Text => ("Text", None),
            Self::TooMany(tag) => ("TooMany", Some(tag)),
            Self::Unknown(tag) => ("Unknown", Some(tag)),
            Self::Value(tag) => ("Value", Some(tag)),
            Self::Version => ("Version", None),
        };
        f.write_str(word)?;
        match tag {
            Some(tag) => write!(f, "({tag})"),
            None => Ok(()),
        }
    }
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
    extern crate std;

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
        let mut body = std::vec::Vec::new();
        for (tag, value) in fields {
            body.push(*tag);
            body.extend_from_slice(&u16::try_from(value.len()).expect("short").to_le_bytes());
            body.extend_from_slice(value);
        }
        raw_block(&body, bytes)
    }

    fn raw_block(fields: &[u8], bytes: &mut [u8]) -> usize {
        let len = HEADER_BYTES + fields.len();
        bytes[HEADER_BYTES..len].copy_from_slice(fields);
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
    fn a_field_that_leads_past_the_end_refuses_the_block_whatever_was_before() {
        let mut bytes = [0; 128];
        for value in [&b"\x20\x01"[..], b"\x20\x09\x00t"] {
            let fields = [b"\x20\x01\x00t", value].concat();
            let len = raw_block(&fields, &mut bytes);
            assert_eq!(parse_token(&bytes[..len]), Err(BadBlock::Cut));
        }
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
