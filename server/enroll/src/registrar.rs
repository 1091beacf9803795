//! The issue pipeline: the only path from a request to a signature.
//!
//! ```text
//! Csr -> Grant | Refusal [-> key made here, when nothing else is in the way] -> Prepared (linted) -> intent stored -> signed (moved: once)
//!    -> one transaction: certificate + credential use + indexes + change + audit, fsynced -> answer
//! ```
//! All of it runs in a task of its own: a client that hangs up can't leave a reserved token behind, nor a key half
//! made whose turn the next one takes. Two equal requests at once are one: the second waits for the first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_ca::csr::Csr;
use muster_ca::keygen::GeneratedKey;
use muster_ca::leaf::Prepared;
use muster_ca::signer::SignError;
use muster_ca::subject_key::SubjectKey;
use muster_policy::enrol::{
    DeviceStatus, Grant, OID_COMMON_NAME, San, Setting, SubjectAttribute, Wish, enrol,
};
use muster_policy::identity::{AccountId, CaId, CertificateId, KeyFingerprint, RequestKey, Serial};
use muster_policy::name::{DeviceId, Label};
use muster_policy::profile::{Approval, Profile};
use muster_policy::reason::{Reason, Refusal};
use muster_policy::time::UnixTime;
use muster_store::act::{AbandonIssue, BeginIssue, Begun, By, CompleteIssue, IssueRefused, KeyState, Signed};
use muster_store::record::{Certificate, ClientRequest, How};
use muster_store::{Error as LedgerError, Fault, Ledger, Reader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::admission::{Admission, AdmissionLimits};
use crate::authority::{Authority, IssuingCa};
use crate::caller::Identified;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::secret::random_or_refuse;

/// RSA keys made at once; each takes a good part of a second of one core.
const KEYGEN_SLOTS: usize = 1;
/// How long a key maker may wait for its turn; then it is told to come again.
const KEYGEN_WAIT: Duration = Duration::from_secs(20);
/// How long an equal request waits for the first one, and how often it looks.
const TWIN_WAIT: Duration = Duration::from_secs(5);
const TWIN_LOOK: Duration = Duration::from_millis(20);

/// How this server enrolls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The account it enrolls for.
    pub account: AccountId,
    /// The profile of paths without a label, but for renewals: they stay under that of their certificate.
    pub default_profile: Label,
    /// How long the same first enrollment gets the same certificate again.
    pub first_window: Duration,
    /// How long the same renewal gets the same certificate again.
    pub renewal_window: Duration,
    /// Retry-After of requests that wait for approval.
    pub approval_retry: Duration,
    /// How many requests may wait for approval at once.
    pub approvals_max: u32,
    /// Rate limits.
    pub admission: AdmissionLimits,
}

/// Where the key of a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The device made it; the request carries it.
    Device,
    /// It is made here, of the kind of the request's key (RFC 7030 §4.4).
    Server,
}

/// A request whose caller is known.
#[derive(Debug)]
pub struct Order {
    /// The request.
    pub csr: Csr,
    /// Its bytes, kept while a person judges it.
    pub csr_der: Vec<u8>,
    /// Who asks.
    pub identified: Identified,
    /// The profile it is asked of.
    pub profile: Profile,
    /// Where the key comes from.
    pub key: KeySource,
    /// The address it came from.
    pub source: Option<IpAddr>,
    /// The zone's request, for a client certificate of a zone. Names that policy does not give are left
    /// out then, and not refused.
    pub client: Option<Box<ClientRequest>>,
}

impl Order {
    fn wish(&self) -> Wish {
        let mut wish = self.csr.wish().clone();
        if self.client.is_some() {
            let device = self.identified.caller.device().as_str();
            wish.sans.retain(|san| matches!(san, San::Dns(name) if name.eq_ignore_ascii_case(device)));
        }
        wish
    }
}

/// A durable answer.
pub struct Issued {
    /// The certificate, as stored.
    pub certificate: Certificate,
    /// The key made for it, PKCS#8; kept nowhere else.
    pub private_key: Option<Zeroizing<Vec<u8>>>,
    /// What was asked for and not granted.
    pub dropped: Vec<String>,
}

/// What became of an order.
pub enum Outcome {
    /// It has its certificate.
    Issued(Box<Issued>),
    /// It waits for a person.
    Waiting,
}

/// The registrar of one account.
pub struct Registrar {
    ledger: Ledger,
    authority: Arc<Authority>,
    admission: Admission,
    clock: Clock,
    metrics: Arc<Metrics>,
    settings: Settings,
    refusals: Refusals,
    keygen: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Registrar {
    /// Puts the parts together.
    pub fn new(
        ledger: Ledger,
        authority: Arc<Authority>,
        clock: Clock,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        Self {
            ledger,
            authority,
            admission: Admission::new(&settings.admission),
            clock,
            metrics,
            settings,
            refusals: Refusals::default(),
            keygen: Arc::new(Semaphore::new(KEYGEN_SLOTS)),
            tasks: TaskTracker::new(),
        }
    }

    /// Carries an order out: a durable certificate, or a reason.
    ///
    /// # Errors
    /// Policy's refusals, and `CaUnavailable`, `LedgerUnavailable` or `Overloaded` when the server
    /// can't; nothing was used up then.
    pub async fn issue(self: &Arc<Self>, order: Order) -> Result<Outcome, Refusal> {
        let issuing = self.authority.trust().issuing.clone().ok_or_else(ca_unavailable)?;
        let turn = match order.key {
            KeySource::Device => None,
            // Who hangs up while waiting leaves the line.
            KeySource::Server => match self.turn_to_make_key(&order, &issuing).await? {
                Some(turn) => Some(turn),
                None => return Ok(Outcome::Waiting),
            },
        };
        let registrar = Arc::clone(self);
        // A task of its own: what began must end, also when the client hangs up.
        let work = self.tasks.spawn(async move { registrar.carry_out(order, issuing, turn).await });
        work.await.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "an issuance ended in a panic");
            Err(Refusal::new(Reason::LedgerUnavailable, "/"))
        })
    }

    /// Says what an order would get, and signs nothing.
    ///
    /// # Errors
    /// What policy, or the certificate's own rules, would refuse.
    pub fn rehearse(&self, order: &Order) -> Result<Grant, Refusal> {
        let issuing = self.authority.trust().issuing.clone().ok_or_else(ca_unavailable)?;
        let grant = self.grant(order, &order.wish(), &issuing)?;
        self.prepare(&grant, order.csr.subject_key(), &issuing)?;
        Ok(grant)
    }

    /// Waits until everything that began has ended.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stands in line to make a key; none for an order that waits for a person.
    ///
    /// A key is dear, so none is made for what is refused or has to wait. That is asked before the order stands in
    /// line, and again when its turn comes: by then the one before may have used the token up.
    async fn turn_to_make_key(
        &self,
        order: &Order,
        issuing: &IssuingCa,
    ) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        if self.waits_without_key(order, issuing).await? {
            return Ok(None);
        }
        let turn = tokio::time::timeout(KEYGEN_WAIT, Arc::clone(&self.keygen).acquire_owned()).await;
        turn.ok().and_then(Result::ok).map(Some).ok_or_else(|| Refusal::new(Reason::Overloaded, "/"))
    }

    /// Makes the key of an order whose turn it is; none for one that waits for a person.
    ///
    /// The turn lasts until the intent is stored. It must not be a client's to end: whoever hung up would have the
    /// next key made while this one still is, and its token unused.
    async fn make_key(
        &self,
        order: &Order,
        issuing: &IssuingCa,
        turn: OwnedSemaphorePermit,
    ) -> Result<Option<Material>, Refusal> {
        if self.waits_without_key(order, issuing).await? {
            return Ok(None);
        }
        let wish = order.wish();
        let wished = wish.key;
        let made = tokio::task::spawn_blocking(move || GeneratedKey::generate(&wished)).await;
        let weak = || Refusal::new(Reason::KeyWeak, "/csr/subjectPublicKeyInfo");
        let generated = made.map_err(|_| ca_unavailable())?.map_err(|error| weak().with_detail(error))?;
        let key = generated.subject_key().clone();
        let wish = Wish { key: generated.wished_key(), key_fingerprint: key.fingerprint(), ..wish };
        let private_key = generated.pkcs8_der().map_err(|_| ca_unavailable())?;
        Ok(Some(Material { wish, key, made: Some(MadeKey { private_key, _turn: turn }) }))
    }

    /// Whether an order waits for a person, which is asked before its key is made.
    async fn waits_without_key(&self, order: &Order, issuing: &IssuingCa) -> Result<bool, Refusal> {
        let grant = self.grant(order, &order.wish(), issuing)?;
        let serial = Serial::new(self.clock.now(), random_or_refuse()?);
        let begin = self.intent(order, issuing.id, serial, grant.key_fingerprint(), KeyState::ToBeMade)?;
        match self.begin(begin).await? {
            Begun::MakeKey => Ok(false),
            Begun::Waiting { .. } => Ok(true),
            // Its twin takes longer than it may be waited for; nothing else is answered without a key.
            Begun::AlreadyIssued(_) | Begun::InProgress | Begun::Proceed => {
                Err(Refusal::new(Reason::Overloaded, "/"))
            }
        }
    }

    fn grant(&self, order: &Order, wish: &Wish, issuing: &IssuingCa) -> Result<Grant, Refusal> {
        let trust = self.authority.trust();
        let device = order.identified.caller.device();
        let known = self.reader()?.device(self.settings.account, device).map_err(unreadable)?;
        let setting = Setting {
            trust_domain: &trust.trust_domain,
            device_status: known.map_or(DeviceStatus::Active, |device| device.status),
            issuer_not_after: issuing.issuer.certificate().not_after(),
            now: self.clock.now(),
            spread: u32::from_be_bytes(random_or_refuse()?),
        };
        enrol(wish, &order.identified.caller, &order.profile, setting)
    }

    fn prepare(&self, grant: &Grant, key: &SubjectKey, issuing: &IssuingCa) -> Result<Prepared, Refusal> {
        let serial = Serial::new(self.clock.now(), random_or_refuse()?);
        let crl_url = grant.names_crl().then(|| self.authority.crl_url(issuing.id)).flatten();
        issuing.issuer.prepare(grant, key, serial, crl_url.as_deref()).map_err(|error| {
            tracing::error!(%error, device = %grant.device(), "a certificate broke a rule before signing");
            ca_unavailable()
        })
    }

    async fn carry_out(
        &self,
        order: Order,
        issuing: IssuingCa,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Outcome, Refusal> {
        let material = match turn {
            None => Material::of_request(&order),
            Some(turn) => match self.make_key(&order, &issuing, turn).await? {
                Some(material) => material,
                None => return Ok(Outcome::Waiting),
            },
        };
        let grant = self.grant(&order, &material.wish, &issuing)?;
        let prepared = self.prepare(&grant, &material.key, &issuing)?;
        self.record(Draft { order, grant, issuing, prepared, made: material.made }).await
    }

    /// Stores the intent, signs, and stores the certificate.
    async fn record(&self, draft: Draft) -> Result<Outcome, Refusal> {
        let (serial, key) = (draft.prepared.serial(), draft.grant.key_fingerprint());
        let begin = self.intent(&draft.order, draft.issuing.id, serial, key, KeyState::Made)?;
        let (request, id) = (begin.request, begin.certificate);
        match self.begin(begin).await? {
            Begun::Proceed => {}
            Begun::Waiting { .. } => return Ok(Outcome::Waiting),
            Begun::AlreadyIssued(certificate) => {
                let dropped = draft.grant.dropped().to_vec();
                let issued = Issued { certificate: *certificate, private_key: None, dropped };
                return Ok(Outcome::Issued(Box::new(issued)));
            }
            // The key is there, so that none is asked for.
            Begun::InProgress | Begun::MakeKey => return Err(Refusal::new(Reason::Overloaded, "/")),
        }
        let by = draft.order.by(&self.clock);
        let note = draft.order.identified.note.clone();
        let dropped = draft.grant.dropped().to_vec();
        match draft.sign(id, self.settings.account, by.at) {
            Ok((certificate, private_key)) => {
                let complete = CompleteIssue {
                    request,
                    certificate: Box::new(certificate.clone()),
                    note,
                    by: by.clone(),
                };
                match self.ledger.transact(complete).await {
                    Ok(()) => Ok(Outcome::Issued(Box::new(Issued { certificate, private_key, dropped }))),
                    Err(error) => {
                        let reason = match &error {
                            LedgerError::Refused(refused) => refused.reason(),
                            _ => Reason::LedgerUnavailable,
                        };
                        tracing::error!(%error, certificate = %id, "a signed certificate was not stored");
                        self.abandon(request, id, Signed::Maybe, reason, by).await;
                        Err(Refusal::new(reason, "/"))
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the CA key can't sign");
                self.abandon(request, id, Signed::No, Reason::CaUnavailable, by).await;
                Err(ca_unavailable())
            }
        }
    }

    fn intent(
        &self,
        order: &Order,
        ca: CaId,
        serial: Serial,
        key_fingerprint: KeyFingerprint,
        key: KeyState,
    ) -> Result<BeginIssue, Refusal> {
        let settings = &self.settings;
        let repeat_for = match (order.key, order.identified.how) {
            // The key was handed out once and is kept nowhere.
            (KeySource::Server, _) => Duration::ZERO,
            (KeySource::Device, How::First | How::Keygen) => settings.first_window,
            (KeySource::Device, How::Operator | How::Renewal) => settings.renewal_window,
        };
        // A person agrees to a device once; its renewals, and what an operator signs, need no other.
        let approval = match order.identified.how {
            How::First | How::Keygen => order.profile.approval,
            How::Operator | How::Renewal => Approval::Automatic,
        };
        Ok(BeginIssue {
            request: order.request_key(),
            account: settings.account,
            certificate: CertificateId::new(self.clock.unix_millis(), random_or_refuse()?),
            serial,
            ca,
            device: order.identified.caller.device().clone(),
            profile: order.profile.label.clone(),
            key_fingerprint,
            key,
            token: order.identified.token,
            replaces: order.identified.replaces,
            approval,
            waiting_max: settings.approvals_max,
            csr_der: order.csr_der.clone(),
            source: order.source.map(|source| source.to_string()),
            repeat_for,
            by: order.by(&self.clock),
        })
    }

    /// Stores the intent. An equal request that is being worked on is waited for.
    async fn begin(&self, begin: BeginIssue) -> Result<Begun, Refusal> {
        let deadline = Instant::now() + TWIN_WAIT;
        loop {
            let by = By { at: self.clock.now(), ..begin.by.clone() };
            let begin = BeginIssue { by, ..begin.clone() };
            let begun = self.ledger.transact(begin).await.map_err(|error| match error {
                LedgerError::Refused(IssueRefused::Policy(reason)) => Refusal::new(reason, "/"),
                LedgerError::Overloaded => Refusal::new(Reason::Overloaded, "/"),
                error => {
                    tracing::error!(%error, "an intent was not stored");
                    Refusal::new(Reason::LedgerUnavailable, "/")
                }
            })?;
            if begun != Begun::InProgress || Instant::now() >= deadline {
                return Ok(begun);
            }
            tokio::time::sleep(TWIN_LOOK).await;
        }
    }

    async fn abandon(
        &self,
        request: RequestKey,
        certificate: CertificateId,
        signed: Signed,
        reason: Reason,
        by: By,
    ) {
        let abandon = AbandonIssue { request, certificate, signed, reason: Some(reason), by };
        if let Err(error) = self.ledger.transact(abandon).await {
            // The ledger gives the token back by itself when the intent is stale, or at its next start.
            tracing::warn!(%error, "an intent stays until it is stale");
        }
    }

    /// Writes refusals to the audit until stopped.
    pub async fn write_refusals_until(&self, stop: &CancellationToken) {
        self.refusals.write_until(stop, &self.ledger, &self.clock).await;
    }

    /// Forgets the rate limits of those who have recovered their whole share.
    pub fn forget_idle(&self) {
        self.admission.forget_idle();
    }

    /// The account it enrolls for.
    pub const fn account(&self) -> AccountId {
        self.settings.account
    }

    /// The account's CAs.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The ledger.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The clock.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The profile of paths without a label.
    pub const fn default_profile(&self) -> &Label {
        &self.settings.default_profile
    }

    /// A profile of the account, checked; none where there is none of this name.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn profile(&self, label: &Label) -> Result<Option<Profile>, Refusal> {
        self.profile_in(&self.reader()?, label)
    }

    /// The same out of a snapshot that is there.
    pub(crate) fn profile_in(&self, reader: &Reader, label: &Label) -> Result<Option<Profile>, Refusal> {
        let written = reader.profile(self.settings.account, label).map_err(unreadable)?;
        Ok(written.and_then(|written| written.check(label.clone()).ok()))
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(crate) fn reader(&self) -> Result<Reader, Refusal> {
        self.ledger.reader().map_err(unreadable)
    }

    pub(crate) const fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn note_refusal(
        &self,
        refusal: &Refusal,
        device: Option<DeviceId>,
        source: IpAddr,
        request: &str,
    ) {
        self.refusals.note(self.settings.account, refusal, device, source, request, self.clock.now());
    }

    pub(crate) const fn approval_retry(&self) -> Duration {
        self.settings.approval_retry
    }
}

/// PKCS#8; it goes to the device and is kept nowhere.
type PrivateKey = Zeroizing<Vec<u8>>;

/// A key made here.
struct MadeKey {
    private_key: PrivateKey,
    /// The next key is made when the intent for this one is stored: one use of a token makes one key.
    _turn: OwnedSemaphorePermit,
}

/// A key, and the wish that fits it.
struct Material {
    wish: Wish,
    key: SubjectKey,
    /// None when the device made its own.
    made: Option<MadeKey>,
}

impl Material {
    fn of_request(order: &Order) -> Self {
        Self { wish: order.wish(), key: order.csr.subject_key().clone(), made: None }
    }
}

/// Everything that is known before the intent is stored.
struct Draft {
    order: Order,
    grant: Grant,
    issuing: IssuingCa,
    prepared: Prepared,
    made: Option<MadeKey>,
}

impl Draft {
    /// Signs: the prepared certificate is moved, so nothing is signed twice.
    fn sign(
        self,
        id: CertificateId,
        account: AccountId,
        issued_at: UnixTime,
    ) -> Result<(Certificate, Option<PrivateKey>), SignError> {
        let (not_before, not_after) = (self.prepared.not_before(), self.prepared.not_after());
        let issued = self.prepared.sign()?;
        let certificate = Certificate {
            id,
            account,
            ca: self.issuing.id,
            serial: issued.serial,
            fingerprint: issued.fingerprint,
            key_fingerprint: self.grant.key_fingerprint(),
            device: self.grant.device().clone(),
            profile: self.grant.profile().clone(),
            subject: vec![SubjectAttribute {
                oid: OID_COMMON_NAME.to_owned(),
                text: self.grant.device().as_str().to_owned(),
            }],
            sans: self.grant.sans().to_vec(),
            not_before,
            not_after,
            renewal: self.grant.renewal(),
            issued_at,
            how: match self.order.key {
                KeySource::Device => self.order.identified.how,
                KeySource::Server => How::Keygen,
            },
            replaces: self.order.identified.replaces,
            revoked: None,
            der: issued.der.into(),
            client: self.order.client,
        };
        Ok((certificate, self.made.map(|made| made.private_key)))
    }
}

impl Order {
    /// Names the order; a key made here is new each time, so that kind never equals the other.
    fn request_key(&self) -> RequestKey {
        self.identified.request_key(&self.profile.label, &self.csr, self.key)
    }

    fn by(&self, clock: &Clock) -> By {
        By { actor: self.identified.actor.clone(), at: clock.now() }
    }
}

fn ca_unavailable() -> Refusal {
    Refusal::new(Reason::CaUnavailable, "/ca")
}

#[expect(clippy::needless_pass_by_value, reason = "it is the shape that map_err wants")]
fn unreadable(fault: Fault) -> Refusal {
    tracing::error!(%fault, "the ledger can't be read");
    Refusal::new(Reason::LedgerUnavailable, "/")
}

#[cfg(test)]
mod tests;
