//! The account's CAs at work: keys loaded, trust assembled, new ones made.
//!
//! [`Authority`] keeps one immutable [`Trust`] for readers to share and swaps it whole when a CA
//! changes. A key file is durable before the record that names it; a record never lacks its key.
//! Only this crate calls a signer.

mod foreign;
mod found;
mod import;
mod keys;
mod revocation;
mod server_certificate;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use muster_ca::bundle::certs_only;
use muster_ca::certificate::{CaCertificate, CertificateError};
use muster_ca::chain::TrustAnchors;
use muster_ca::file_key::secret::Secret;
use muster_ca::issuer::{Issuer, IssuerError};
use muster_policy::identity::{AccountId, CaId};
use muster_policy::name::TrustDomain;
use muster_policy::time::UnixTime;
use muster_store::act::Rejected;
use muster_store::record::{Ca, CaRole, CaState};
use muster_store::{Error as LedgerError, Fault, Ledger};

pub use self::foreign::{ListOrigin, ListTrial};
pub use self::found::FoundingPlan;
pub use self::import::ImportPlan;
pub use self::keys::KeyFolder;
pub use self::revocation::RevocationError;
pub use self::server_certificate::ServerCertificate;
use crate::clock::Clock;

/// So many octets of CA certificates a small device reads at once (in base64 within `Memory::INBOX_BYTES` of `muster_proto`),
/// and can keep what it needs of (`Memory::AUTHORITIES_BYTES`).
const SMALL_ANSWER: usize = 2_900;
/// So many CAs that no longer issue it can keep beside that.
const OLDER_MAX: usize = 2;

/// A CA whose certificates may authenticate.
#[derive(Clone, Debug)]
pub struct TrustedCa {
    /// Its id.
    pub id: CaId,
    /// Its certificate, as the end of a path.
    pub anchor: TrustAnchors,
    /// Its subject, DER; the issuer of what it signed.
    pub subject_der: Vec<u8>,
}

/// A CA with its key.
#[derive(Clone)]
pub struct IssuingCa {
    /// Its id.
    pub id: CaId,
    /// Certificate and signer.
    pub issuer: Arc<Issuer>,
    /// The certificates above it, its issuer first.
    pub chain: Vec<Vec<u8>>,
}

/// What the account trusts and issues with at one moment.
pub struct Trust {
    /// Grows with each change; what was derived from an older one is stale.
    pub generation: u64,
    /// The account.
    pub account: AccountId,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// CAs whose leaves are devices of the account: the issuing one, and those that retire.
    pub devices: Vec<TrustedCa>,
    /// CAs of manufacturers (IEEE 802.1AR).
    pub manufacturers: Vec<TrustedCa>,
    /// The CA that signs device certificates now.
    pub issuing: Option<IssuingCa>,
    /// The CA that signs server certificates now.
    pub services: Option<IssuingCa>,
    /// That CA's root, certified by each older root that clients may trust alone, DER, the newest first.
    pub ties: Vec<Vec<u8>>,
    /// Every CA that has a key and is not retired: each keeps a CRL.
    pub keyed: Vec<IssuingCa>,
    /// The answer to cacerts: certs-only CMS.
    pub ca_certificates: Vec<u8>,
    /// The roots that clients should trust, DER, the newest first.
    pub roots: Vec<Vec<u8>>,
}

impl Trust {
    /// What a server sends after its leaf, DER: the services CA, and what leads from its root to older ones.
    pub fn above_servers(&self) -> Vec<Vec<u8>> {
        let services = self.services.iter().map(|ca| ca.issuer.certificate().der().to_vec());
        services.chain(self.ties.iter().cloned()).collect()
    }
}

/// Why a CA could not be loaded, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The account is not in the ledger.
    #[error("the ledger has no account")]
    AccountMissing,
    /// A CA could not be built.
    #[error(transparent)]
    Build(#[from] muster_ca::authority::AuthorityError),
    /// A certificate could not be read or built.
    #[error("CA {ca}: {error}")]
    Issuer {
        /// The CA.
        ca: CaId,
        /// Why.
        error: IssuerError,
    },
    /// A bundle was refused.
    #[error(transparent)]
    Import(#[from] muster_ca::byo::ImportError),
    /// A CA's own list was refused.
    #[error(transparent)]
    ForeignCrl(#[from] muster_ca::foreign_crl::ForeignCrlError),
    /// A revocation list could not be made.
    #[error(transparent)]
    Crl(#[from] muster_ca::crl::CrlError),
    /// A key file could not be read or written.
    #[error(transparent)]
    Key(#[from] muster_ca::file_key::FileKeyError),
    /// The ledger failed or refused.
    #[error("the ledger: {0}")]
    Ledger(String),
    /// There is no active CA of this role.
    #[error("the account has no active CA for {0}")]
    NoActiveCa(&'static str),
    /// A change of root would cut off who trusts the old one alone.
    #[error(
        "the root in force has a path length below 2, as those made before 1 Dec 2026: devices that trust it alone could \
         not follow to a new one, and would be cut off. To replace only what signs, rotate the issuing CA"
    )]
    NoRoomForRollover,
    /// A third root would not fit where two do.
    #[error(
        "two roots are trusted already, and small devices have room for no more: retire the older one first, or cut them off"
    )]
    TwoRoots,
    /// Only a root that another has replaced can be withdrawn.
    #[error(
        "only a root that was replaced can be retired: it must be a root, and another one must be in force"
    )]
    NotReplaced,
    /// No random numbers.
    #[error("the system's random number generator failed")]
    NoRandom,
    /// The ledger's rules say no.
    #[error(transparent)]
    Rejected(Rejected),
    /// A server certificate could not be made.
    #[error(transparent)]
    Prepare(#[from] muster_ca::leaf::PrepareError),
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] muster_ca::signer::SignError),
}

impl From<Fault> for AuthorityError {
    fn from(fault: Fault) -> Self {
        Self::Ledger(fault.to_string())
    }
}

impl From<LedgerError<Rejected>> for AuthorityError {
    fn from(error: LedgerError<Rejected>) -> Self {
        match error {
            LedgerError::Refused(rejected) => Self::Rejected(rejected),
            other => Self::Ledger(other.to_string()),
        }
    }
}

impl From<muster_ca::CryptoFailure> for AuthorityError {
    fn from(failure: muster_ca::CryptoFailure) -> Self {
        Self::Key(failure.into())
    }
}

impl From<muster_policy::reason::Refusal> for AuthorityError {
    fn from(_: muster_policy::reason::Refusal) -> Self {
        Self::NoRandom
    }
}

/// The CAs of one account.
pub struct Authority {
    account: AccountId,
    ledger: Ledger,
    keys: KeyFolder,
    clock: Clock,
    crl_url_base: Option<String>,
    trust: ArcSwap<Trust>,
    generation: AtomicU64,
    /// Held while CAs are made or change their state, so that each change knows of the one before.
    changing: tokio::sync::Mutex<()>,
    /// CA -> the change up to which its newest CRL has seen everything.
    crls_made: tokio::sync::Mutex<HashMap<CaId, u64>>,
}

impl Authority {
    /// Loads every CA of the account with its key.
    ///
    /// # Errors
    /// When a key file is missing, unreadable, needs a passphrase, or does not fit its certificate.
    pub fn open(
        ledger: Ledger,
        account: AccountId,
        keys: KeyFolder,
        clock: Clock,
        crl_url_base: Option<String>,
    ) -> Result<Self, AuthorityError> {
        let trust = load(&ledger, account, &keys, clock.now(), 0)?;
        Ok(Self {
            account,
            ledger,
            keys,
            clock,
            crl_url_base,
            trust: ArcSwap::from_pointee(trust),
            generation: AtomicU64::new(0),
            changing: tokio::sync::Mutex::default(),
            crls_made: tokio::sync::Mutex::default(),
        })
    }

    /// What the account trusts and issues with now.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    /// Where the CRL of a CA is found, for certificates that name it.
    pub fn crl_url(&self, ca: CaId) -> Option<String> {
        self.crl_url_base.as_ref().map(|base| format!("{base}/crl/{ca}.crl"))
    }

    /// A secret that is kept beside the CA keys and encrypted as they are; made when there is none yet.
    ///
    /// The ledger must be open, so that no other process makes one at the same time.
    ///
    /// # Errors
    /// When its file can't be read, written or opened with the passphrase of the keys.
    pub fn secret(&self, name: &str) -> Result<Secret, AuthorityError> {
        self.keys.secret(name)
    }

    /// Assembles trust anew from the ledger.
    fn reload(&self) -> Result<(), AuthorityError> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let trust = load(&self.ledger, self.account, &self.keys, self.clock.now(), generation)?;
        self.trust.store(Arc::new(trust));
        Ok(())
    }
}

fn load(
    ledger: &Ledger,
    account: AccountId,
    keys: &KeyFolder,
    now: UnixTime,
    generation: u64,
) -> Result<Trust, AuthorityError> {
    let reader = ledger.reader()?;
    let record = reader.account(account)?.ok_or(AuthorityError::AccountMissing)?;
    let mut cas = reader.cas(account)?;
    // Newest first: the newest active CA of a role signs.
    cas.sort_by_key(|ca| core::cmp::Reverse(ca.id));
    cas.retain(|ca| ca.state != CaState::Retired);
    let mut trust = Trust {
        generation,
        account,
        trust_domain: record.trust_domain,
        devices: Vec::new(),
        manufacturers: Vec::new(),
        issuing: None,
        services: None,
        ties: Vec::new(),
        keyed: Vec::new(),
        ca_certificates: ca_certificates(&cas),
        roots: roots(&cas),
    };
    for ca in &cas {
        let issuing = open_issuing(ca, keys)?;
        match (ca.role, ca.state) {
            (CaRole::Devices, state) => {
                trust.devices.push(trusted(ca)?);
                if state == CaState::Active && trust.issuing.is_none() {
                    trust.issuing.clone_from(&issuing);
                }
            }
            (CaRole::Manufacturer, CaState::Active) => trust.manufacturers.push(trusted(ca)?),
            (CaRole::Services, CaState::Active) if trust.services.is_none() => {
                trust.services.clone_from(&issuing);
                trust.ties = ties(&cas, ca, now)?;
            }
            _ => {}
        }
        trust.keyed.extend(issuing);
    }
    Ok(trust)
}

fn open_issuing(ca: &Ca, keys: &KeyFolder) -> Result<Option<IssuingCa>, AuthorityError> {
    let Some(file) = &ca.key_file else { return Ok(None) };
    let signer = Arc::new(keys.read(file)?);
    let issuer = Issuer::new(&ca.certificate_der, signer)
        .map_err(|error| AuthorityError::Issuer { ca: ca.id, error })?;
    let chain = ca.chain.iter().map(|der| der.to_vec()).collect();
    Ok(Some(IssuingCa { id: ca.id, issuer: Arc::new(issuer), chain }))
}

fn trusted(ca: &Ca) -> Result<TrustedCa, AuthorityError> {
    let failed = |error: CertificateError| AuthorityError::Issuer { ca: ca.id, error: error.into() };
    let parsed = CaCertificate::parse(&ca.certificate_der).map_err(failed)?;
    Ok(TrustedCa {
        id: ca.id,
        anchor: TrustAnchors::new([ca.certificate_der.as_slice()]).map_err(failed)?,
        subject_der: parsed.subject_der().to_vec(),
    })
}

/// The certificates by which older roots vouch for the root of `services`.
fn ties(cas: &[Ca], services: &Ca, now: UnixTime) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let parse = |ca: &Ca, der: &[u8]| {
        CaCertificate::parse(der).map_err(|error| AuthorityError::Issuer { ca: ca.id, error: error.into() })
    };
    let Some(root) = cas.iter().find(|ca| Some(ca.id) == services.issuer) else { return Ok(Vec::new()) };
    let name = parse(root, &root.certificate_der)?;
    let mut ties = Vec::new();
    for der in &root.rollover {
        let tie = parse(root, der)?;
        let is_trusted = cas.iter().any(|ca| ca.role == CaRole::Root && ca.subject == tie.issuer());
        if tie.subject_der() == name.subject_der() && is_trusted && now < tie.not_after() {
            ties.push(der.to_vec());
        }
    }
    Ok(ties)
}

/// Everything a device may need to build a path, and to follow a change of root (RFC 7030 §4.1.3).
///
/// That is what issues and what leads from it to each root. CAs that no longer issue follow, the newest first, for those who
/// verify others' certificates, as far as a small device has room for all of it. None is below a root that was retired.
fn ca_certificates(cas: &[Ca]) -> Vec<u8> {
    let (current, older): (Vec<&Ca>, Vec<&Ca>) = cas
        .iter()
        .filter(|ca| matches!(ca.role, CaRole::Devices | CaRole::Root))
        .filter(|ca| ca.issuer.is_none_or(|root| cas.iter().any(|other| other.id == root)))
        .partition(|ca| ca.role == CaRole::Root || ca.state == CaState::Active);
    let mut certificates: BTreeSet<&[u8]> = current.into_iter().flat_map(|ca| with_path(ca, cas)).collect();
    for ca in older.into_iter().take(OLDER_MAX) {
        let more: BTreeSet<&[u8]> = certificates.iter().copied().chain(with_path(ca, cas)).collect();
        if more.iter().map(|der| der.len()).sum::<usize>() <= SMALL_ANSWER {
            certificates = more;
        }
    }
    let certificates: Vec<&[u8]> = certificates.into_iter().collect();
    certs_only(&certificates)
}

/// A CA, those above it, and what ties it to other roots that are trusted. The root in force is tied to each one before
/// it, so that what tied those to one another is not needed.
fn with_path<'a>(ca: &'a Ca, cas: &[Ca]) -> impl Iterator<Item = &'a [u8]> {
    let is_root = |name: &str| cas.iter().any(|ca| ca.role == CaRole::Root && ca.subject == name);
    let is_between_roots = |der: &[u8]| {
        CaCertificate::parse(der).is_ok_and(|tie| is_root(tie.subject()) && is_root(tie.issuer()))
    };
    let ties = ca.rollover.iter().filter(|der| ca.state == CaState::Active && is_between_roots(der));
    let ties: Vec<_> = ties.collect();
    core::iter::once(&ca.certificate_der).chain(&ca.chain).chain(ties).map(|der| der.as_slice())
}

/// What clients should trust: managed roots, and the top of each chain that was brought along.
fn roots(cas: &[Ca]) -> Vec<Vec<u8>> {
    let mut roots: Vec<Vec<u8>> = Vec::new();
    for ca in cas {
        let top = match ca.role {
            CaRole::Root => &ca.certificate_der,
            CaRole::Devices if ca.issuer.is_none() => ca.chain.last().unwrap_or(&ca.certificate_der),
            // One of ours is below a root of ours.
            CaRole::Devices | CaRole::Manufacturer | CaRole::Services | CaRole::VerifyOnly => continue,
        };
        if !roots.iter().any(|root| root.as_slice() == top.as_slice()) {
            roots.push(top.to_vec());
        }
    }
    roots
}
