//! The blocks of a factory partition, as the firmware reads them (`no_std-agent/firmware/app/src/factory.rs`).
//!
//! A header of 16 octets (magic, version, length, CRC-32), then fields of tag, length and value; all numbers are
//! little-endian. Both sides are tested against the same octets.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail, ensure};
use crc::{CRC_32_ISO_HDLC, Crc};

/// What one device is told.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) device: &'a str,
    pub(super) est: Endpoint<'a>,
    /// The EST label: the profile to ask for.
    pub(super) label: Option<&'a str>,
    /// CA certificates in DER.
    pub(super) anchors: &'a [Vec<u8>],
    pub(super) mqtt: Option<Endpoint<'a>>,
    /// What its topics begin with; `{device}` stands for the device id.
    pub(super) prefix: &'a str,
    pub(super) https: Option<Endpoint<'a>>,
    pub(super) path: &'a str,
    pub(super) address: Option<StaticAddress>,
    pub(super) hosts: &'a [(String, Ipv4Addr)],
    pub(super) report_every_s: u32,
    pub(super) wifi: Option<(&'a str, &'a str)>,
    pub(super) apn: Option<&'a str>,
}

/// A TLS server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
}

/// Instead of DHCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct StaticAddress {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) gateway: Ipv4Addr,
    pub(super) dns: Ipv4Addr,
}

impl Settings<'_> {
    /// The settings block.
    ///
    /// # Errors
    /// When it would be longer than the firmware's memory for it.
    pub(super) fn block(&self) -> anyhow::Result<Vec<u8>> {
        let mut fields = Fields::default();
        fields.put(1, self.device.as_bytes())?;
        fields.put(2, self.est.host.as_bytes())?;
        fields.put(3, &self.est.port.to_le_bytes())?;
        if let Some(label) = self.label {
            fields.put(4, label.as_bytes())?;
        }
        ensure!(self.anchors.len() <= MAX_ANCHORS, "a device takes at most {MAX_ANCHORS} CA certificates");
        for anchor in self.anchors {
            fields.put(5, anchor)?;
        }
        if let Some(mqtt) = self.mqtt {
            fields.put(7, mqtt.host.as_bytes())?;
            fields.put(8, &mqtt.port.to_le_bytes())?;
            fields.put(9, self.topics().as_bytes())?;
        }
        if let Some(https) = self.https {
            fields.put(10, https.host.as_bytes())?;
            fields.put(11, &https.port.to_le_bytes())?;
            fields.put(12, self.path.as_bytes())?;
        }
        if let Some(StaticAddress { address, prefix, gateway, dns }) = self.address {
            let told = [&address.octets()[..], &[prefix], &gateway.octets(), &dns.octets()].concat();
            fields.put(13, &told)?;
        }
        ensure!(self.hosts.len() <= MAX_HOSTS, "a device takes at most {MAX_HOSTS} names with addresses");
        for (name, address) in self.hosts {
            fields.put(14, &[&address.octets()[..], name.as_bytes()].concat())?;
        }
        fields.put(15, &self.report_every_s.to_le_bytes())?;
        if let Some((ssid, passphrase)) = self.wifi {
            fields.put(0x80, ssid.as_bytes())?;
            fields.put(0x81, passphrase.as_bytes())?;
        }
        if let Some(apn) = self.apn {
            fields.put(0x82, apn.as_bytes())?;
        }
        let block = fields.block(SETTINGS_MAGIC)?;
        ensure!(
            block.len() <= MAX_SETTINGS_OCTETS,
            "the settings of {} take {} octets, and a device has memory for {MAX_SETTINGS_OCTETS}",
            self.device,
            block.len()
        );
        Ok(block)
    }

    /// What its topics begin with.
    pub(super) fn topics(&self) -> String {
        self.prefix.replace("{device}", self.device)
    }
}

/// Whether octets begin with a settings block that this version writes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_settings_block(octets: &[u8]) -> anyhow::Result<()> {
    let Some((&[m0, m1, m2, m3, v0, v1, _, _, l0, l1, l2, l3], rest)) = octets.split_first_chunk() else {
        bail!("it is too short for factory data");
    };
    ensure!([m0, m1, m2, m3] == *SETTINGS_MAGIC, "it holds no factory data");
    let version = u16::from_le_bytes([v0, v1]);
    ensure!(version == VERSION, "its format is version {version}, and this is version {VERSION}");
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]))?;
    let body = rest.split_first_chunk().and_then(|(crc, rest)| Some((*crc, rest.get(..length)?)));
    let (crc, body) = body.context("its factory data is cut off")?;
    let sum = check_value(octets.get(..12).unwrap_or_default(), body);
    ensure!(sum == u32::from_le_bytes(crc), "its factory data is damaged");
    Ok(())
}

fn check_value(header: &[u8], body: &[u8]) -> u32 {
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut digest = crc.digest();
    digest.update(header);
    digest.update(body);
    digest.finalize()
}

/// The token block.
///
/// # Errors
/// When the token is longer than the firmware takes.
pub(super) fn token_block(token: &str) -> anyhow::Result<Vec<u8>> {
    let mut fields = Fields::default();
    fields.put(32, token.as_bytes())?;
    let block = fields.block(b"MUFT")?;
    ensure!(block.len() <= MAX_TOKEN_OCTETS, "the token is too long for a device");
    Ok(block)
}

#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn put(&mut self, tag: u8, value: &[u8]) -> anyhow::Result<()> {
        let length = u16::try_from(value.len()).context("a field of the factory partition is too long")?;
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value);
        Ok(())
    }

    fn block(self, magic: &[u8; 4]) -> anyhow::Result<Vec<u8>> {
        let length = u32::try_from(self.0.len()).context("the factory partition is too long")?;
        let mut block = [&magic[..], &VERSION.to_le_bytes(), &[0, 0], &length.to_le_bytes()].concat();
        let sum = check_value(&block, &self.0);
        block.extend_from_slice(&sum.to_le_bytes());
        block.extend_from_slice(&self.0);
        Ok(block)
    }
}

const SETTINGS_MAGIC: &[u8; 4] = b"MUFS";
const VERSION: u16 = 1;
// The firmware's own limits.
const MAX_SETTINGS_OCTETS: usize = 1536;
const MAX_TOKEN_OCTETS: usize = 160;
const MAX_ANCHORS: usize = 3;
const MAX_HOSTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_the_firmware_reads() {
        let settings = Settings {
            device: "pump-7",
            est: Endpoint { host: "est.example.com", port: 8443 },
            label: None,
            anchors: &[b"not a certificate, but carried like one".to_vec()],
            mqtt: Some(Endpoint { host: "mqtt.example.com", port: 8883 }),
            prefix: "devices/{device}/",
            https: Some(Endpoint { host: "api.example.com", port: 443 }),
            path: "/telemetry",
            address: Some(StaticAddress {
                address: Ipv4Addr::new(10, 0, 2, 15),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 0, 2, 2),
                dns: Ipv4Addr::new(10, 0, 2, 3),
            }),
            hosts: &[("est.example.com".to_owned(), Ipv4Addr::new(10, 0, 2, 2))],
            report_every_s: 60,
            wifi: Some(("plant", "secret phrase")),
            apn: Some("iot.example"),
        };
        let read: &[u8] = include_bytes!("../../../../no_std-agent/firmware/app/testdata/settings.bin");
        assert_eq!(settings.block().expect("fits"), read);
        let read: &[u8] = include_bytes!("../../../../no_std-agent/firmware/app/testdata/token.bin");
        assert_eq!(token_block("one-time-token").expect("fits"), read);
    }

    #[test]
    fn knows_its_own_blocks_and_no_others() {
        let settings: &[u8] = include_bytes!("../../../../no_std-agent/firmware/app/testdata/settings.bin");
        check_settings_block(settings).expect("sound");
        for at in 0..settings.len() {
            let mut changed = settings.to_vec();
            changed[at] ^= 1;
            check_settings_block(&changed).expect_err("changed");
            check_settings_block(&settings[..at]).expect_err("cut");
        }
        let token: &[u8] = include_bytes!("../../../../no_std-agent/firmware/app/testdata/token.bin");
        assert!(check_settings_block(token).expect_err("a token").to_string().contains("no factory data"));
        let mut newer = settings.to_vec();
        newer[4] = 2;
        assert!(check_settings_block(&newer).expect_err("newer").to_string().contains("version 2"));
    }

    #[test]
    fn refuses_what_a_device_has_no_room_for() {
        let anchors = [vec![0; 800], vec![0; 800]];
        let settings = Settings {
            device: "d",
            est: Endpoint { host: "h", port: 1 },
            label: None,
            anchors: &anchors,
            mqtt: None,
            prefix: "",
            https: None,
            path: "/",
            address: None,
            hosts: &[],
            report_every_s: 1,
            wifi: None,
            apn: None,
        };
        assert!(settings.block().expect_err("too long").to_string().contains("1536"));
        assert!(token_block(&"x".repeat(150)).is_err());
    }
}
