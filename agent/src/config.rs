//! The configuration file of `muster-agent run`, as written; [`Settings`] is what comes of it.
//! `packaging/agent.toml.example` has every table.
//! Relative paths begin at the folder of the file. An unknown field is an error: a mistyped one must not be
//! silently without effect.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::enrollment::Pace;
use serde::{Deserialize, Serialize};

use crate::carry::{self, RelayWritten, TelemetryWritten};
use crate::settings::{Proof, ServerUrl, Settings, TrustRoots, Wrong};
use crate::span;
use crate::store::files;

/// Name of the file that `enroll` writes.
pub const FILE_NAME: &str = "agent.toml";

/// The file, as written.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The device id.
    pub device: String,
    /// The folder of keys and certificates; default: that of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// The EST server.
    pub server: ServerSection,
    /// How the device proves itself without a certificate of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialSection>,
    /// How soon failed tries are repeated.
    #[serde(default, skip_serializing_if = "PaceSection::is_default")]
    pub pace: PaceSection,
    /// What is carried for local programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay: Vec<RelayWritten>,
    /// The device's own status and commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryWritten>,
    /// The log.
    #[serde(default, skip_serializing_if = "LogSection::is_default")]
    pub log: LogSection,
}

/// What is carried, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarryWritten {
    /// Local listeners.
    pub relay: Vec<RelayWritten>,
    /// The device's own status and commands.
    pub telemetry: Option<TelemetryWritten>,
}

impl CarryWritten {
    /// Whether nothing is carried.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.relay.is_empty() && self.telemetry.is_none()
    }
}

/// The EST server.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// `https://HOST[:PORT][/.well-known/est/LABEL]`.
    pub url: String,
    /// PEM file of the CA certificates to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the CA certificate to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_sha256: Option<String>,
}

/// A credential for the first enrollment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSection {
    /// A file with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The manufacturer's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idevid_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idevid_key: Option<PathBuf>,
}

/// How soon failed tries are repeated; each a span like `90s`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PaceSection {
    /// The first wait after a failure.
    pub floor: Option<String>,
    /// The longest wait.
    pub ceiling: Option<String>,
    /// The longest wait once renewal is urgent.
    pub urgent_ceiling: Option<String>,
    /// Over how long a fleet that boots together spreads its first connections.
    pub spread: Option<String>,
}

/// The log, on standard error.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Its form.
    pub format: LogFormat,
    /// A filter as of `RUST_LOG`.
    pub level: String,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object each.
    Json,
    /// For people.
    #[default]
    Text,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl LogSection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl PaceSection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn checked(&self) -> Result<Pace, Wrong> {
        let or = |written: &Option<String>, field: &str, default: Duration| match written {
            None => Ok(default),
            Some(text) => span::parse(text).map_err(|error| Wrong(format!("pace.{field}: {error}"))),
        };
        let usual = Pace::default();
        let pace = Pace {
            floor: or(&self.floor, "floor", usual.floor)?,
            ceiling: or(&self.ceiling, "ceiling", usual.ceiling)?,
            urgent_ceiling: or(&self.urgent_ceiling, "urgent_ceiling", usual.urgent_ceiling)?,
            spread: or(&self.spread, "spread", usual.spread)?,
        };
        if pace.floor > pace.urgent_ceiling || pace.urgent_ceiling > pace.ceiling {
            return Err(Wrong("pace: floor, urgent_ceiling, ceiling must not fall in this order".to_owned()));
        }
        Ok(pace)
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Wrong`] when it can't be read or is no configuration.
    pub fn read(path: &Path) -> Result<Self, Wrong> {
        let at = |why: &dyn std::fmt::Display| Wrong(format!("{}: {why}", path.display()));
        let bytes = files::read(path, CONFIG_MAX_BYTES).map_err(|error| at(&error))?;
        let bytes = bytes.ok_or_else(|| at(&"there is no such file; `muster-agent enroll` writes one"))?;
        let text = String::from_utf8(bytes).map_err(|error| at(&error))?;
        toml::from_str(&text).map_err(|error| at(&error.message()))
    }

    /// Checks everything, and reads the files that it names. `path` is that of the configuration file.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn checked(&self, path: &Path) -> Result<Settings, Wrong> {
        let base = base_of(path);
        let carry = self.carry_at(path);
        carry::Config::check(&carry.relay, carry.telemetry.as_ref())
            .map_err(|fault| Wrong(fault.to_string()))?;
        if muster_proto::enrollment::Identity::new(&self.device, None).is_err() {
            return Err(Wrong(format!(
                "device `{}` must have 1 to 64 characters out of A-Z a-z 0-9 . _ -",
                self.device
            )));
        }
        Ok(Settings {
            server: ServerUrl::parse(&self.server.url, None)?,
            device: self.device.clone(),
            dir: self.dir_at(path),
            trust: self.trust_at(path)?,
            credential: self.credential.as_ref().map(|section| section.checked(base)).transpose()?.flatten(),
            pace: self.pace.checked()?,
        })
    }

    /// Whom to trust. `path` is that of the configuration file.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn trust_at(&self, path: &Path) -> Result<TrustRoots, Wrong> {
        match (&self.server.ca_file, &self.server.ca_sha256) {
            (Some(file), None) => TrustRoots::from_file(&base_of(path).join(file)),
            (None, Some(sha256)) => TrustRoots::from_sha256(sha256),
            _ => Err(Wrong("server needs one of ca_file and ca_sha256".to_owned())),
        }
    }

    /// What is carried, with paths that begin at the folder of the file.
    #[must_use]
    pub fn carry_at(&self, path: &Path) -> CarryWritten {
        let base = base_of(path);
        let mut carry = CarryWritten { relay: self.relay.clone(), telemetry: self.telemetry.clone() };
        let files = carry.relay.iter_mut().map(|relay| &mut relay.ca);
        for file in files.chain(carry.telemetry.iter_mut().map(|telemetry| &mut telemetry.ca)).flatten() {
            *file = base.join(&*file);
        }
        carry
    }

    /// The folder of keys and certificates.
    #[must_use]
    pub fn dir_at(&self, path: &Path) -> PathBuf {
        let base = base_of(path);
        self.dir.as_ref().map_or_else(|| base.to_owned(), |dir| base.join(dir))
    }
}

/// Where relative paths of a configuration file begin.
pub(crate) fn base_of(path: &Path) -> &Path {
    path.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

impl CredentialSection {
    /// A token file that is gone is no error: whoever used up its token may have removed it.
    fn checked(&self, base: &Path) -> Result<Option<Proof>, Wrong> {
        let token = match &self.token_file {
            Some(file) if base.join(file).exists() => Some(Proof::from_token_file(&base.join(file))?),
            _ => None,
        };
        match (&self.idevid_cert, &self.idevid_key) {
            (None, None) => Ok(token),
            (Some(certificate), Some(key)) => {
                let proof = Proof::from_manufacturer(&base.join(certificate), &base.join(key))?;
                Ok(Some(proof.joined(token)))
            }
            _ => Err(Wrong("credential needs idevid_cert and idevid_key, or neither".to_owned())),
        }
    }
}

/// A configuration is a page.
const CONFIG_MAX_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn settings(text: &str) -> Result<Settings, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.checked(Path::new("/etc/muster/agent.toml")).map_err(|error| error.0)
    }

    fn minimal() -> String {
        format!(
            "device = \"meter-1\"\n[server]\nurl = \"https://ca.example.test:8443\"\nca_sha256 = \"{FINGERPRINT}\"\n"
        )
    }

    #[test]
    fn a_few_lines_are_enough() {
        let settings = settings(&minimal()).expect("right");
        assert_eq!(settings.dir, Path::new("/etc/muster"));
        assert_eq!(settings.pace, Pace::default());
        assert!(settings.credential.is_none());
    }

    #[test]
    fn the_packaged_example_has_every_table_and_the_default_pace() {
        let config: Config = toml::from_str(include_str!("../packaging/agent.toml.example")).expect("right");
        assert!(carry::Config::check(&config.relay, config.telemetry.as_ref()).is_ok());
        assert!(config.relay.len() == 2 && config.telemetry.is_some() && config.credential.is_some());
        assert_eq!(config.pace.checked(), Ok(Pace::default()));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let config: Config = toml::from_str(&minimal()).expect("right");
        let text = toml::to_string(&config).expect("TOML");
        assert_eq!(toml::from_str::<Config>(&text), Ok(config));
    }

    #[test]
    fn paths_begin_at_the_folder_of_the_file() {
        let with_dir = format!("dir = \"keys\"\n{}", minimal());
        assert_eq!(settings(&with_dir).expect("right").dir, Path::new("/etc/muster/keys"));
        let config: Config = toml::from_str(&with_dir).expect("right");
        assert_eq!(config.dir_at(Path::new("agent.toml")), Path::new("./keys"));
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |text: &str, part: &str| {
            let error = settings(text).map(drop).expect_err(part);
            assert!(error.contains(part), "{error}");
        };
        wrong(&minimal().replace("device", "divice"), "divice");
        wrong(&minimal().replace("meter-1", "meter 1"), "meter 1");
        wrong(&minimal().replace("ca_sha256", "ca_file"), FINGERPRINT);
        wrong(&minimal().replace(FINGERPRINT, "00"), "SHA-256");
        wrong(&minimal().replace("https", "http"), "not https");
        wrong(&format!("{}[pace]\nfloor = \"5\"\n", minimal()), "pace.floor");
        wrong(&format!("{}[pace]\nfloor = \"1h\"\n", minimal()), "floor");
        wrong(&format!("{}[credential]\nidevid_cert = \"x\"\n", minimal()), "idevid_key");
        wrong(&format!("{}[carry_on]\n", minimal()), "carry_on");
    }

    #[test]
    fn a_used_up_token_may_be_gone() {
        let text = format!("{}[credential]\ntoken_file = \"/nowhere/token\"\n", minimal());
        assert!(settings(&text).expect("right").credential.is_none());
    }
}
