//! `muster init`: an account from nothing.
//!
//! Everything lies under one directory, which may hold other things but nothing of those that are made. It is made in
//! a folder within, and moved to its place when all of it is there, the ledger last: without a ledger there is no
//! account, and a run that fails or is killed leaves nothing that keeps it from being repeated. Of several at once,
//! one has the directory to itself.

use std::fmt::Display;
use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use muster_ca::file_key::{CaAlgorithm, Passphrase};
use muster_enroll::{Authority, Clock, FoundingPlan, KeyFolder, hash_secret, new_secret};
use muster_policy::identity::{AccountId, TokenId, ZoneId};
use muster_policy::name::{Hostname, Title, TrustDomain};
use muster_policy::profile::ProfileWritten;
use muster_store::act::{AddZone, By, CreateAccount, CreateAdminToken, SetProfile};
use muster_store::record::{Account, Actor, AdminRole, AdminToken, Zone};
use muster_store::{Ledger, Options};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;

use crate::config::{Config, ConfigWritten};
use crate::datadir::{DataDir, Readers, write_file};
use crate::est_tls::EstTls;

/// Trust domain of an account without a zone; `.internal` is reserved for private use.
const TRUST_DOMAIN_DEFAULT: &str = "muster.internal";

/// What is to be made.
pub struct InitPlan {
    /// The data directory; made if missing, and refused if anything that is to be made is there.
    pub dir: PathBuf,
    /// Name of the account.
    pub account: Title,
    /// Its domains.
    pub zones: Vec<Hostname>,
    /// Its trust domain; else the first zone.
    pub trust_domain: Option<TrustDomain>,
    /// Algorithm of the CA keys.
    pub algorithm: CaAlgorithm,
    /// Domains the services CA is limited to.
    pub permitted_dns: Vec<Hostname>,
    /// Passphrase of the CA keys.
    pub passphrase: Option<Passphrase>,
    /// The configuration to write.
    pub config: ConfigWritten,
}

impl InitPlan {
    /// An account with default settings.
    ///
    /// # Errors
    /// When a name is none.
    pub fn new(dir: PathBuf, account: &str, zones: &[&str]) -> anyhow::Result<Self> {
        Ok(Self {
            dir,
            account: account.parse()?,
            zones: zones.iter().map(|zone| zone.parse()).collect::<Result<_, _>>()?,
            trust_domain: None,
            algorithm: CaAlgorithm::EcdsaP256,
            permitted_dns: Vec::new(),
            passphrase: None,
            config: ConfigWritten::default(),
        })
    }
}

/// What was made: what a person or script needs to go on.
#[derive(Clone, Debug, Serialize)]
pub struct Initialised {
    /// The account.
    pub account_id: AccountId,
    /// Its zones.
    pub zones: Vec<InitialisedZone>,
    /// Token of the admin API; shown this once.
    pub admin_token: String,
    /// Base URL of the admin API.
    pub api_url: String,
    /// Base URL of EST.
    pub est_url: String,
    /// PEM of the account root: what clients trust.
    pub ca_file: PathBuf,
}

/// A zone that was made.
#[derive(Clone, Debug, Serialize)]
pub struct InitialisedZone {
    /// Its id.
    pub id: ZoneId,
    /// Its domain.
    pub name: Hostname,
}

/// Makes an account.
///
/// # Errors
/// When the directory is in use, or can't be written.
pub async fn init(plan: InitPlan, clock: &Clock) -> anyhow::Result<Initialised> {
    let dir = DataDir::new(&plan.dir);
    refuse_account(&dir)?;
    refuse_twice(&plan.zones)?;
    let config = plan.config.clone().check(dir.path())?;
    let new_folder = !dir.path().exists();
    // Apart, as it is large.
    let made = Box::pin(make_and_publish(plan, config, &dir, clock)).await;
    if made.is_err() && new_folder {
        // With another run's things in it, it stays.
        let _ = std::fs::remove_dir(dir.path());
    }
    made
}

async fn make_and_publish(
    plan: InitPlan,
    config: Config,
    dir: &DataDir,
    clock: &Clock,
) -> anyhow::Result<Initialised> {
    let _alone = alone(dir)?;
    refuse_account(dir)?;
    let making = Making::begin(dir)?;
    // Only now, as it may be what a killed run had moved already.
    refuse_what_is_there(dir)?;
    let made = make(plan, config, &making.0, clock).await?;
    making.publish(dir)?;
    Ok(Initialised { ca_file: absolute(&dir.ca_file()), ..made })
}

/// Makes the directory, and is the only run there for as long as what is returned lives.
fn alone(dir: &DataDir) -> anyhow::Result<File> {
    let lock = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir.path())?;
        File::open(dir.path())
    };
    let folder = lock().with_context(|| format!("can't create {}", dir.path().display()))?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder),
        Err(Errno::WOULDBLOCK) => anyhow::bail!("another `muster init` of {} runs", dir.path().display()),
        Err(error) => Err(error).with_context(|| format!("can't lock {}", dir.path().display())),
    }
}

/// The folder in which an account is made; removed when dropped.
struct Making(DataDir);

impl Making {
    /// The folder in a data directory.
    const NAME: &str = ".init";
    /// Names the files that are moved, one in a line, from before the first of them is.
    const MOVING: &str = "moving";

    /// An empty one, in the place of what a killed run left.
    fn begin(dir: &DataDir) -> anyhow::Result<Self> {
        let made = DataDir::new(dir.path().join(Self::NAME));
        Self::clear(dir, &made)?;
        made.create().with_context(|| format!("can't create {}", made.path().display()))?;
        Ok(Self(made))
    }

    /// Removes what a killed run made, and what of it was in its place already.
    fn clear(dir: &DataDir, made: &DataDir) -> anyhow::Result<()> {
        let list = made.path().join(Self::MOVING);
        let cleared = || format!("can't remove what an earlier run left in {}", dir.path().display());
        let Some(moving) = if_there(std::fs::read_to_string(&list)).with_context(cleared)? else {
            return if_there(std::fs::remove_dir_all(made.path())).map(drop).with_context(cleared);
        };
        let moved: Vec<Moving> = moving.lines().filter_map(|line| line.parse().ok()).collect();
        let moved = moved.iter().filter(|file| !made.path().join(&file.name).exists());
        for file in moved {
            let place = dir.path().join(&file.name);
            match if_there(std::fs::symlink_metadata(&place)).with_context(cleared)? {
                None => {}
                Some(found) if Stamp::of(&found) == file.stamp => {
                    std::fs::remove_file(&place).with_context(cleared)?;
                }
                Some(_) => anyhow::bail!(
                    "{} was changed since a `muster init` that was cut off made it; move it away, and repeat",
                    place.display()
                ),
            }
        }
        // First, so that it is never of another run than the rest.
        std::fs::remove_file(list).with_context(cleared)?;
        std::fs::remove_dir_all(made.path()).with_context(cleared)
    }

    /// Moves everything to its place, the ledger last.
    fn publish(&self, dir: &DataDir) -> anyhow::Result<()> {
        // Keys take their time.
        refuse_what_is_there(dir)?;
        let failed = || format!("can't put what was made into {}", dir.path().display());
        self.move_all(dir).inspect_err(|_| drop(Self::clear(dir, &self.0))).with_context(failed)
    }

    fn move_all(&self, dir: &DataDir) -> io::Result<()> {
        let made = self.0.path();
        let mut names = Vec::new();
        for key in std::fs::read_dir(self.0.keys())? {
            names.push(self.0.keys().join(key?.file_name()));
        }
        names.extend([self.0.ca_file(), self.0.config(), self.0.est_tls(), self.0.ledger()]);
        let mut moving = Vec::new();
        for path in names {
            let Some(found) = if_there(std::fs::symlink_metadata(&path))? else { continue };
            let name = path.strip_prefix(made).map_err(io::Error::other)?.to_owned();
            moving.push(Moving { stamp: Stamp::of(&found), name });
        }
        let list: String = moving.iter().map(|file| format!("{file}\n")).collect();
        write_file(&made.join(Self::MOVING), list.as_bytes(), Readers::Owner)?;
        dir.create()?;
        for Moving { name, .. } in moving {
            let place = dir.path().join(&name);
            std::fs::rename(made.join(&name), &place)?;
            // One after the other also on the disk.
            let folder = place.parent().unwrap_or_else(|| dir.path());
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.path().join(Self::MOVING));
        let _ = std::fs::remove_dir_all(self.0.path());
    }
}

/// A file that is moved: what it is known by, and its path below the directory.
struct Moving {
    stamp: Stamp,
    name: PathBuf,
}

/// A file that nobody wrote to; moving it changes none of this.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: [i64; 2],
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self { inode: found.ino(), length: found.len(), modified: [found.mtime(), found.mtime_nsec()] }
    }
}

impl Display for Moving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stamp { inode, length, modified: [seconds, nanoseconds] } = self.stamp;
        write!(f, "{inode} {length} {seconds} {nanoseconds} {}", self.name.display())
    }
}

impl FromStr for Moving {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let parts: Vec<&str> = line.splitn(5, ' ').collect();
        let [inode, length, seconds, nanoseconds, name] = parts[..] else { anyhow::bail!("not five parts") };
        let modified = [seconds.parse()?, nanoseconds.parse()?];
        let stamp = Stamp { inode: inode.parse()?, length: length.parse()?, modified };
        Ok(Self { stamp, name: name.into() })
    }
}

/// None for what is not there.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn refuse_account(dir: &DataDir) -> anyhow::Result<()> {
    anyhow::ensure!(
        !dir.ledger().exists(),
        "{} holds an account already; use another directory, or `muster serve {0}`",
        dir.path().display()
    );
    Ok(())
}

/// Nobody's keys or settings are replaced, or removed when something fails.
fn refuse_what_is_there(dir: &DataDir) -> anyhow::Result<()> {
    refuse_account(dir)?;
    let has_keys = std::fs::read_dir(dir.keys()).is_ok_and(|mut entries| entries.next().is_some());
    let file = [dir.config(), dir.ca_file(), dir.est_tls()].into_iter().find(|file| file.exists());
    match file.or_else(|| has_keys.then(|| dir.keys())) {
        Some(there) => anyhow::bail!(
            "{} is there already, and `muster init` makes its own; move it away, or use another directory",
            there.display()
        ),
        None => Ok(()),
    }
}

fn refuse_twice(zones: &[Hostname]) -> anyhow::Result<()> {
    let twice =
        zones.iter().enumerate().find(|(index, zone)| zones.iter().take(*index).any(|other| other == *zone));
    match twice {
        Some((_, zone)) => anyhow::bail!("the zone {zone} is named twice"),
        None => Ok(()),
    }
}

async fn make(plan: InitPlan, config: Config, dir: &DataDir, clock: &Clock) -> anyhow::Result<Initialised> {
    let ledger = Ledger::create(&dir.ledger(), Options { cache_bytes: config.ledger_cache_bytes })?;
    let by = By { actor: Actor::Local, at: clock.now() };
    let account = Account {
        id: AccountId::from_bytes(random()?),
        name: plan.account,
        trust_domain: match (plan.trust_domain, plan.zones.first()) {
            (Some(domain), _) => domain,
            (None, Some(zone)) => zone.as_str().parse()?,
            (None, None) => TRUST_DOMAIN_DEFAULT.parse()?,
        },
        created_at: by.at,
    };
    let account_id = account.id;
    ledger.transact(CreateAccount { account, by: by.clone() }).await?;
    let keys = KeyFolder::new(dir.keys(), plan.passphrase);
    let founding = FoundingPlan { algorithm: plan.algorithm, permitted_dns: plan.permitted_dns };
    Authority::found(&ledger, account_id, &keys, clock, &founding, by.clone()).await?;
    let label = config.default_profile.clone();
    let written = ProfileWritten::default();
    ledger.transact(SetProfile { account: account_id, label, written, by: by.clone() }).await?;
    let zones = add_zones(&ledger, account_id, plan.zones, &by).await?;
    let admin_token = add_admin_token(&ledger, clock, &by).await?;

    let authority = Authority::open(ledger, account_id, keys, clock.clone(), config.crl_url_base.clone())?;
    let authority = Arc::new(authority);
    write_config(dir, &plan.config)?;
    write_file(&dir.ca_file(), pem_of(&authority.trust().roots).as_bytes(), Readers::World)?;
    let names: Vec<Hostname> = zones.iter().map(|zone| zone.name.clone()).collect();
    EstTls::start(dir.clone(), authority, clock.clone(), config.est_tls_files, &config.est_names, &names)?;
    Ok(Initialised {
        account_id,
        zones,
        admin_token,
        api_url: format!("http://{}/client/v4", config.listen_admin),
        est_url: format!("https://{}", reachable(config.listen_est)),
        ca_file: absolute(&dir.ca_file()),
    })
}

async fn add_zones(
    ledger: &Ledger,
    account: AccountId,
    names: Vec<Hostname>,
    by: &By,
) -> anyhow::Result<Vec<InitialisedZone>> {
    let mut zones = Vec::new();
    for name in names {
        let id = ZoneId::from_bytes(random()?);
        let zone = Zone::new(id, account, name.clone(), by.at);
        ledger
            .transact(AddZone { zone, by: by.clone() })
            .await
            .map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        zones.push(InitialisedZone { id, name });
    }
    Ok(zones)
}

async fn add_admin_token(ledger: &Ledger, clock: &Clock, by: &By) -> anyhow::Result<String> {
    let secret = new_secret("msa_")?;
    let token = AdminToken {
        permissions: None,
        id: TokenId::new(clock.unix_millis(), random()?),
        hash: hash_secret(&secret),
        name: "init".parse()?,
        role: AdminRole::Admin,
        created_at: by.at,
        expires_at: None,
        revoked_at: None,
    };
    ledger.transact(CreateAdminToken { token, by: by.clone() }).await?;
    Ok(secret.to_string())
}

fn write_config(dir: &DataDir, config: &ConfigWritten) -> anyhow::Result<()> {
    let head = "# Muster. Every setting is optional: `muster settings` prints all of them, `muster doctor` checks this file.\n\n";
    let text = format!("{head}{}", toml::to_string_pretty(config)?);
    Ok(write_file(&dir.config(), text.as_bytes(), Readers::Owner)?)
}

/// DER certificates as PEM text.
pub(crate) fn pem_of(certificates: &[Vec<u8>]) -> String {
    certificates.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.as_slice()))).collect()
}

/// An address that a client on this machine can use.
pub(crate) fn reachable(address: std::net::SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    muster_enroll::random().ok_or_else(|| anyhow::anyhow!("the system's random number generator failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(dir: &Path, zones: &[&str]) -> InitPlan {
        InitPlan::new(dir.to_owned(), "acme", zones).expect("a plan")
    }

    async fn refusal(plan: InitPlan) -> String {
        init(plan, &Clock::system()).await.map(drop).expect_err("refused").to_string()
    }

    #[tokio::test]
    async fn what_is_there_is_neither_replaced_nor_removed() {
        for (name, file) in [
            ("muster.toml", "muster.toml"),
            ("ca.pem", "ca.pem"),
            ("keys", "keys/id"),
            ("tls", "tls/est.pem"),
        ] {
            let temp = tempfile::tempdir().expect("a folder");
            let path = temp.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(&path, "mine").expect("written");
            let told = refusal(plan(temp.path(), &["a.example"])).await;
            assert!(told.contains(name) && told.contains("is there already"), "{told}");
            assert_eq!(std::fs::read(&path).expect("still there"), b"mine");
            assert!(!DataDir::new(temp.path()).ledger().exists());
        }
    }

    #[tokio::test]
    async fn a_failure_removes_what_was_made_and_leaves_the_rest() {
        let temp = tempfile::tempdir().expect("a folder");
        std::fs::write(temp.path().join("notes"), "mine").expect("written");
        let twice = refusal(plan(temp.path(), &["a.example", "b.example", "a.example"])).await;
        assert_eq!(twice, "the zone a.example is named twice");
        let mut bad = plan(temp.path(), &["a.example"]);
        bad.config.est.tls_certificate = Some("missing.pem".into());
        bad.config.est.tls_key = Some("missing.key".into());
        refusal(bad).await;
        let left =
            std::fs::read_dir(temp.path()).expect("read").map(|entry| entry.expect("read").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["notes"]);
        init(plan(temp.path(), &["a.example"]), &Clock::system()).await.expect("it can be repeated");
    }

    #[tokio::test]
    async fn an_empty_folder_that_was_there_stays_when_it_fails() {
        let temp = tempfile::tempdir().expect("a folder");
        let mut bad = plan(temp.path(), &["a.example"]);
        bad.config.est.tls_certificate = Some("missing.pem".into());
        bad.config.est.tls_key = Some("missing.key".into());
        refusal(bad).await;
        assert_eq!(std::fs::read_dir(temp.path()).expect("it is there").count(), 0);
        let new = temp.path().join("new");
        let mut bad = plan(&new, &["a.example"]);
        bad.config.est.tls_certificate = Some("missing.pem".into());
        bad.config.est.tls_key = Some("missing.key".into());
        refusal(bad).await;
        assert!(!new.exists());
    }

    /// Puts a whole account back to what it was when these files of it were not in their places.
    fn unpublish(dir: &DataDir, unmoved: &[&str]) {
        let made = DataDir::new(dir.path().join(Making::NAME));
        made.create().expect("made");
        let keys = std::fs::read_dir(dir.keys()).expect("read");
        let mut names: Vec<PathBuf> =
            keys.map(|key| Path::new("keys").join(key.expect("read").file_name())).collect();
        names.extend(["ca.pem", "muster.toml", "tls/est.pem", "ledger.redb"].map(PathBuf::from));
        let line = |name: PathBuf| {
            let found = std::fs::symlink_metadata(dir.path().join(&name)).expect("there");
            format!("{}\n", Moving { stamp: Stamp::of(&found), name })
        };
        let list: String = names.into_iter().map(line).collect();
        std::fs::write(made.path().join(Making::MOVING), list).expect("written");
        for file in unmoved {
            std::fs::rename(dir.path().join(file), made.path().join(file)).expect("moved back");
        }
    }

    #[tokio::test]
    async fn a_run_that_was_killed_can_be_repeated() {
        for unmoved in [&["ledger.redb"][..], &["ledger.redb", "tls/est.pem", "muster.toml"]] {
            let temp = tempfile::tempdir().expect("a folder");
            let dir = DataDir::new(temp.path());
            std::fs::write(temp.path().join("notes"), "mine").expect("written");
            let first = init(plan(temp.path(), &["a.example"]), &Clock::system()).await.expect("made");
            unpublish(&dir, unmoved);
            let second = init(plan(temp.path(), &["a.example"]), &Clock::system()).await.expect("repeated");
            assert_ne!(first.account_id, second.account_id);
            assert_eq!(std::fs::read_dir(dir.keys()).expect("read").count(), 3, "none of the first run's");
            assert!(dir.path().join("notes").exists() && !dir.path().join(Making::NAME).exists());
            assert!(refusal(plan(temp.path(), &[])).await.contains("holds an account already"));
        }
    }

    #[tokio::test]
    async fn what_was_changed_after_a_killed_run_is_not_removed() {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = DataDir::new(temp.path());
        init(plan(temp.path(), &["a.example"]), &Clock::system()).await.expect("made");
        unpublish(&dir, &["ledger.redb"]);
        std::fs::write(dir.config(), "# mine").expect("written");
        assert!(refusal(plan(temp.path(), &[])).await.contains("muster.toml was changed since"));
        assert_eq!(std::fs::read(dir.config()).expect("still there"), b"# mine");
        std::fs::rename(dir.config(), temp.path().join("mine.toml")).expect("moved away");
        init(plan(temp.path(), &["a.example"]), &Clock::system()).await.expect("repeated");
    }

    #[tokio::test]
    async fn a_run_that_was_killed_before_it_had_all_can_be_repeated() {
        let temp = tempfile::tempdir().expect("a folder");
        let made = DataDir::new(temp.path().join(Making::NAME));
        made.create().expect("made");
        std::fs::write(made.ledger(), "cut off").expect("written");
        std::fs::write(made.keys().join("x.key"), "cut off").expect("written");
        init(plan(temp.path(), &["a.example"]), &Clock::system()).await.expect("repeated");
        assert_eq!(std::fs::read_dir(DataDir::new(temp.path()).keys()).expect("read").count(), 3);
    }

    #[tokio::test]
    async fn who_is_second_removes_nothing_of_the_first() {
        let temp = tempfile::tempdir().expect("a folder");
        let clock = Clock::system();
        let one = || init(plan(temp.path(), &["a.example"]), &clock);
        let (first, second) = tokio::join!(one(), one());
        let made = [first, second];
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
        let dir = DataDir::new(temp.path());
        assert!(dir.ledger().exists() && dir.config().exists() && dir.ca_file().exists());
        assert!(std::fs::read_dir(dir.keys()).expect("read").count() > 0);
    }
}
