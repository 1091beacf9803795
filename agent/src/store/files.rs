//! Files that are there whole or not at all, also after a power cut.
//!
//! Temporary file, fsync, rename, fsync of the folder: at each point between these steps the old content
//! or the new one is found under the name, never a part. Everything is readable by its owner alone, and
//! belongs to whom its folder belongs: what root does to a folder of the service is the service's.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};

/// Whether a replaced file must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must: fsync before and after the rename.
    Durable,
    /// It need not: whatever is lost is written again.
    Passing,
}

/// Replaces a file.
///
/// # Errors
/// When the file system refuses; the old content, if any, is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    write(path, bytes, durability, 0o600)
}

/// Writes a file that holds no secret and that everyone may read, such as a configuration in `/etc`; with the
/// folders above it.
///
/// # Errors
/// When the file system refuses; the old content, if any, is then still there.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder_of(path))?;
    write(path, bytes, Durability::Durable, 0o644)
}

fn write(path: &Path, bytes: &[u8], durability: Durability, mode: u32) -> io::Result<()> {
    let temporary = temporary(path)?;
    // A leftover of a crash would keep its own mode.
    absent_is_fine(std::fs::remove_file(&temporary))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    belong(&file, folder_of(path))?;
    file.write_all(bytes)?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    std::fs::rename(&temporary, path)?;
    if durability == Durability::Durable {
        sync_folder_of(path)?;
    }
    Ok(())
}

/// Removes a file for good; one that is not there is removed already.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    absent_is_fine(std::fs::remove_file(path))?;
    sync_folder_of(path)
}

/// Reads a file of at most `max_bytes`; `None` when there is none.
///
/// # Errors
/// When it can't be read or is longer.
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max_bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// Makes a folder and those above it, readable by its owner alone.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match stranger(&std::fs::metadata(path)?, folder_of(path))? {
        Some((owner, group)) => lchown(path, Some(owner), Some(group)),
        None => Ok(()),
    }
}

/// Gives a new file to whom its folder belongs. Only root finds another owner there: whoever else could make the
/// file in a stranger's folder keeps it.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn belong(file: &File, folder: &Path) -> io::Result<()> {
    match stranger(&file.metadata()?, folder)? {
        Some((owner, group)) => fchown(file, Some(owner), Some(group)),
        None => Ok(()),
    }
}

/// The folder's owner and group, where root made something in a folder of another.
fn stranger(made: &std::fs::Metadata, folder: &Path) -> io::Result<Option<(u32, u32)>> {
    let folder = std::fs::metadata(folder)?;
    Ok((made.uid() == ROOT && folder.uid() != ROOT).then(|| (folder.uid(), folder.gid())))
}

const ROOT: u32 = 0;

/// Makes what happened in a file's folder durable.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Where the new content of a file is before it gets its name.
///
/// # Errors
/// When the path names no file.
pub(crate) fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
    Ok(folder_of(path).join(format!(".{}.new", name.to_string_lossy())))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn what_root_writes_into_a_folder_of_the_service_belongs_to_the_service() {
        const SERVICE: u32 = 61_234;
        let folder = tempfile::tempdir().expect("a folder");
        if folder.path().metadata().expect("there").uid() != ROOT {
            eprintln!("NOT CHECKED: only root can give files away");
            return;
        }
        let owner = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("there");
            (metadata.uid(), metadata.gid())
        };
        let own = folder.path().join("own");
        make_folder(&own).expect("made");
        assert_eq!(owner(&own).0, ROOT);
        lchown(&own, Some(SERVICE), Some(SERVICE)).expect("given away");
        let (inner, file) = (own.join("slots"), own.join("slots/a"));
        make_folder(&inner).expect("made");
        replace(&file, b"key", Durability::Durable).expect("written");
        assert_eq!([owner(&inner), owner(&file)], [(SERVICE, SERVICE); 2]);
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_published_can_be_read_and_its_folder_be_entered() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("etc/agent.toml");
        publish(&path, b"device = 1").expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(folder_of(&path))), (0o644, 0o755));
    }
}
