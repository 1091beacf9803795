//! Making managed CAs: the first set, a new issuing CA, a new root.
//!
//! A rotation never breaks what is in the field: the old CA keeps verifying until its own end, which
//! no leaf outlives, and a new root comes with the RFC 7030 §4.1.3 rollover certificates. By them a
//! device that trusts an old root alone verifies what the new one stands over: its own next
//! certificate, and the server's, which is sent with them.

use std::sync::Arc;
use std::time::Duration;

use muster_ca::authority::{AuthoritySettings, Purpose, ROOT_PATH_LENGTH, new_issuing, new_root, roll_over};
use muster_ca::certificate::CaCertificate;
use muster_ca::file_key::{CaAlgorithm, FileKey};
use muster_ca::issuer::Issuer;
use muster_policy::identity::{AccountId, CaId, Serial};
use muster_policy::key::{KeyKind, WishedKey};
use muster_policy::name::{Hostname, Title};
use muster_policy::time::UnixTime;
use muster_store::Ledger;
use muster_store::act::{AddCa, By, Rejected, SetCaState};
use muster_store::record::{Ca, CaKind, CaRole, CaState};

use super::keys::KeyFolder;
use super::{Authority, AuthorityError};
use crate::clock::Clock;
use crate::secret::random_or_refuse;

/// Lifetime of a root.
const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Lifetime of an issuing CA: no certificate outlives its CA, and clients of the Cloudflare API ask for
/// certificates of 10 years, and may for 15 (its contract, §3).
const ISSUING_LIFETIME: Duration = Duration::from_secs(16 * 365 * 86_400);
/// How far notBefore lies in the past, against clock skew.
const BACKDATE: Duration = Duration::from_secs(300);
/// So much of the account's name goes into a CA's; with the rest it stays below 64 (RFC 5280 A.1), and what small devices
/// have to keep is bounded.
const NAME_MAX_OCTETS: usize = 32;

/// What the first CAs of an account are to be like.
pub struct FoundingPlan {
    /// Algorithm of all keys.
    pub algorithm: CaAlgorithm,
    /// DNS domains the services CA is limited to; empty for no limit.
    pub permitted_dns: Vec<Hostname>,
}

/// A CA that was made and not yet recorded.
struct Made {
    record: Ca,
    issuer: Issuer,
}

impl Authority {
    /// Makes the first CAs of an account: a root over one issuing CA for devices and one for services.
    ///
    /// # Errors
    /// When a key file can't be written, or the ledger refuses.
    pub async fn found(
        ledger: &Ledger,
        account: AccountId,
        keys: &KeyFolder,
        clock: &Clock,
        plan: &FoundingPlan,
        by: By,
    ) -> Result<(), AuthorityError> {
        let name = ledger.reader()?.account(account)?.ok_or(AuthorityError::AccountMissing)?.name;
        let maker = Maker { account, name: &name, keys, clock, algorithm: plan.algorithm };
        let root = maker.root()?;
        let devices = maker.issuing(&root, Purpose::Devices, &[])?;
        let services = maker.issuing(&root, Purpose::Services, &plan.permitted_dns)?;
        for made in [root, devices, services] {
            ledger.transact(AddCa { ca: made.record, by: by.clone() }).await?;
        }
        Ok(())
    }

    /// Replaces the issuing CA of a role: a new one signs from now on, the old one keeps verifying.
    ///
    /// Its key has the root's algorithm unless another is asked for.
    ///
    /// # Errors
    /// When there is no managed root with its key to sign the new one.
    pub async fn rotate(
        &self,
        purpose: Purpose,
        algorithm: Option<CaAlgorithm>,
        by: By,
    ) -> Result<Ca, AuthorityError> {
        let _changing = self.changing.lock().await;
        let cas = self.ledger.reader()?.cas(self.account)?;
        let root = self.active_root(&cas)?;
        let algorithm = algorithm.unwrap_or_else(|| algorithm_of(root.issuer.certificate()));
        let name = self.account_name()?;
        let permitted = match purpose {
            Purpose::Devices => Vec::new(),
            Purpose::Services => self.permitted_dns(&cas)?,
        };
        let made = self.maker(&name, algorithm).issuing(&root, purpose, &permitted)?;
        let record = made.record.clone();
        self.ledger.transact(AddCa { ca: made.record, by: by.clone() }).await?;
        self.retire_older(&cas, &[record.role], by).await?;
        self.reload()?;
        Ok(record)
    }

    /// Makes a new root with new issuing CAs; the old ones keep verifying, tied by rollover certificates.
    ///
    /// # Errors
    /// When there is no managed root with its key to tie the new one to; and, without `cut_off`, when the path length of
    /// the one in force keeps who trusts it alone from following, or there are two roots already.
    pub async fn replace_root(
        &self,
        algorithm: CaAlgorithm,
        cut_off: bool,
        by: By,
    ) -> Result<Ca, AuthorityError> {
        let _changing = self.changing.lock().await;
        let cas = self.ledger.reader()?.cas(self.account)?;
        let active = self.active_root(&cas)?.issuer;
        let is_short = active.certificate().path_length().is_some_and(|length| length < ROOT_PATH_LENGTH);
        if is_short && !cut_off {
            return Err(AuthorityError::NoRoomForRollover);
        }
        let trusted = cas.iter().filter(|ca| ca.role == CaRole::Root && ca.state != CaState::Retired);
        if trusted.count() > 1 && !cut_off {
            return Err(AuthorityError::TwoRoots);
        }
        let name = self.account_name()?;
        let maker = self.maker(&name, algorithm);
        let mut root = maker.root()?;
        for old in self.keyed_roots(&cas) {
            let serials = [serial(self.clock.now())?, serial(self.clock.now())?];
            let tie = roll_over(&old.issuer, &root.issuer, serials)?;
            let both = [tie.old_with_new, tie.new_with_old];
            root.record.rollover.extend(both.iter().map(|tie| tie.der().to_vec().into()));
        }
        let devices = maker.issuing(&root, Purpose::Devices, &[])?;
        let services = maker.issuing(&root, Purpose::Services, &self.permitted_dns(&cas)?)?;
        let record = root.record.clone();
        for made in [root, devices, services] {
            self.ledger.transact(AddCa { ca: made.record, by: by.clone() }).await?;
        }
        self.retire_older(&cas, &[CaRole::Root, CaRole::Devices, CaRole::Services], by).await?;
        self.reload()?;
        Ok(record)
    }

    /// Withdraws a root that was replaced: clients are no longer told to trust it, or of what ties it to the one in force.
    ///
    /// The certificate by which the one in force vouches for it is good until the root ends, for whoever kept it.
    ///
    /// # Errors
    /// When it is no root of the account, or was not replaced.
    pub async fn retire_root(&self, root: CaId, by: By) -> Result<Ca, AuthorityError> {
        let _changing = self.changing.lock().await;
        let cas = self.ledger.reader()?.cas(self.account)?;
        let found =
            cas.iter().find(|ca| ca.id == root).ok_or(AuthorityError::Rejected(Rejected::CaUnknown))?;
        if found.role != CaRole::Root || self.active_root(&cas)?.record.id == root {
            return Err(AuthorityError::NotReplaced);
        }
        let retire = SetCaState { ca: root, state: CaState::Retired, rollover: None, by };
        let retired = self.ledger.transact(retire).await?;
        self.reload()?;
        Ok(retired)
    }

    /// The active CAs of these roles among `cas` verify from now on, and no longer issue.
    pub(super) async fn retire_older(
        &self,
        cas: &[Ca],
        roles: &[CaRole],
        by: By,
    ) -> Result<(), AuthorityError> {
        let older = cas.iter().filter(|ca| ca.state == CaState::Active && roles.contains(&ca.role));
        for ca in older {
            let retire = SetCaState { ca: ca.id, state: CaState::Retiring, rollover: None, by: by.clone() };
            self.ledger.transact(retire).await?;
        }
        Ok(())
    }

    fn active_root(&self, cas: &[Ca]) -> Result<Made, AuthorityError> {
        let mut roots = self.keyed_roots(cas).into_iter();
        roots
            .find(|root| root.record.state == CaState::Active)
            .ok_or(AuthorityError::NoActiveCa("signing other CAs"))
    }

    /// The managed roots that clients are told to trust and whose keys are here, newest first.
    fn keyed_roots(&self, cas: &[Ca]) -> Vec<Made> {
        let trust = self.trust();
        let roots = cas.iter().filter(|ca| ca.role == CaRole::Root && ca.state != CaState::Retired);
        let made = |ca: &Ca| {
            let keyed = trust.keyed.iter().find(|keyed| keyed.id == ca.id)?;
            Some(Made { record: ca.clone(), issuer: Issuer::clone(&keyed.issuer) })
        };
        let mut keyed: Vec<Made> = roots.filter_map(made).collect();
        keyed.sort_by_key(|root| core::cmp::Reverse(root.record.id));
        keyed
    }

    /// The limits of the services CA in force go over to the next one.
    fn permitted_dns(&self, cas: &[Ca]) -> Result<Vec<Hostname>, AuthorityError> {
        let services = cas.iter().find(|ca| ca.role == CaRole::Services && ca.state == CaState::Active);
        let Some(services) = services else { return Ok(Vec::new()) };
        let parsed = CaCertificate::parse(&services.certificate_der)
            .map_err(|error| AuthorityError::Issuer { ca: services.id, error: error.into() })?;
        Ok(parsed.permitted_dns().to_vec())
    }

    fn account_name(&self) -> Result<Title, AuthorityError> {
        Ok(self.ledger.reader()?.account(self.account)?.ok_or(AuthorityError::AccountMissing)?.name)
    }

    fn maker<'a>(&'a self, name: &'a Title, algorithm: CaAlgorithm) -> Maker<'a> {
        Maker { account: self.account, name, keys: &self.keys, clock: &self.clock, algorithm }
    }
}

/// Makes CAs of one account with one algorithm.
struct Maker<'a> {
    account: AccountId,
    name: &'a Title,
    keys: &'a KeyFolder,
    clock: &'a Clock,
    algorithm: CaAlgorithm,
}

impl Maker<'_> {
    fn root(&self) -> Result<Made, AuthorityError> {
        let (id, key) = self.key()?;
        let key_file = self.keys.write(id, &key)?;
        let settings = self.settings("root", id, self.clock.now().plus(ROOT_LIFETIME))?;
        let issuer = new_root(&settings, ROOT_PATH_LENGTH, Arc::new(key), serial(self.clock.now())?)?;
        let record = self.record(id, CaRole::Root, settings.title, issuer.certificate(), key_file);
        Ok(Made { record, issuer })
    }

    fn issuing(&self, root: &Made, purpose: Purpose, permitted: &[Hostname]) -> Result<Made, AuthorityError> {
        let (id, key) = self.key()?;
        let key_file = self.keys.write(id, &key)?;
        let (word, role) = match purpose {
            Purpose::Devices => ("devices", CaRole::Devices),
            Purpose::Services => ("services", CaRole::Services),
        };
        let end = self.clock.now().plus(ISSUING_LIFETIME).min(root.issuer.certificate().not_after());
        let settings = self.settings(word, id, end)?;
        let issuer = new_issuing(
            &root.issuer,
            &settings,
            purpose,
            permitted,
            Arc::new(key),
            serial(self.clock.now())?,
        )?;
        let mut record = self.record(id, role, settings.title, issuer.certificate(), key_file);
        record.issuer = Some(root.record.id);
        record.chain = vec![root.record.certificate_der.clone()];
        Ok(Made { record, issuer })
    }

    fn key(&self) -> Result<(CaId, FileKey), AuthorityError> {
        Ok((CaId::new(self.clock.unix_millis(), random_or_refuse()?), FileKey::generate(self.algorithm)?))
    }

    /// Names differ from one CA to the next, so that an issuer's name leads to one CA.
    fn settings(
        &self,
        word: &str,
        id: CaId,
        not_after: UnixTime,
    ) -> Result<AuthoritySettings, AuthorityError> {
        let name = self.name.as_str();
        let name = name.get(..name.floor_char_boundary(NAME_MAX_OCTETS)).unwrap_or_default();
        let [.., a, b, c, d] = *id.as_bytes();
        let tail = u32::from_be_bytes([a, b, c, d]);
        let title = format!("{} {word} CA {tail:08x}", name.trim());
        Ok(AuthoritySettings {
            title: title.parse().map_err(|_| AuthorityError::NoActiveCa("a name"))?,
            organisation: None,
            not_before: self.clock.now().minus(BACKDATE),
            not_after,
        })
    }

    fn record(
        &self,
        id: CaId,
        role: CaRole,
        title: Title,
        certificate: &CaCertificate,
        key_file: String,
    ) -> Ca {
        let record = record_of(id, self.account, role, CaKind::Managed, title, certificate, self.clock.now());
        Ca { key_file: Some(key_file), ..record }
    }
}

/// The record of a CA certificate without key and chain.
pub(super) fn record_of(
    id: CaId,
    account: AccountId,
    role: CaRole,
    kind: CaKind,
    title: Title,
    certificate: &CaCertificate,
    created_at: UnixTime,
) -> Ca {
    Ca {
        id,
        account,
        title,
        kind,
        role,
        state: CaState::Active,
        certificate_der: certificate.der().to_vec().into(),
        chain: Vec::new(),
        key_file: None,
        issuer: None,
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        serial: certificate.serial(),
        fingerprint: certificate.fingerprint(),
        subject: certificate.subject().to_owned(),
        rollover: Vec::new(),
        created_at,
        upload: None,
    }
}

/// The algorithm of a managed CA's key.
fn algorithm_of(certificate: &CaCertificate) -> CaAlgorithm {
    match certificate.subject_key().wished() {
        WishedKey::Curve(KeyKind::EcdsaP384) => CaAlgorithm::EcdsaP384,
        WishedKey::Rsa { .. } => CaAlgorithm::Rsa3072,
        WishedKey::Curve(_) | WishedKey::Unknown => CaAlgorithm::EcdsaP256,
    }
}

fn serial(at: UnixTime) -> Result<Serial, AuthorityError> {
    Ok(Serial::new(at, random_or_refuse()?))
}
