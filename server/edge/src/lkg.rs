//! The last known good state, so that an edge starts while its control plane is away.
//!
//! Kept in sled: the snapshot without its long lists as one value, each revoked certificate and each
//! device under a key of its own, so that a revocation writes tens of octets and not a million
//! entries, and a snapshot only what is different from what is there. Losing the newest writes in a
//! power cut is no harm: the control plane tells them again, and until then the state is older and staleness counts. Server keys are in it in the clear: the
//! folder is made for its owner alone (0700), as the folder of the CA keys is.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use muster_policy::host::HostPattern;
use serde::de::DeserializeOwned;

use crate::snapshot::{
    AccountEntry, CaEntry, CertificateKey, DeviceEntry, Elsewhere, Event, FORM, HostEntry, ListEntry,
    PrintKey, Snapshot, Update,
};
use muster_policy::time::UnixTime;

const HEAD: &[u8] = b"head";
/// Everyone else is kept out.
const FOLDER_MODE: u32 = 0o700;
/// What sled may keep of the file in memory; the state is read once.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Why the state can't be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LastKnownGoodError {
    /// The folder can't be made or made private.
    #[error("its folder: {0}")]
    Folder(std::io::Error),
    /// sled failed.
    #[error(transparent)]
    Storage(#[from] sled::Error),
    /// A change before could not be kept.
    #[error("it lacks a change that came before")]
    Behind,
    /// An entry can't be written or read.
    #[error("an entry can't be read or written")]
    Entry,
    /// The edge ends first.
    #[error("given up, as the edge ends")]
    GivenUp,
    /// There is no thread that writes it.
    #[error("its thread: {0}")]
    Thread(std::io::Error),
}

/// The stored state.
pub(crate) struct LastKnownGood {
    database: sled::Db,
    accounts: sled::Tree,
    cas: sled::Tree,
    hosts: sled::Tree,
    revoked: sled::Tree,
    devices: sled::Tree,
    prints: sled::Tree,
    lists: sled::Tree,
}

type Outcome<T> = Result<T, LastKnownGoodError>;

/// The state of a folder through errors of its disk, after one of which sled refuses everything until it is opened anew.
pub(crate) struct Kept {
    folder: PathBuf,
    state: Option<LastKnownGood>,
}

impl Kept {
    /// The state, which is that of this folder.
    pub(crate) const fn new(folder: PathBuf, state: LastKnownGood) -> Self {
        Self { folder, state: Some(state) }
    }

    /// [`LastKnownGood::keep`].
    ///
    /// # Errors
    /// As there, and those of [`LastKnownGood::open`].
    pub(crate) fn keep(&mut self, update: &Update, gives_up: &AtomicBool) -> Outcome<()> {
        let state = match self.state.take() {
            Some(state) => state,
            None => LastKnownGood::open(&self.folder)?,
        };
        let kept = state.keep(update, gives_up);
        if !matches!(kept, Err(LastKnownGoodError::Storage(_))) {
            self.state = Some(state);
        }
        kept
    }
}

impl LastKnownGood {
    /// Opens the state in a folder, or makes an empty one.
    ///
    /// # Errors
    /// [`LastKnownGoodError`].
    pub(crate) fn open(folder: &Path) -> Outcome<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(LastKnownGoodError::Folder)?;
        // A folder that was there before may be open to others.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(FOLDER_MODE))
            .map_err(LastKnownGoodError::Folder)?;
        let database = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).open()?;
        Ok(Self {
            accounts: database.open_tree("accounts")?,
            cas: database.open_tree("cas")?,
            hosts: database.open_tree("hosts")?,
            revoked: database.open_tree("revoked")?,
            devices: database.open_tree("devices")?,
            prints: database.open_tree("prints")?,
            lists: database.open_tree("lists")?,
            database,
        })
    }

    /// The state as it was last kept; `None` when there is none, or none of this form.
    ///
    /// # Errors
    /// [`LastKnownGoodError`] when an entry can't be read.
    pub(crate) fn load(&self) -> Outcome<Option<Snapshot>> {
        let Some(head) = self.database.get(HEAD)? else { return Ok(None) };
        let (form, change, made_at): (u8, u64, UnixTime) = decode(&head)?;
        if form != FORM {
            tracing::warn!(form, "the last known good state has another form and is not used");
            return Ok(None);
        }
        Ok(Some(Snapshot {
            change,
            made_at,
            accounts: all(&self.accounts)?,
            cas: all(&self.cas)?,
            hosts: all(&self.hosts)?,
            revoked: all(&self.revoked)?,
            devices: all(&self.devices)?,
            elsewhere: Elsewhere { prints: all(&self.prints)?, lists: all(&self.lists)? },
        }))
    }

    /// Keeps an update that the edge has taken.
    ///
    /// # Errors
    /// [`LastKnownGoodError`]; the state then is an older one, or none, and stays so until the next
    /// snapshot: what it lacks is not made up for by later changes, which are
    /// [`LastKnownGoodError::Behind`]. [`LastKnownGoodError::GivenUp`] soon after `gives_up` is set.
    pub(crate) fn keep(&self, update: &Update, gives_up: &AtomicBool) -> Outcome<()> {
        let is_heartbeat = matches!(update, Update::Delta(delta) if delta.events.is_empty());
        self.put(update, gives_up)?;
        // sled keeps in this process what it was given a while before, and a process that is killed loses it.
        if is_heartbeat { Ok(()) } else { Ok(self.database.flush().map(drop)?) }
    }

    fn put(&self, update: &Update, gives_up: &AtomicBool) -> Outcome<()> {
        match update {
            Update::Snapshot(snapshot) => self.keep_snapshot(snapshot, gives_up),
            Update::Delta(delta) => {
                if self.change()? != Some(delta.from) {
                    return Err(LastKnownGoodError::Behind);
                }
                for event in &delta.events {
                    go_on(gives_up)?;
                    self.keep_event(event)?;
                }
                self.put_head(delta.change, delta.made_at)
            }
        }
    }

    fn keep_snapshot(&self, snapshot: &Snapshot, gives_up: &AtomicBool) -> Outcome<()> {
        let Snapshot { change, made_at, accounts, cas, hosts, revoked, devices, elsewhere } = snapshot;
        let accounts = accounts.iter().map(|entry| (entry.id.as_bytes().to_vec(), entry));
        self.replace(&self.accounts, accounts, gives_up)?;
        let cas = cas.iter().map(|entry| (entry.id.as_bytes().to_vec(), entry));
        self.replace(&self.cas, cas, gives_up)?;
        let hosts = hosts.iter().map(|entry| (host_name(&entry.rule.host), entry));
        self.replace(&self.hosts, hosts, gives_up)?;
        let revoked = revoked.iter().map(|key| (certificate_name(key), key));
        self.replace(&self.revoked, revoked, gives_up)?;
        let devices = devices.iter().filter(|entry| !entry.is_plain());
        self.replace(&self.devices, devices.map(|entry| (device_name(entry), entry)), gives_up)?;
        let prints = elsewhere.prints.iter().map(|key| (print_name(key), key));
        self.replace(&self.prints, prints, gives_up)?;
        let lists = elsewhere.lists.iter().filter(|entry| entry.closes_at.is_some());
        let lists = lists.map(|entry| (entry.ca.as_bytes().to_vec(), entry));
        self.replace(&self.lists, lists, gives_up)?;
        self.put_head(*change, *made_at)
    }

    /// Has a tree hold these entries and no others. What it holds already is not written again.
    fn replace<'a, T: serde::Serialize + 'a>(
        &self,
        tree: &sled::Tree,
        entries: impl Iterator<Item = (Vec<u8>, &'a T)>,
        gives_up: &AtomicBool,
    ) -> Outcome<()> {
        let mut missing: BTreeMap<Vec<u8>, &T> = entries.collect();
        let mut stale = Vec::new();
        for kept in tree {
            go_on(gives_up)?;
            let (name, value) = kept?;
            match missing.get(&*name) {
                Some(entry) if encode(entry)? == *value => drop(missing.remove(&*name)),
                // It is written over.
                Some(_) => {}
                None => stale.push(name),
            }
        }
        if missing.is_empty() && stale.is_empty() {
            return Ok(());
        }
        // Without a head there is no state: half of one is never started from.
        self.database.remove(HEAD)?;
        for name in stale {
            go_on(gives_up)?;
            tree.remove(name)?;
        }
        for (name, entry) in missing {
            go_on(gives_up)?;
            put(tree, &name, entry)?;
        }
        Ok(())
    }

    fn keep_event(&self, event: &Event) -> Outcome<()> {
        match event {
            Event::Account(entry) => self.put_account(entry),
            Event::Ca(entry) => self.put_ca(entry),
            Event::CaRemoved(id) => Ok(self.cas.remove(id.as_bytes()).map(drop)?),
            Event::Device(entry) => self.put_device(entry),
            Event::Host(entry) => self.put_host(entry),
            Event::HostRemoved(pattern) => Ok(self.hosts.remove(host_name(pattern)).map(drop)?),
            Event::List(entry) => self.put_list(entry),
            Event::PrintReactivated(key) => Ok(self.prints.remove(print_name(key)).map(drop)?),
            Event::PrintRevoked(key) => put(&self.prints, &print_name(key), key),
            Event::Reactivated(key) => Ok(self.revoked.remove(certificate_name(key)).map(drop)?),
            Event::Revoked(key) => put(&self.revoked, &certificate_name(key), key),
        }
    }

    /// The last change that is in the state, if there is one.
    fn change(&self) -> Outcome<Option<u64>> {
        let Some(head) = self.database.get(HEAD)? else { return Ok(None) };
        let (_, change, _): (u8, u64, UnixTime) = decode(&head)?;
        Ok(Some(change))
    }

    fn put_head(&self, change: u64, made_at: UnixTime) -> Outcome<()> {
        let head = encode(&(FORM, change, made_at))?;
        self.database.insert(HEAD, head)?;
        Ok(())
    }

    fn put_account(&self, entry: &AccountEntry) -> Outcome<()> {
        put(&self.accounts, entry.id.as_bytes(), entry)
    }

    fn put_ca(&self, entry: &CaEntry) -> Outcome<()> {
        put(&self.cas, entry.id.as_bytes(), entry)
    }

    fn put_host(&self, entry: &HostEntry) -> Outcome<()> {
        put(&self.hosts, &host_name(&entry.rule.host), entry)
    }

    fn put_list(&self, entry: &ListEntry) -> Outcome<()> {
        if entry.closes_at.is_some() {
            put(&self.lists, entry.ca.as_bytes(), entry)
        } else {
            Ok(self.lists.remove(entry.ca.as_bytes()).map(drop)?)
        }
    }

    fn put_device(&self, entry: &DeviceEntry) -> Outcome<()> {
        let name = device_name(entry);
        // A fleet of plain devices leaves no trace here, as it leaves none in a snapshot.
        if entry.is_plain() {
            Ok(self.devices.remove(name).map(drop)?)
        } else {
            put(&self.devices, &name, entry)
        }
    }
}

fn go_on(gives_up: &AtomicBool) -> Outcome<()> {
    if gives_up.load(Ordering::Relaxed) { Err(LastKnownGoodError::GivenUp) } else { Ok(()) }
}

fn certificate_name(key: &CertificateKey) -> Vec<u8> {
    [key.ca.as_bytes(), key.serial.as_bytes()].concat()
}

fn device_name(entry: &DeviceEntry) -> Vec<u8> {
    [entry.account.as_bytes(), entry.device.as_str().as_bytes()].concat()
}

fn print_name(key: &PrintKey) -> Vec<u8> {
    [key.ca.as_bytes().as_slice(), key.fingerprint.as_bytes()].concat()
}

fn host_name(pattern: &HostPattern) -> Vec<u8> {
    pattern.to_string().into_bytes()
}

fn put(tree: &sled::Tree, name: &[u8], entry: &impl serde::Serialize) -> Outcome<()> {
    tree.insert(name, encode(entry)?)?;
    Ok(())
}

fn all<T: DeserializeOwned>(tree: &sled::Tree) -> Outcome<Vec<T>> {
    tree.iter().values().map(|value| decode(&value?)).collect()
}

fn encode(entry: &impl serde::Serialize) -> Outcome<Vec<u8>> {
    rmp_serde::to_vec(entry).map_err(|_| LastKnownGoodError::Entry)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Outcome<T> {
    rmp_serde::from_slice(bytes).map_err(|_| LastKnownGoodError::Entry)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_policy::enrol::DeviceStatus;
    use muster_policy::identity::{AccountId, CaId, Fingerprint, Serial};

    use super::*;
    use crate::snapshot::Delta;

    static GOES_ON: AtomicBool = AtomicBool::new(false);

    #[test]
    fn a_state_that_was_let_go_of_is_opened_anew() {
        let temp = tempfile::tempdir().expect("a folder");
        // As after an error of the disk.
        let mut kept = Kept { folder: temp.path().to_owned(), state: None };
        kept.keep(&Update::Snapshot(Box::new(snapshot())), &GOES_ON).expect("kept");
        let state = kept.state.take().expect("open");
        assert_eq!(state.load().expect("read").map(|snapshot| snapshot.change), Some(7));
        let behind =
            Update::Delta(Delta { from: 8, change: 9, made_at: UnixTime::EPOCH, events: Vec::new() });
        kept.state = Some(state);
        kept.keep(&behind, &GOES_ON).expect_err("it builds on another change");
        assert!(kept.state.is_some(), "no fault of the disk");
    }

    fn key(serial: u8) -> CertificateKey {
        let serial = Serial::from_bytes(&[serial]).expect("a serial");
        CertificateKey { ca: CaId::from_bytes([1; 16]), serial }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            change: 7,
            made_at: UnixTime::from_secs(100),
            accounts: Vec::new(),
            cas: Vec::new(),
            hosts: Vec::new(),
            revoked: vec![key(1)],
            devices: Vec::new(),
            elsewhere: Elsewhere::default(),
        }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = temp.path().join("edge");
        {
            let kept = LastKnownGood::open(&folder).expect("opened");
            assert!(kept.load().expect("read").is_none());
            kept.keep(&Update::Snapshot(Box::new(snapshot())), &GOES_ON).expect("kept");
            let events = vec![Event::Revoked(key(2)), Event::Reactivated(key(1))];
            let delta = Delta { from: 7, change: 9, made_at: UnixTime::from_secs(200), events };
            kept.keep(&Update::Delta(delta), &GOES_ON).expect("kept");
        }
        let mode = std::fs::metadata(&folder).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, FOLDER_MODE);
        let loaded = LastKnownGood::open(&folder).expect("opened").load().expect("read").expect("a state");
        assert_eq!((loaded.change, loaded.made_at), (9, UnixTime::from_secs(200)));
        assert_eq!(loaded.revoked, [key(2)]);
    }

    #[test]
    fn a_change_that_was_missed_is_not_made_up_for_by_later_ones() {
        let temp = tempfile::tempdir().expect("a folder");
        let kept = LastKnownGood::open(temp.path()).expect("opened");
        let delta = |from, serial| {
            let events = vec![Event::Revoked(key(serial))];
            Update::Delta(Delta { from, change: from + 1, made_at: UnixTime::from_secs(200), events })
        };
        let behind = |kept: Outcome<()>| assert!(matches!(kept, Err(LastKnownGoodError::Behind)), "{kept:?}");
        behind(kept.keep(&delta(7, 2), &GOES_ON));
        assert!(kept.load().expect("read").is_none(), "a delta alone is no state");
        kept.keep(&Update::Snapshot(Box::new(snapshot())), &GOES_ON).expect("kept");
        // From 7 to 8 is missing.
        behind(kept.keep(&delta(8, 3), &GOES_ON));
        let loaded = kept.load().expect("read").expect("a state");
        assert_eq!((loaded.change, loaded.made_at), (7, UnixTime::from_secs(100)));
        kept.keep(&delta(7, 2), &GOES_ON).expect("kept");
        assert_eq!(kept.load().expect("read").expect("a state").change, 8);
    }

    #[test]
    fn what_is_known_of_cas_elsewhere_is_there_after_a_restart() {
        let temp = tempfile::tempdir().expect("a folder");
        let ca = CaId::from_bytes([1; 16]);
        let print = |octet| PrintKey { ca, fingerprint: Fingerprint::from_bytes([octet; 32]) };
        let list = |at: i64| ListEntry { ca, closes_at: Some(UnixTime::from_secs(at)) };
        let kept = LastKnownGood::open(temp.path()).expect("opened");
        let elsewhere = Elsewhere { prints: vec![print(1)], lists: vec![list(100)] };
        kept.keep(&Update::Snapshot(Box::new(Snapshot { elsewhere, ..snapshot() })), &GOES_ON).expect("kept");
        let events =
            vec![Event::PrintRevoked(print(2)), Event::PrintReactivated(print(1)), Event::List(list(200))];
        let delta = Delta { from: 7, change: 8, made_at: UnixTime::from_secs(200), events };
        kept.keep(&Update::Delta(delta), &GOES_ON).expect("kept");
        let loaded = kept.load().expect("read").expect("a state").elsewhere;
        assert_eq!(loaded, Elsewhere { prints: vec![print(2)], lists: vec![list(200)] });
        let events = vec![Event::List(ListEntry { ca, closes_at: None })];
        let delta = Delta { from: 8, change: 9, made_at: UnixTime::from_secs(200), events };
        kept.keep(&Update::Delta(delta), &GOES_ON).expect("kept");
        assert!(kept.load().expect("read").expect("a state").elsewhere.lists.is_empty());
        kept.keep(&Update::Snapshot(Box::new(snapshot())), &GOES_ON).expect("kept");
        assert_eq!(kept.load().expect("read").expect("a state").elsewhere, Elsewhere::default());
    }

    #[test]
    fn a_device_that_is_plain_again_leaves_no_entry() {
        let temp = tempfile::tempdir().expect("a folder");
        let kept = LastKnownGood::open(temp.path()).expect("opened");
        kept.keep(&Update::Snapshot(Box::new(snapshot())), &GOES_ON).expect("kept");
        for (change, status) in [(8, DeviceStatus::Suspended), (9, DeviceStatus::Active)] {
            let entry = DeviceEntry {
                account: AccountId::from_bytes([1; 16]),
                device: "meter-1".parse().expect("an id"),
                status,
                groups: Default::default(),
            };
            let events = vec![Event::Device(entry)];
            let made_at = UnixTime::from_secs(200);
            kept.keep(&Update::Delta(Delta { from: change - 1, change, made_at, events }), &GOES_ON)
                .expect("kept");
            let devices = kept.load().expect("read").expect("a state").devices;
            assert_eq!(devices.is_empty(), status == DeviceStatus::Active);
        }
    }

    fn device(number: u16, group: &str) -> DeviceEntry {
        DeviceEntry {
            account: AccountId::from_bytes([1; 16]),
            device: format!("meter-{number}").parse().expect("an id"),
            status: DeviceStatus::Active,
            groups: [group.to_owned()].into(),
        }
    }

    fn with_devices(change: u64, devices: impl Iterator<Item = DeviceEntry>) -> Snapshot {
        Snapshot { change, devices: devices.collect(), ..snapshot() }
    }

    #[test]
    fn of_a_snapshot_only_what_is_different_is_written() {
        let temp = tempfile::tempdir().expect("a folder");
        let kept = LastKnownGood::open(temp.path()).expect("opened");
        let keep = |snapshot: &Snapshot| {
            kept.keep(&Update::Snapshot(Box::new(snapshot.clone())), &GOES_ON).expect("kept");
        };
        let first = with_devices(7, (0..1_000).map(|number| device(number, "north")));
        keep(&first);
        let mut written = kept.devices.watch_prefix([]);
        let mut heads = kept.database.watch_prefix(HEAD);
        let next = |events: &mut sled::Subscriber| events.next_timeout(Duration::ZERO).ok();
        keep(&Snapshot { change: 8, ..first });
        assert!(
            matches!(next(&mut heads), Some(sled::Event::Insert { .. })),
            "the state was there all the time"
        );
        // One is gone, one has other groups, one is new.
        let group = |number| if number == 500 { "south" } else { "north" };
        let second = with_devices(9, (1..1_001).map(|number| device(number, group(number))));
        keep(&second);
        let events: Vec<_> = std::iter::from_fn(|| next(&mut written)).collect();
        assert_eq!(events.len(), 3, "{events:?}");
        assert!(
            matches!(next(&mut heads), Some(sled::Event::Remove { .. })),
            "no state while it is half of one"
        );
        let loaded = kept.load().expect("read").expect("a state");
        let sorted = |mut devices: Vec<DeviceEntry>| {
            devices.sort_by(|one, other| one.device.cmp(&other.device));
            devices
        };
        assert_eq!((loaded.change, sorted(loaded.devices)), (9, sorted(second.devices)));
    }

    #[test]
    fn half_of_a_snapshot_is_no_state_and_is_completed_by_the_next_one() {
        let temp = tempfile::tempdir().expect("a folder");
        let kept = LastKnownGood::open(temp.path()).expect("opened");
        let keep = |snapshot: &Snapshot, gives_up: &AtomicBool| {
            kept.keep(&Update::Snapshot(Box::new(snapshot.clone())), gives_up)
        };
        keep(&snapshot(), &GOES_ON).expect("kept");
        let large = with_devices(8, (0..20_000).map(|number| device(number, "north")));
        let gives_up = AtomicBool::new(false);
        let mut written = kept.devices.watch_prefix([]);
        let given_up = std::thread::scope(|threads| {
            let writing = threads.spawn(|| keep(&large, &gives_up));
            written.by_ref().take(100).for_each(drop);
            gives_up.store(true, Ordering::Relaxed);
            // Who is not heard any more is not waited for.
            drop(written);
            writing.join().expect("no panic")
        });
        assert!(matches!(given_up, Err(LastKnownGoodError::GivenUp)), "{given_up:?}");
        assert!(kept.load().expect("read").is_none(), "half of a state");
        assert!((100..20_000).contains(&kept.devices.len()));
        keep(&large, &GOES_ON).expect("kept");
        let loaded = kept.load().expect("read").expect("a state");
        assert_eq!((loaded.change, loaded.devices.len()), (8, 20_000));
    }
}
