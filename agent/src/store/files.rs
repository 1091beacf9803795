//! Files that are there whole or not at all, also after a power cut.
//!
//! Temporary file, fsync, rename, fsync of the folder: at each point between these steps the old content
//! or the new one is found under the name, never a part. Everything is readable by its owner alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
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
    let temporary = temporary(path)?;
    // A leftover of a crash would keep its own mode.
    absent_is_fine(std::fs::remove_file(&temporary))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
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
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

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
