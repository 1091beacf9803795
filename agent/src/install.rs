//! `muster-agent install`: a hardened systemd unit, written for this binary and configuration.
//!
//! The unit runs as a user of its own that systemd makes up (`DynamicUser`), with one writable folder, no
//! capability and a filtered set of system calls; it tells systemd when it is ready and that it is alive
//! (`sd_notify`). It starts only when the configuration is there. Nothing is started or enabled here: that is
//! said as the next step. `--root` writes below another root, as packages and images need it; `--dry-run` prints.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::store::files;

/// Where the unit goes, below the root.
pub const UNIT_PATH: &str = "etc/systemd/system/muster-agent.service";

/// The options of `install`.
#[derive(Args, Clone, Debug)]
pub struct InstallOptions {
    /// The configuration that the service reads.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// The agent's binary, as the service finds it.
    #[arg(long, value_name = "FILE", default_value = BINARY)]
    pub binary: PathBuf,
    /// Write below this folder instead of /.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Print the unit and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace a unit that differs.
    #[arg(long)]
    pub force: bool,
}

/// What `install` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing was written; this is the unit.
    Printed(String),
    /// The same unit was there.
    Unchanged(PathBuf),
    /// The unit was written here.
    Written(PathBuf),
}

/// Why nothing was installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallFault {
    /// Another unit is there.
    #[error("{} differs from what would be written; compare with --dry-run, replace with --force", .0.display())]
    Differs(PathBuf),
    /// A path that a unit can't name.
    #[error("{} must be an absolute path without white space, quotes, backslash, $ or %", .0.display())]
    Path(PathBuf),
    /// The unit could not be read or written.
    #[error("{}: {error}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Write the unit.
///
/// # Errors
/// [`InstallFault`]; then nothing was changed.
pub fn install(options: &InstallOptions) -> Result<Installed, InstallFault> {
    let unit = unit(&options.binary, &options.config)?;
    if options.dry_run {
        return Ok(Installed::Printed(unit));
    }
    let path = options.root.join(UNIT_PATH);
    let fault = |error| InstallFault::Write { path: path.clone(), error };
    match std::fs::read_to_string(&path) {
        Ok(there) if there == unit => return Ok(Installed::Unchanged(path)),
        Ok(_) if !options.force => return Err(InstallFault::Differs(path)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault(error)),
    }
    // In its place in one step: systemd never reads half a unit.
    files::publish(&path, unit.as_bytes()).map_err(fault)?;
    Ok(Installed::Written(path))
}

/// The text of the unit.
///
/// # Errors
/// [`InstallFault::Path`].
pub fn unit(binary: &Path, config: &Path) -> Result<String, InstallFault> {
    let (binary, config) = (word(binary)?, word(config)?);
    Ok(UNIT.replace(BINARY, binary).replace(CONFIG, config))
}

/// A path as one word of a unit file; systemd gives white space, quotes, `\`, `$` and `%` a meaning.
fn word(path: &Path) -> Result<&str, InstallFault> {
    let fault = || InstallFault::Path(path.to_owned());
    let text = path.to_str().ok_or_else(fault)?;
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'\\$%".contains(c));
    if path.is_absolute() && is_plain { Ok(text) } else { Err(fault()) }
}

/// The unit of the Debian package; it names [`BINARY`] and [`CONFIG`].
const UNIT: &str = include_str!("../packaging/muster-agent.service");

const BINARY: &str = "/usr/bin/muster-agent";
const CONFIG: &str = "/etc/muster-agent/agent.toml";

#[cfg(test)]
mod tests {
    use super::*;

    fn options(root: &Path) -> InstallOptions {
        InstallOptions {
            config: "/etc/muster-agent/agent.toml".into(),
            binary: "/usr/bin/muster-agent".into(),
            root: root.to_owned(),
            dry_run: false,
            force: false,
        }
    }

    #[test]
    fn writes_once_and_replaces_another_unit_only_when_told() {
        let root = tempfile::tempdir().unwrap();
        let mut options = options(root.path());
        let path = root.path().join(UNIT_PATH);
        assert_eq!(install(&options).unwrap(), Installed::Written(path.clone()));
        assert_eq!(install(&options).unwrap(), Installed::Unchanged(path.clone()));
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(install(&options).unwrap_err(), InstallFault::Differs(_)));
        options.force = true;
        assert_eq!(install(&options).unwrap(), Installed::Written(path));
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let options = InstallOptions { dry_run: true, ..options(root.path()) };
        let Installed::Printed(unit) = install(&options).unwrap() else { panic!("printed") };
        assert!(unit.contains("ExecStart=/usr/bin/muster-agent run --config /etc/muster-agent/agent.toml\n"));
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_path_that_would_mean_something_else_in_a_unit_is_refused() {
        for path in ["relative", "/a b", "/a%i", "/a$HOME", "/a\nExecStartPre=/bin/sh", "/a\"b"] {
            assert!(matches!(unit(Path::new("/b"), Path::new(path)), Err(InstallFault::Path(_))), "{path}");
        }
    }

    #[test]
    fn the_unit_names_the_given_binary_and_configuration_only() {
        let unit = unit(Path::new("/opt/agent"), Path::new("/opt/agent.toml")).unwrap();
        assert!(unit.contains("ExecStart=/opt/agent run --config /opt/agent.toml\n"));
        assert!(unit.contains("ConditionPathExists=/opt/agent.toml\n"));
        assert!(!unit.contains(BINARY) && !unit.contains(CONFIG));
    }

    /// What systemd itself says of the unit. Without systemd there is nobody to ask, and the test says so.
    #[test]
    fn systemd_finds_no_fault_and_little_exposure() {
        use std::process::Command;
        if Command::new("systemd-analyze").arg("--version").output().is_err() {
            eprintln!("NOT CHECKED: systemd-analyze is not installed here");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("muster-agent.service");
        // The binary must exist for `verify`.
        std::fs::write(
            &file,
            unit(Path::new("/bin/true"), Path::new("/etc/muster-agent/agent.toml")).unwrap(),
        )
        .unwrap();
        let verify =
            Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&file).output().unwrap();
        let words = String::from_utf8_lossy(&verify.stderr);
        let ours: Vec<&str> = words.lines().filter(|line| line.contains("muster-agent")).collect();
        assert!(ours.is_empty(), "{ours:?}");
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
            .arg(&file)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&security.stdout);
        assert!(security.status.success(), "{}", words.lines().last().unwrap_or_default());
    }
}
