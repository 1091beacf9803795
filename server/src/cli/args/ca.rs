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
    /// Make a new root with new issuing CAs below it; the old ones verify until their last leaf ends.
    Create {
        /// Algorithm of the keys.
        #[arg(long, value_enum, default_value_t = CaAlgorithmArg::EcdsaP256)]
        algorithm: CaAlgorithmArg,
    },
    /// Import a CA from a PEM bundle. With its key it issues from now on, without it only verifies.
    Import {
        /// The bundle: the CA, the CAs above it, and optionally its key.
        file: PathBuf,
        /// What it is for.
        #[arg(long = "use", value_enum, default_value_t = ImportUse::Devices)]
        purpose: ImportUse,
        /// What to call it; default: its subject.
        #[arg(long)]
        name: Option<String>,
        /// File with its key, PEM, where the bundle has none.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// File with the passphrase of the key.
        #[arg(long, value_name = "FILE")]
        key_passphrase_file: Option<PathBuf>,
    },
    /// Replace an issuing CA: a new one signs from now on, the old one verifies until its last leaf ends.
    Rotate {
        /// Which one.
        #[arg(long, value_enum, default_value_t = RotateRole::Devices)]
        role: RotateRole,
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
    /// Take the own CRL of a CA whose key is elsewhere; the edge goes by it when this returns.
    TakeCrl {
        /// The CA.
        id: String,
        /// The CRL, PEM or DER.
        file: PathBuf,
    },
    /// Show or set where the own CRL of a CA comes from, and what happens without a fresh one.
    CrlSource(CrlSourceArgs),
    /// Fetch the own CRL of a CA now from where it comes from.
    FetchCrl {
        /// The CA.
        id: String,
    },
    /// List what is revoked of the certificates that a CA issued elsewhere.
    Revoked {
        /// The CA.
        id: String,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
}

/// Where the own CRL of a CA comes from. What is not given stays as it is.
#[derive(Args, Debug)]
pub struct CrlSourceArgs {
    /// The CA.
    pub id: String,
    /// Where it is fetched from, `https://` or `http://`; fetched once before it is set.
    #[arg(long, conflicts_with = "upload")]
    pub url: Option<String>,
    /// It is not fetched, but taken with `muster ca take-crl`.
    #[arg(long)]
    pub upload: bool,
    /// How often it is fetched: 1m to 7d.
    #[arg(long, value_parser = parse_span)]
    pub every: Option<Duration>,
    /// What the CA's certificates are worth once its CRL is past its end.
    #[arg(long, value_parser = ["closed", "open"])]
    pub when_stale: Option<String>,
    /// The distribution point that the CA's CRL names, where that CRL is complete and no part of several; `` for none.
    #[arg(long, value_name = "URI")]
    pub distribution_point: Option<String>,
}

/// What an imported CA is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportUse {
    /// Its certificates are devices of this account.
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

/// Which certificate is revoked, or good again.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct RevocableSelector {
    /// By id.
    #[arg(long, conflicts_with = "ca")]
    pub id: Option<String>,
    /// By serial, hex; with `--ca` also one that was issued elsewhere.
    #[arg(long)]
    pub serial: Option<String>,
    /// All certificates of a device that it is about.
    #[arg(long, conflicts_with = "ca")]
    pub device: Option<String>,
    /// By SHA-256 of the certificate, hex.
    #[arg(long, requires = "ca", value_name = "HEX")]
    pub sha256: Option<String>,
    /// The certificate itself, PEM.
    #[arg(long, requires = "ca")]
    pub file: Option<PathBuf>,
}
