//! Backup and restore: one file with everything that can't be made again.
//!
//! A backup is a gzipped tar of the ledger (a consistent snapshot, also while the server runs), the
//! CA keys as they lie on the disk (encrypted if they are), the configuration, the certificates that the
//! operator put there for hostnames, and a manifest with the SHA-256 of each member. `restore` checks all of
//! it before the first file is moved in place. Retained messages and sessions of the broker are not in it:
//! they are of the moment.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use muster_enroll::{Registrar, Sha256Writer};
use muster_store::Ledger;
use serde::{Deserialize, Serialize};

use crate::datadir::{DataDir, Readers, write_file};

/// The form of backups that this program writes and reads.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const LEDGER: &str = "ledger.redb";
/// Larger than any ledger that fits one machine; stops a bomb.
const MEMBER_MAX_BYTES: u64 = 1 << 40;
/// A manifest names some dozens of files.
const MANIFEST_MAX_BYTES: u64 = 1 << 20;

/// A folder whose files are members: its name in the archive, what the files end with, where it lies.
struct Folder {
    name: &'static str,
    endings: &'static [&'static str],
    at: fn(&DataDir) -> PathBuf,
}

const FOLDERS: [Folder; 3] = [
    Folder { name: "keys", endings: &[".key"], at: DataDir::keys },
    Folder { name: "tls", endings: &["outbound.crt", "outbound.key"], at: DataDir::tls },
    Folder { name: "hosts", endings: &[".crt", ".key"], at: DataDir::host_tls },
];

impl Folder {
    fn holds(&self, file: &str) -> bool {
        self.endings.iter().any(|ending| file.ends_with(ending))
    }
}

/// A file of the operator that no restore would take.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} can't be in a backup: names have letters, digits, `-`, `.` and `_`, and no dot at the start; \
     rename it or move it away", .0.display()
)]
struct UnfitName(PathBuf);

#[derive(Debug, Deserialize, Serialize)]
struct Manifest {
    format: u32,
    /// Member name -> SHA-256 of its content, hex.
    sha256: BTreeMap<String, String>,
}

/// How the admin API makes backups: one after the other, as each copies the whole ledger into the same folder. Whoever
/// hangs up leaves the line, or lets what began come to its end.
pub(crate) fn hook(dir: &DataDir, registrar: &Arc<Registrar>) -> muster_admin::Backup {
    let (dir, registrar) = (dir.clone(), Arc::clone(registrar));
    let turns = Arc::new(tokio::sync::Mutex::new(()));
    Arc::new(move || {
        let (dir, registrar, turns) = (dir.clone(), Arc::clone(&registrar), Arc::clone(&turns));
        Box::pin(async move {
            let turn = turns.lock_owned().await;
            let made = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                make(&dir, registrar.ledger())
            });
            made.await.map_err(io::Error::other)?.map_err(|error| {
                let kind =
                    if error.is::<UnfitName>() { io::ErrorKind::InvalidInput } else { io::ErrorKind::Other };
                io::Error::new(kind, format!("{error:#}"))
            })
        })
    })
}

/// Makes a backup, and hands out the file that was written, from its beginning; it has no name any more, so it is
/// gone when it is closed. No other may be made in the same data directory at the same time.
fn make(dir: &DataDir, ledger: &Ledger) -> anyhow::Result<File> {
    let folder = Making::new(dir)?;
    let (snapshot, target) = (folder.0.join(LEDGER), folder.0.join("archive"));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&target);
    let mut file = file.with_context(|| format!("can't create {}", target.display()))?;
    ledger.backup_to(&snapshot)?;
    pack(dir, &snapshot, &file)?;
    file.rewind()?;
    Ok(file)
}

/// The folder that a backup is made in; gone when it is made. What a process left that was killed goes first.
struct Making(PathBuf);

impl Making {
    fn new(dir: &DataDir) -> anyhow::Result<Self> {
        let path = dir.path().join(".backup");
        let _ = std::fs::remove_dir_all(&path);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("can't create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pack(dir: &DataDir, snapshot: &Path, file: &File) -> anyhow::Result<()> {
    let mut members = vec![(LEDGER.to_owned(), snapshot.to_owned())];
    if dir.config().exists() {
        members.push(("muster.toml".to_owned(), dir.config()));
    }
    for folder in &FOLDERS {
        let path = (folder.at)(dir);
        if !path.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&path).with_context(|| format!("can't read {}", path.display()))? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if folder.holds(&file) {
                members.push((format!("{}/{file}", folder.name), entry.path()));
            }
        }
    }
    // A restore refuses the whole of a backup that holds such a name; better to be told now.
    if let Some((_, path)) = members.iter().find(|(name, _)| !is_member_name(name)) {
        return Err(UnfitName(path.clone()).into());
    }
    let mut sha256 = BTreeMap::new();
    let mut contents = Vec::new();
    for (name, path) in members {
        // A certificate may be replaced while this runs, so what is hashed is what is packed. The ledger's
        // snapshot is too large for that, and nobody else's.
        let content = if name == LEDGER { None } else { Some(read_file(&path)?) };
        let digest = content.as_deref().map_or_else(|| hash_file(&path), |content| Ok(hash(content)?))?;
        sha256.insert(name.clone(), digest);
        contents.push((name, path, content));
    }
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    archive.mode(tar::HeaderMode::Deterministic);
    let manifest = serde_json::to_vec_pretty(&Manifest { format: FORMAT, sha256 })?;
    append(&mut archive, MANIFEST, &manifest)?;
    for (name, path, content) in &contents {
        match content {
            Some(content) => append(&mut archive, name, content),
            None => archive.append_path_with_name(path, name),
        }
        .with_context(|| format!("can't pack {}", path.display()))?;
    }
    Ok(archive.into_inner()?.finish()?.sync_all()?)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    archive.append_data(&mut header, name, content)
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

fn hash(content: &[u8]) -> io::Result<String> {
    let mut hash = Sha256Writer::default();
    hash.write_all(content)?;
    Ok(hash.finish_hex())
}

fn hash_file(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut hash = Sha256Writer::default();
    io::copy(&mut file, &mut hash)?;
    Ok(hash.finish_hex())
}

/// Makes a data directory from a backup.
///
/// # Errors
/// When the target holds a ledger, or the backup is broken in any way; the target is untouched then.
pub fn restore(dir: &DataDir, backup: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !dir.ledger().exists(),
        "{} holds a ledger; restore into another directory, or move this one away first",
        dir.path().display()
    );
    let file = File::open(backup).with_context(|| format!("can't read {}", backup.display()))?;
    let staging = Staging::new(dir)?;
    unpack(file, &staging.0).with_context(|| format!("{} is not a sound backup", backup.display()))?;
    let ledger = staging.0.join(LEDGER);
    Ledger::check(&ledger)
        .map_err(|error| anyhow::anyhow!("the ledger in {} is broken: {error}", backup.display()))?;
    dir.create()?;
    for folder in &FOLDERS {
        let target = (folder.at)(dir);
        for entry in std::fs::read_dir(staging.0.join(folder.name))? {
            let entry = entry?;
            // The staging is a data directory too, whose `tls` has a folder in it; members are files.
            if entry.file_type()?.is_file() {
                write_file(&target.join(entry.file_name()), &std::fs::read(entry.path())?, Readers::Owner)?;
            }
        }
    }
    if let Ok(config) = std::fs::read(staging.0.join("muster.toml")) {
        write_file(&dir.config(), &config, Readers::Owner)?;
    }
    // The ledger comes last: a directory that has one is whole.
    File::open(&ledger)?.sync_all()?;
    std::fs::rename(&ledger, dir.ledger())?;
    File::open(dir.path())?.sync_all()?;
    Ok(())
}

/// A folder beside the target that is gone when the restore ends, however it ends.
struct Staging(PathBuf);

impl Staging {
    fn new(dir: &DataDir) -> anyhow::Result<Self> {
        let path = std::path::absolute(dir.path())?.with_extension("restoring");
        let _ = std::fs::remove_dir_all(&path);
        let made = DataDir::new(&path).create().and_then(|()| lay_out(&path));
        made.with_context(|| format!("can't create {}", path.display()))?;
        Ok(Self(path))
    }
}

/// Makes the folders that members go into.
///
/// # Errors
/// When the file system refuses.
pub fn lay_out(target: &Path) -> io::Result<()> {
    FOLDERS.iter().try_for_each(|folder| std::fs::create_dir_all(target.join(folder.name)))
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Unpacks a backup into a folder that holds nothing but an empty one for each kind of member: checks its form, its
/// names and each member's SHA-256, and not yet the ledger. Whatever it says, nothing is written outside of the folder.
///
/// # Errors
/// When it is broken in any way; then members that came before the fault may lie there.
pub fn unpack(backup: impl Read, target: &Path) -> anyhow::Result<()> {
    let new_file =
        |name: &str| File::options().write(true).create_new(true).mode(0o600).open(target.join(name));
    read_members(backup, new_file).map(drop)
}

/// Whether a backup came whole: what [`unpack`] checks, and its end.
pub(crate) fn check(backup: impl Read) -> anyhow::Result<()> {
    let mut rest = read_members(backup, |_| Ok(io::sink()))?;
    io::copy(&mut rest, &mut io::sink()).context("its end is missing")?;
    Ok(())
}

/// Hands each member that is what the manifest says to what `open` makes for its name; returns what comes after them.
fn read_members<R: Read, W: Write>(
    backup: R,
    open: impl Fn(&str) -> io::Result<W>,
) -> anyhow::Result<GzDecoder<R>> {
    let mut archive = tar::Archive::new(GzDecoder::new(backup));
    let mut entries = archive.entries()?;
    let first = entries.next().context("it is empty")??;
    anyhow::ensure!(first.path()?.to_str() == Some(MANIFEST), "it does not begin with a manifest");
    let mut text = Vec::new();
    first.take(MANIFEST_MAX_BYTES).read_to_end(&mut text)?;
    let mut manifest: Manifest = serde_json::from_slice(&text).context("its manifest can't be read")?;
    anyhow::ensure!(manifest.format == FORMAT, "its format {} is not supported", manifest.format);
    anyhow::ensure!(manifest.sha256.contains_key(LEDGER), "it has no ledger");
    for entry in entries {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let expected =
            manifest.sha256.remove(&name).with_context(|| format!("{name} is not in its manifest"))?;
        anyhow::ensure!(is_member_name(&name), "{name} is not a valid member name");
        let found = copy_member(entry, open(&name)?)?;
        anyhow::ensure!(found == expected, "{name} does not have the SHA-256 of the manifest");
    }
    anyhow::ensure!(manifest.sha256.is_empty(), "members are missing: {:?}", manifest.sha256.keys());
    Ok(archive.into_inner())
}

/// Only these names are ever written: no path leads out of the folder.
fn is_member_name(name: &str) -> bool {
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'))
            && !text.starts_with('.')
    };
    match name.split_once('/') {
        None => matches!(name, LEDGER | "muster.toml"),
        Some((name, file)) => {
            plain(file) && FOLDERS.iter().any(|folder| folder.name == name && folder.holds(file))
        }
    }
}

fn copy_member(entry: impl Read, mut target: impl Write) -> anyhow::Result<String> {
    let mut hash = Sha256Writer::default();
    let mut entry = entry.take(MEMBER_MAX_BYTES);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = entry.read(&mut buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            return Ok(hash.finish_hex());
        }
        hash.write_all(piece)?;
        target.write_all(piece)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_member_leads_out_of_the_folder() {
        assert!(
            is_member_name("ledger.redb") && is_member_name("muster.toml") && is_member_name("keys/a-1.key")
        );
        assert!(is_member_name("hosts/_.example.com.crt") && is_member_name("hosts/api.example.com.key"));
        assert!(is_member_name("tls/outbound.crt") && is_member_name("tls/outbound.key"));
        for wrong in [
            "../x",
            "/etc/passwd",
            "hosts/a.pem",
            "hosts/../x.crt",
            "hosts/.x.crt",
            "keys/a.crt",
            "tls/a.key",
            "tls/est.pem",
            "keys/../../x.key",
            "keys/.x.key",
            "keys/a",
            "keys/a/b.key",
            "x",
            "",
        ] {
            assert!(!is_member_name(wrong), "{wrong}");
        }
    }
}
