//! The command line, as clap reads it.
//!
//! Names and shapes are a contract (scripts rely on them): change nothing, only add.

mod ca;
mod firmware;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_policy::name::{Hostname, Title, TrustDomain};

pub use self::ca::{CaCommand, CrlSourceArgs, ImportUse, RevocableSelector, RotateRole};
pub use self::firmware::{Board, FactoryArgs, FlashArgs, FlashTool};
pub use self::watch::{CloseArgs, ConnectionCommand, EventCommand, FollowArgs, WebhookCommand};

/// Muster issues every device of a fleet a certificate from your own CA, and checks it at the edge.
#[derive(Debug, Parser)]
#[command(name = "muster", version, propagate_version = true)]
pub struct Cli {
    /// The data directory.
    #[arg(
        short = 'C',
        long = "dir",
        global = true,
        value_name = "DIR",
        default_value = ".",
        env = "MUSTER_DIR"
    )]
    pub dir: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an account: data directory, CAs, ledger, first admin token.
    Init(InitArgs),
    /// Run the server until SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// DNS domains of the account.
    #[command(subcommand)]
    Zone(ZoneCommand),
    /// Hostnames: what the edge serves, and what it demands of clients.
    #[command(subcommand)]
    Host(HostCommand),
    /// Enrollment tokens: what lets a device enroll the first time.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Devices.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Issued certificates.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Certificate authorities.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Profiles: what may be issued.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Requests waiting for approval.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Tokens of the admin API.
    #[command(subcommand)]
    AdminToken(AdminTokenCommand),
    /// The audit log: who did what, chained by hashes.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Live connections at the edge: list and close.
    #[command(subcommand)]
    Connection(ConnectionCommand),
    /// The event stream.
    #[command(subcommand)]
    Event(EventCommand),
    /// Webhooks: deliver events to HTTP endpoints.
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Write a consistent copy of the data directory to FILE, also while the server runs; without the broker's sessions and
    /// retained messages, and files elsewhere that settings name.
    Backup {
        /// The file to write; must not exist.
        file: PathBuf,
    },
    /// Create the data directory from a backup; a damaged backup is refused.
    Restore {
        /// The backup.
        file: PathBuf,
    },
    /// Make provisioning images for devices that run Muster's firmware, each with its own token.
    Factory(Box<FactoryArgs>),
    /// Flash firmware and provisioning image to a board, or boot them in the emulator.
    Flash(FlashArgs),
    /// Check the data directory and, if it runs, the server.
    Doctor,
    /// Print every setting of muster.toml, with what it means and its default.
    Settings,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// The data directory to make; default: that of `-C`.
    #[arg(value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Name of the account.
    #[arg(long, default_value = "muster")]
    pub account: Title,
    /// A DNS domain of the account; repeatable.
    #[arg(long = "zone", value_name = "ZONE")]
    pub zones: Vec<Hostname>,
    /// Trust domain of the devices' SPIFFE ids; default: the first zone, else `muster.internal`.
    #[arg(long)]
    pub trust_domain: Option<TrustDomain>,
    /// Algorithm of the CA keys.
    #[arg(long, value_enum, default_value_t = CaAlgorithmArg::EcdsaP256)]
    pub ca_algorithm: CaAlgorithmArg,
    /// Limit the services CA to names under this domain; repeatable.
    #[arg(long = "permit-dns", value_name = "DOMAIN")]
    pub permitted_dns: Vec<Hostname>,
    /// File with a passphrase to encrypt the CA keys; default: MUSTER_CA_PASSPHRASE, else the keys are not encrypted.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Prompt for the passphrase.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub passphrase_prompt: bool,
    /// PEM certificate chain for the EST listener; default: made by the services CA.
    #[arg(long, value_name = "FILE", requires = "est_key")]
    pub est_certificate: Option<PathBuf>,
    /// PEM key for the EST listener.
    #[arg(long, value_name = "FILE", requires = "est_certificate")]
    pub est_key: Option<PathBuf>,
}

/// Algorithms of CA keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaAlgorithmArg {
    /// ECDSA on secp256r1.
    EcdsaP256,
    /// ECDSA on secp384r1.
    EcdsaP384,
    /// RSA with 3072 bits.
    Rsa3072,
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// What to run, comma-separated.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Role::Enroll, Role::Edge, Role::Admin])]
    pub roles: Vec<Role>,
    /// Address of the admin API; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    pub listen_admin: Option<SocketAddr>,
    /// Address of the EST server; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    pub listen_est: Option<SocketAddr>,
    /// Address of the edge for HTTPS; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    pub listen_https: Option<SocketAddr>,
    /// Address of the edge for MQTT; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    pub listen_mqtt: Option<SocketAddr>,
    /// Address for CRLs over plain HTTP; port 0 picks a free port.
    #[arg(long, value_name = "ADDR")]
    pub listen_crl: Option<SocketAddr>,
}

/// What a server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// The admin API, health and metrics.
    Admin,
    /// The edge: client certificates checked per hostname, HTTPS and MQTT.
    Edge,
    /// EST.
    Enroll,
}

/// Zones.
#[derive(Debug, Subcommand)]
pub enum ZoneCommand {
    /// Add a domain; the server's EST certificate then also names `est.ZONE`.
    Add {
        /// The domain.
        zone: String,
    },
    /// List the domains.
    List(PageArgs),
}

/// Hostnames.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Create a hostname, or change the given settings of one; in force at the edge when this returns.
    Set(Box<HostSetArgs>),
    /// List hostnames.
    List(PageArgs),
    /// Remove a hostname; the edge has stopped serving it when this returns.
    Rm {
        /// The hostname.
        host: String,
    },
}

/// What is set of a hostname.
#[derive(Args, Debug)]
pub struct HostSetArgs {
    /// The hostname: an exact name, or `*.DOMAIN` for any single label under DOMAIN.
    pub host: String,
    /// Whether a client certificate is required; default: require.
    #[arg(long, value_parser = ["require", "request", "off"])]
    pub mode: Option<String>,
    /// Protocol it serves; repeatable. Default: https.
    #[arg(long = "protocol", value_parser = ["https", "mqtt"])]
    pub protocols: Vec<String>,
    /// A CA whose certificates it accepts; repeatable. `devices` (default): the account's devices CAs.
    #[arg(long = "ca", value_name = "ID")]
    pub cas: Vec<String>,
    /// Where its HTTPS requests go, as `http://HOST[:PORT]` or `https://HOST[:PORT]`; repeatable.
    #[arg(long = "origin", value_name = "URL")]
    pub origins: Vec<String>,
    /// PEM file with the only CAs trusted for `https://` origins; `machine` (default): the system trust store.
    #[arg(long, value_name = "FILE")]
    pub origin_ca: Option<PathBuf>,
    /// The name that origins' certificates must have; empty for the host of the URL.
    #[arg(long, value_name = "NAME")]
    pub origin_name: Option<String>,
    /// Whether the edge presents the account's client certificate to origins, `DIR/tls/outbound.crt` and `outbound.key`.
    #[arg(long, value_parser = ["yes", "no"])]
    pub origin_client_cert: Option<String>,
    /// How many seconds an origin may be silent, before its answer begins and within it; 0 disables the timeout.
    /// The default is 60.
    #[arg(long, value_name = "SECONDS")]
    pub origin_timeout: Option<u32>,
    /// Minimum TLS version.
    #[arg(long, value_parser = ["1.2", "1.3"])]
    pub min_tls: Option<String>,
    /// What to do when revocation data is too old: `closed` (default) admits nobody, `open` admits all.
    #[arg(long, value_parser = ["closed", "open"])]
    pub when_stale: Option<String>,
}

/// A page of a list.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct PageArgs {
    /// Page number, from 1; default: all pages.
    #[arg(long)]
    pub page: Option<u32>,
    /// Entries per page, 1 to 1000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub per_page: Option<u32>,
}

/// Enrollment tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it; it is shown only once.
    New {
        /// The device it is for.
        #[arg(long, required_unless_present = "claim")]
        device: Option<String>,
        /// Create a claim token instead: any device may use it, `--uses` times in all. Whoever has it can get a certificate
        /// for any device of the account, even one that is already enrolled.
        #[arg(long, conflicts_with = "device")]
        claim: bool,
        /// How many certificates it may be used for.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// How long it is valid: 30m, 1h, 7d.
        #[arg(long, default_value = "1h", value_parser = parse_span)]
        ttl: Duration,
        /// The only profile it can be used with.
        #[arg(long)]
        profile: Option<String>,
        /// The only key it certifies: SHA-256 of its SubjectPublicKeyInfo, hex.
        #[arg(long, value_name = "HEX")]
        key_sha256: Option<String>,
    },
    /// List tokens, without their secrets.
    List(PageArgs),
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// Devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List devices.
    List {
        /// Only ids with this prefix.
        #[arg(long)]
        prefix: Option<String>,
        /// Only devices of this status.
        #[arg(long, value_parser = ["active", "suspended", "retired"])]
        status: Option<String>,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one device and its certificates.
    Show {
        /// Its id.
        id: String,
    },
    /// Suspend devices: nothing is issued to them, and the edge refuses them, until they are resumed.
    Suspend {
        /// Their ids.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Resume suspended devices.
    Resume {
        /// Their ids.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Retire devices for good: they never get a certificate again.
    Retire {
        /// Their ids.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Import devices: a header line, then `id` and optionally `labels` (a=b;c=d), `groups` (x;y),
    /// `manufacturer_serial`, `manufacturer` (CA id), `note`. A thousand devices at a time are imported, or none of them.
    Import {
        /// The CSV file.
        file: PathBuf,
    },
}

/// Which certificate is meant.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct CertSelector {
    /// By id.
    #[arg(long)]
    pub id: Option<String>,
    /// By serial, hex.
    #[arg(long)]
    pub serial: Option<String>,
    /// All active certificates of a device.
    #[arg(long)]
    pub device: Option<String>,
}

/// Issued certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// List certificates, newest first.
    List {
        /// Only of this status.
        #[arg(long, value_parser = ["active", "expired", "revoked"])]
        status: Option<String>,
        /// Only of this device.
        #[arg(long)]
        device: Option<String>,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show certificates with their PEM.
    Show {
        /// Which certificates.
        #[command(flatten)]
        which: CertSelector,
    },
    /// Revoke certificates; the CRL has them when this returns. One that a CA issued elsewhere is named by `--ca`
    /// and `--serial`, `--sha256` or `--file`.
    Revoke {
        /// Which certificates.
        #[command(flatten)]
        which: RevocableSelector,
        /// The CA that issued it, here or elsewhere.
        #[arg(long, value_name = "ID")]
        ca: Option<String>,
        /// Why (RFC 5280 CRLReason).
        #[arg(long, default_value = "unspecified", value_parser = [
            "unspecified", "keyCompromise", "caCompromise", "affiliationChanged", "superseded",
            "cessationOfOperation", "certificateHold", "privilegeWithdrawn",
        ])]
        reason: String,
    },
    /// Reinstate revoked certificates.
    Reactivate {
        /// Which certificates.
        #[command(flatten)]
        which: RevocableSelector,
        /// The CA that issued it, here or elsewhere.
        #[arg(long, value_name = "ID")]
        ca: Option<String>,
    },
    /// Sign a PKCS#10 request (PEM or DER) and print the certificate; policy determines the names.
    Sign {
        /// The request; `-` reads standard input.
        csr: PathBuf,
        /// The device; default: the common name of the request.
        #[arg(long)]
        device: Option<String>,
        /// The profile.
        #[arg(long)]
        profile: Option<String>,
        /// Say what would be issued, or why not, without signing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Profiles.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List profiles with every value.
    List,
    /// Make or change a profile: `muster profile set meters lifetime_s=86400 approval=manual`.
    Set {
        /// Its name, which is also the EST path label.
        label: String,
        /// `field=value`, values as in TOML or bare words; `field=` resets to the default.
        #[arg(value_name = "FIELD=VALUE", value_parser = super::profile_fields::parse)]
        fields: Vec<(String, String)>,
    },
}

/// Requests waiting for approval.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// List the requests that are waiting.
    List(PageArgs),
    /// Approve a request; the device's next poll gets the certificate.
    Approve {
        /// The request, as listed.
        request: String,
    },
    /// Deny a request.
    Deny {
        /// The request, as listed.
        request: String,
    },
}

/// Tokens of the admin API.
#[derive(Debug, Subcommand)]
pub enum AdminTokenCommand {
    /// Create a token and print it; it is shown only once.
    New {
        /// Name of the token.
        #[arg(long)]
        name: String,
        /// Read-only.
        #[arg(long)]
        read_only: bool,
        /// How long it is valid; default: until it is revoked.
        #[arg(long, value_parser = parse_span)]
        ttl: Option<Duration>,
    },
    /// List tokens, without their secrets.
    List,
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// The audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List entries, newest first.
    List(PageArgs),
    /// Verify the hash chain from the first entry to the last.
    Verify,
}

/// Reads `90s`, `30m`, `1h`, `7d`: whole seconds, from one to some ten years.
fn parse_span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).ok().filter(|span| span.subsec_nanos() == 0);
    let span = span.filter(|span| (1..=3_660 * 86_400).contains(&span.as_secs()));
    span.ok_or_else(|| format!("`{text}` is not a span like 90s, 30m, 1h or 7d"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn reads_spans_with_a_unit() {
        assert_eq!(parse_span("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_span("1d 12h"), Ok(Duration::from_secs(129_600)));
        for wrong in ["", "h", "1", "-1h", "1x", "0s", "1500ms", "3661d", "99999999999999999999d", "1é"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
