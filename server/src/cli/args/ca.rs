//! Arguments about CAs, and about revoking what they issued.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{CaAlgorithmArg, PageArgs, parse_span};

/// Certificate authorities.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// List CAs.
    List(PageArgs),
    /// Create a new root with new issuing CAs under it; the old ones verify until their last certificate expires.
    ///
    /// Devices that trust the old root alone follow by certificates that tie the two, until the old root ends; give new
    /// devices what `muster ca export` prints. Small devices have memory for two roots, so that before a third the first is to be
    /// retired. To replace only what signs, use `muster ca rotate`.
    Create {
        /// Algorithm of the keys.
        #[arg(long, value_enum, default_value_t = CaAlgorithmArg::EcdsaP256)]
        algorithm: CaAlgorithmArg,
        /// Do it though there are two roots already, or the one in force was made before 1 Dec 2026: devices that can't
        /// follow can't enroll, renew or connect to hostnames any more until the new root is brought to them by other means.
        #[arg(long)]
        cut_off: bool,
    },
    /// Import a CA from a PEM bundle. With its key it issues from now on; without, it only verifies.
    Import {
        /// The bundle: the CA certificate, those above it, and optionally its key.
        file: PathBuf,
        /// What it is for.
        #[arg(long = "use", value_enum, default_value_t = ImportUse::Devices)]
        purpose: ImportUse,
        /// Its name; default: its subject.
        #[arg(long)]
        name: Option<String>,
        /// PEM file with its key, if the bundle has none.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// File with the passphrase of the key.
        #[arg(long, value_name = "FILE")]
        key_passphrase_file: Option<PathBuf>,
    },
    /// Replace an issuing CA: the new one issues from now on, the old one verifies until its last certificate expires.
    Rotate {
        /// Which one.
        #[arg(long, value_enum, default_value_t = RotateRole::Devices)]
        role: RotateRole,
    },
    /// Retire a root that `muster ca create` has replaced: clients are no longer told to trust it.
    ///
    /// Devices that trust it alone can't enroll, renew or connect to hostnames any more: bring them the new root before.
    /// What its issuing CAs signed keeps verifying here. A certificate by which the new root vouches for it may be kept by
    /// others until it ends: against a stolen key, bring devices the new root alone.
    Retire {
        /// The root's id, from `muster ca list`.
        id: String,
    },
    /// Print certificates as PEM: of one CA with its chain, or what clients should trust.
    Export {
        /// The CA; default: the account's roots.
        id: Option<String>,
    },
    /// Print the current CRL as PEM.
    Crl {
        /// The CA; default: the one that issues to devices.
        id: Option<String>,
    },
    /// Upload the CRL of an externally held CA; in force at the edge when this returns.
    TakeCrl {
        /// The CA.
        id: String,
        /// The CRL, PEM or DER.
        file: PathBuf,
    },
    /// Show or set where the CRL of an externally held CA comes from, and what happens once it has expired.
    CrlSource(CrlSourceArgs),
    /// Fetch the CRL of an externally held CA now.
    FetchCrl {
        /// The CA.
        id: String,
    },
    /// List the revoked certificates of an externally held CA.
    Revoked {
        /// The CA.
        id: String,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
}

/// Where the CRL of an externally held CA comes from. What is not given stays as it is.
#[derive(Args, Debug)]
pub struct CrlSourceArgs {
    /// The CA.
    pub id: String,
    /// URL to fetch it from, `https://` or `http://`; tried once before it is set.
    #[arg(long, conflicts_with = "upload")]
    pub url: Option<String>,
    /// Do not fetch it: it is uploaded with `muster ca take-crl`.
    #[arg(long)]
    pub upload: bool,
    /// How often it is fetched: 1m to 7d.
    #[arg(long, value_parser = parse_span)]
    pub every: Option<Duration>,
    /// What to do with the CA's certificates once its CRL has expired: `closed` refuses them, `open` admits them.
    #[arg(long, value_parser = ["closed", "open"])]
    pub when_stale: Option<String>,
    /// The distribution point named in the CA's CRL, if that CRL is complete and not one of several parts; `` for none.
    #[arg(long, value_name = "URI")]
    pub distribution_point: Option<String>,
}

/// What an imported CA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportUse {
    /// Its certificates identify devices of this account.
    Devices,
    /// Its certificates (IDevID) prove a device's first enrollment.
    Manufacturer,
}

/// Which issuing CA is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RotateRole {
    /// The one that issues to devices.
    Devices,
    /// The one that issues to servers.
    Services,
}

/// Which certificate to revoke or reinstate.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct RevocableSelector {
    /// By id.
    #[arg(long, conflicts_with = "ca")]
    pub id: Option<String>,
    /// By serial, hex; with `--ca` also one that was issued elsewhere.
    #[arg(long)]
    pub serial: Option<String>,
    /// All certificates of a device.
    #[arg(long, conflicts_with = "ca")]
    pub device: Option<String>,
    /// By SHA-256 of the certificate, hex.
    #[arg(long, requires = "ca", value_name = "HEX")]
    pub sha256: Option<String>,
    /// The certificate itself, PEM.
    #[arg(long, requires = "ca")]
    pub file: Option<PathBuf>,
}
