//! The command line of provisioning and flashing: `factory` and `flash`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse_span;

/// A board that there is firmware for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// Cortex-M3, emulated.
    #[value(name = "mps2-an385")]
    Mps2An385,
    /// Cortex-M4, emulated.
    #[value(name = "mps2-an386")]
    Mps2An386,
    /// Cortex-M33, emulated.
    #[value(name = "mps2-an505")]
    Mps2An505,
    /// Nordic's nRF52840 DK with a W5500.
    #[value(name = "nrf52840-dk")]
    Nrf52840Dk,
    /// WIZnet's W5500-EVB-Pico2, with an RP2350.
    #[value(name = "w5500-evb-pico2")]
    W5500EvbPico2,
}

impl std::fmt::Display for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mps2An385 => "mps2-an385",
            Self::Mps2An386 => "mps2-an386",
            Self::Mps2An505 => "mps2-an505",
            Self::Nrf52840Dk => "nrf52840-dk",
            Self::W5500EvbPico2 => "w5500-evb-pico2",
        })
    }
}

/// A program that puts images on a real board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlashTool {
    /// Over USB, to the RP2350's boot ROM.
    Picotool,
    /// Through a debug probe.
    ProbeRs,
}

/// Arguments of `factory`.
#[derive(Args, Debug)]
pub struct FactoryArgs {
    /// The devices: a CSV file with a column `id`, as for `device import`.
    #[arg(long, value_name = "FILE")]
    pub devices: PathBuf,
    /// The board.
    #[arg(long, value_enum)]
    pub board: Board,
    /// Where to write the images; created if missing.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The EST server as devices reach it, such as `https://est.example.com:8443`; default: the first of `est.names` in
    /// muster.toml, else `est.` and the account's zone, at the port of the EST listener.
    #[arg(long, value_name = "URL")]
    pub est: Option<http::Uri>,
    /// The CA certificates that devices trust, PEM; default: the account's root.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The broker, e.g. mqtts://mqtt.example.com:8883.
    #[arg(long, value_name = "URL")]
    pub mqtt: Option<http::Uri>,
    /// Prefix of each device's topics.
    #[arg(long, default_value = "devices/{device}/")]
    pub prefix: String,
    /// The HTTPS service, with the path that devices send requests to.
    #[arg(long, value_name = "URL")]
    pub https: Option<http::Uri>,
    /// A name that devices resolve without DNS, as NAME=IPV4; repeatable.
    #[arg(long = "host", value_name = "NAME=IPV4", value_parser = crate::cli::firmware::parse_host)]
    pub hosts: Vec<(String, std::net::Ipv4Addr)>,
    /// The device's own address, as IPV4/PREFIX, instead of DHCP.
    #[arg(long, value_name = "IPV4/PREFIX", requires_all = ["gateway", "dns"])]
    pub address: Option<String>,
    /// The router, with `--address`.
    #[arg(long, requires = "address")]
    pub gateway: Option<std::net::Ipv4Addr>,
    /// The name server, with `--address`.
    #[arg(long, requires = "address")]
    pub dns: Option<std::net::Ipv4Addr>,
    /// The wireless network to join.
    #[arg(long, value_name = "NAME")]
    pub wifi_ssid: Option<String>,
    /// A file with its passphrase.
    #[arg(long, value_name = "FILE", requires = "wifi_ssid")]
    pub wifi_passphrase_file: Option<PathBuf>,
    /// The access point of a cellular network.
    #[arg(long)]
    pub apn: Option<String>,
    /// How often a device reports its status.
    #[arg(long, default_value = "60s", value_parser = parse_span)]
    pub report_every: Duration,
    /// How long the tokens are valid: 1h, 7d.
    #[arg(long, default_value = "7d", value_parser = parse_span)]
    pub ttl: Duration,
    /// The profile that devices enroll under.
    #[arg(long)]
    pub profile: Option<String>,
}

/// Arguments of `flash`.
#[derive(Args, Debug)]
pub struct FlashArgs {
    /// The board.
    #[arg(long, value_enum)]
    pub board: Board,
    /// The device.
    #[arg(long, value_name = "ID")]
    pub device: String,
    /// Where `factory` wrote the images.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub images: PathBuf,
    /// The firmware, as `no_std-agent/firmware/build.sh BOARD` makes it; default: BOARD.elf beside the images.
    #[arg(long, value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Flashing tool; default: picotool for boards with the RP2350's boot ROM, else probe-rs.
    #[arg(long, value_enum)]
    pub tool: Option<FlashTool>,
    /// Which probe or board, if several are attached: the probe as probe-rs names it, or picotool's serial number.
    #[arg(long, value_name = "SELECTOR")]
    pub probe: Option<String>,
    /// Flash without booting.
    #[arg(long)]
    pub no_boot: bool,
    /// Print the commands without running them.
    #[arg(long)]
    pub dry_run: bool,
}
