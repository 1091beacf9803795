//! Files that are there whole or not at all, also after a power cut, in folders that are held open.
//!
//! Temporary file, fsync, rename, fsync of the folder: at each point between these steps the old content
//! or the new one is found under the name, never a part. Everything is readable by its owner alone, and
//! belongs to whom its folder belongs: what root does to a folder of the service is the service's.
//!
//! Root often works here (`enroll` at a terminal), in a folder that the service may write to. So names are looked up
//! from the open folder and never leave it: a link to anywhere else is refused, nothing is given away but what was
//! just made, and that by its handle.

use std::fs::DirBuilder;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, fchown};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::OFlags;

/// Whether a replaced file must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must: fsync before and after the rename.
    Durable,
    /// It need not: whatever is lost is written again.
    Passing,
}

/// A folder that is held open.
#[derive(Debug)]
pub(crate) struct Folder(Dir);

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// When the file system refuses, or there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Dir::open_ambient_dir(path, ambient_authority()).map(Self)
    }

    /// Opens a folder; it and those above it are made, readable by their owner alone, where there are none.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        let Some(name) = path.file_name().filter(|_| !path.is_dir()) else { return Self::open(path) };
        let above = folder_of(path);
        DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        Self::open(above)?.make_within(Path::new(name))
    }

    /// Opens a folder in this one, and makes it if there is none.
    ///
    /// # Errors
    /// When the file system refuses, or the name leads out of this folder.
    pub(crate) fn make_within(&self, name: &Path) -> io::Result<Self> {
        use cap_std::fs::DirBuilderExt as _;
        match self.0.create_dir_with(name, cap_std::fs::DirBuilder::new().mode(0o700)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.within(name),
            made => {
                made?;
                let folder = self.within(name)?;
                self.give(&folder.handle()?)?;
                Ok(folder)
            }
        }
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// When the file system refuses, there is none, or the name leads out of this folder.
    pub(crate) fn within(&self, name: &Path) -> io::Result<Self> {
        self.0.open_dir(name).map(Self)
    }

    /// Opens a file for writing, and makes it if there is none; what is in it stays.
    ///
    /// # Errors
    /// When the file system refuses, it is no file, or the name leads out of this folder.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<std::fs::File> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600).custom_flags(at_once());
        let there = match self.0.open_with(name, options.create_new(true)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                a_file(self.0.open_with(name, options.create_new(false))?)?
            }
            made => {
                let made = made?;
                self.give(&made)?;
                made
            }
        };
        Ok(there.into_std())
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// When the file system refuses; the old content, if any, is then still there.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8], durability: Durability) -> io::Result<()> {
        self.write(name, bytes, durability, 0o600)
    }

    /// Removes a file for good; one that is not there is removed already.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        absent_is_fine(self.0.remove_file(name))?;
        self.sync()
    }

    /// Removes a folder in this one with all that is in it; one that is not there is removed already.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn remove_within(&self, name: &Path) -> io::Result<()> {
        absent_is_fine(self.0.remove_dir_all(name))
    }

    /// Gives a file or folder in this one another name, for good; what has that name already is replaced.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, &self.0, to)?;
        self.sync()
    }

    /// Makes a link to something in this folder, in one step and for good, over a link that is there.
    ///
    /// # Errors
    /// When the file system refuses; the link is then as before.
    pub(crate) fn link(&self, name: &str, target: &Path) -> io::Result<()> {
        let temporary = temporary(name);
        absent_is_fine(self.0.remove_file(&temporary))?;
        self.0.symlink(target, &temporary)?;
        self.rename(&temporary, name)
    }

    /// Where a link leads; `None` when there is none.
    pub(crate) fn linked(&self, name: &str) -> Option<std::path::PathBuf> {
        self.0.read_link(name).ok()
    }

    /// The names of what is in this folder.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(crate) fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        self.0.entries()?.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// Reads a file of at most `max_bytes`; `None` when there is none.
    ///
    /// # Errors
    /// When it can't be read, is no file or longer, or the name leads out of this folder.
    pub(crate) fn read(&self, name: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        match self.open_to_read(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => read_bounded(file?, max_bytes).map(Some),
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// When it can't be read, is no file, or the name leads out of this folder.
    pub(crate) fn open_to_read(&self, name: &str) -> io::Result<std::fs::File> {
        let file = self.0.open_with(name, OpenOptions::new().read(true).custom_flags(at_once()))?;
        a_file(file).map(File::into_std)
    }

    fn write(&self, name: &str, bytes: &[u8], durability: Durability, mode: u32) -> io::Result<()> {
        let temporary = temporary(name);
        // A leftover of a crash would keep its own mode and owner.
        absent_is_fine(self.0.remove_file(&temporary))?;
        let mut file =
            self.0.open_with(&temporary, OpenOptions::new().write(true).create_new(true).mode(mode))?;
        self.give(&file)?;
        file.write_all(bytes)?;
        if durability == Durability::Passing {
            return self.0.rename(&temporary, &self.0, name);
        }
        file.sync_all()?;
        self.rename(&temporary, name)
    }

    /// Gives what was just made to whom the folder belongs. Only root finds another owner there: whoever else could
    /// make something in a stranger's folder keeps it.
    fn give(&self, made: &File) -> io::Result<()> {
        let folder = self.0.dir_metadata()?;
        if made.metadata()?.uid() == ROOT && folder.uid() != ROOT {
            fchown(made, Some(folder.uid()), Some(folder.gid()))?;
        }
        Ok(())
    }

    /// Makes what happened in this folder durable.
    fn sync(&self) -> io::Result<()> {
        self.handle()?.sync_all()
    }

    /// The folder as a file: the handle that lookups begin at can do nothing else.
    fn handle(&self) -> io::Result<File> {
        self.0.open(".")
    }
}

/// Replaces a file.
///
/// # Errors
/// When the file system refuses; the old content, if any, is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    Folder::open(folder_of(path))?.replace(name_of(path)?, bytes, durability)
}

/// Writes a file that holds no secret and that everyone may read, such as a configuration in `/etc`; with the
/// folders above it.
///
/// # Errors
/// When the file system refuses; the old content, if any, is then still there.
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder_of(path))?;
    Folder::open(folder_of(path))?.write(name_of(path)?, bytes, Durability::Durable, 0o644)
}

/// Removes a file for good; one that is not there is removed already.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    Folder::open(folder_of(path))?.remove(name_of(path)?)
}

/// Reads a file that an operator named, of at most `max_bytes`; `None` when there is none.
///
/// # Errors
/// When it can't be read or is longer.
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => read_bounded(file?, max_bytes).map(Some),
    }
}

/// Where the new content of a file is before it gets its name.
pub(crate) fn temporary(name: &str) -> String {
    format!(".{name}.new")
}

fn read_bounded(file: impl io::Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// A pipe or a device in a file's place could keep its reader for ever.
fn a_file(opened: File) -> io::Result<File> {
    if opened.metadata()?.is_file() { Ok(opened) } else { Err(io::Error::other("it is no regular file")) }
}

/// The flag by which opening a pipe does not wait for its other end.
fn at_once() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

fn name_of(path: &Path) -> io::Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| io::Error::other("not a file name"))
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

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use super::*;

    const SERVICE: u32 = 61_234;

    /// A folder of the service, and one of root's beside it. `None`, and said so, where the test is not run by root.
    fn folders() -> Option<(tempfile::TempDir, std::path::PathBuf, std::path::PathBuf)> {
        let above = tempfile::tempdir().expect("a folder");
        if above.path().metadata().expect("there").uid() != ROOT {
            eprintln!("NOT CHECKED: only root can give files away");
            return None;
        }
        let (own, roots) = (above.path().join("own"), above.path().join("roots"));
        for folder in [&own, &roots] {
            Folder::make(folder).expect("made");
        }
        chown(&own, Some(SERVICE), Some(SERVICE)).expect("given away");
        Some((above, own, roots))
    }

    fn owner(path: &Path) -> (u32, u32) {
        let metadata = std::fs::metadata(path).expect("there");
        (metadata.uid(), metadata.gid())
    }

    #[test]
    fn what_root_writes_into_a_folder_of_the_service_belongs_to_the_service() {
        let Some((_above, own, roots)) = folders() else { return };
        assert_eq!([owner(&roots).0, owner(&own).0], [ROOT, SERVICE]);
        let inner = Folder::make(&own.join("slots")).expect("made");
        inner.replace("a", b"key", Durability::Durable).expect("written");
        inner.open_file("lock").expect("opened");
        for made in ["slots", "slots/a", "slots/lock"] {
            assert_eq!(owner(&own.join(made)), (SERVICE, SERVICE), "{made}");
        }
        let mode = std::fs::metadata(own.join("slots/a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_link_of_the_service_leads_root_nowhere_else() {
        let Some((_above, own, roots)) = folders() else { return };
        std::fs::write(roots.join("shadow"), "secret").expect("written");
        symlink("../roots", own.join("slots")).expect("linked");
        symlink(roots.join("shadow"), own.join("lock")).expect("linked");
        symlink(roots.join("new"), own.join(".trust.pem.new")).expect("linked");
        symlink(roots.join("new"), own.join("dangling")).expect("linked");
        let folder = Folder::open(&own).expect("opens");
        folder.make_within(Path::new("slots")).expect_err("it leads out");
        for name in ["lock", "dangling"] {
            folder.open_file(name).expect_err("it leads out");
            folder.read(name, 100).expect_err("it leads out");
        }
        folder.replace("trust.pem", b"trust", Durability::Durable).expect("the link is replaced");
        folder.remove_within(Path::new("slots/shadow")).expect_err("it leads out");
        assert_eq!(std::fs::read(roots.join("shadow")).expect("there"), b"secret");
        assert_eq!(owner(&roots.join("shadow")).0, ROOT);
        assert_eq!(std::fs::read_dir(&roots).expect("there").count(), 1, "nothing was made there");
        assert_eq!(std::fs::read(own.join("trust.pem")).expect("there"), b"trust");
    }

    #[test]
    fn a_file_that_was_there_is_not_given_away() {
        let Some((_above, own, roots)) = folders() else { return };
        std::fs::write(roots.join("shadow"), "secret").expect("written");
        // Where the system lets the service do that.
        std::fs::hard_link(roots.join("shadow"), own.join("lock")).expect("linked");
        Folder::open(&own).expect("opens").open_file("lock").expect("opened");
        assert_eq!(owner(&roots.join("shadow")).0, ROOT);
    }

    #[test]
    fn a_pipe_in_place_of_a_file_holds_nobody_up() {
        let above = tempfile::tempdir().expect("a folder");
        let pipe = above.path().join("lock");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("made");
        let folder = Folder::open(above.path()).expect("opens");
        folder.read("lock", 100).expect_err("it is no file");
        folder.open_file("lock").expect_err("it is no file");
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
