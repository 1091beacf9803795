//! Issuing a certificate: intent, then certificate, or back.
//!
//! [`BeginIssue`] checks everything that may have changed since policy decided, reserves a use of the
//! token and stores the intent. The caller signs, then [`CompleteIssue`] makes the certificate and
//! all that belongs to it one durable change. [`AbandonIssue`] takes the intent back.

use core::time::Duration;

use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{
    AccountId, CaId, CertificateId, KeyFingerprint, RequestKey, Serial, TokenId, ZoneId,
};
use muster_policy::name::{DeviceId, Label};
use muster_policy::profile::Approval;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::act::{By, audit, devices, requests};
use crate::keys;
use crate::mark;
use crate::record::{
    Action, Ca, CaState, Certificate, CertificateStatus, ChangeKind, Device, Intent, Request, Revocation,
    Subjects, Token, WaitingRequest, Zone,
};
use crate::tables::{TableName, Tables};
use crate::transaction::{Failed, Fault, Transaction};

/// How many of a device's newest certificates are looked at for a repetition: it follows the lost
/// answer closely, and a device that was issued this many since is not waiting for that one.
const REPEATS_LOOKED_AT: usize = 16;
/// After this an intent counts as abandoned: signing takes milliseconds, so its caller is gone.
pub const INTENT_STALE_AFTER: Duration = Duration::from_secs(120);

/// Asks to issue: checks again what may have changed, and stores the intent.
///
/// A use of the token is reserved with the intent. While a request waits for a person no use is
/// reserved; when the approved request is made again the token may have ended meanwhile, but must have a use left.
#[derive(Clone, Debug)]
pub struct BeginIssue {
    /// Names the request; the same request has the same key.
    pub request: RequestKey,
    /// The account.
    pub account: AccountId,
    /// The id of the certificate to be.
    pub certificate: CertificateId,
    /// Its serial, fresh.
    pub serial: Serial,
    /// The CA that will sign.
    pub ca: CaId,
    /// The device; one that is not known yet becomes known, and active.
    pub device: DeviceId,
    /// The profile it was granted under.
    pub profile: Label,
    /// The key to certify, or, while that is yet to be made, the one that the request is signed with.
    pub key_fingerprint: KeyFingerprint,
    /// Whether the key to certify is there.
    pub key: KeyState,
    /// The token that proves the caller, if one does.
    pub token: Option<TokenId>,
    /// The certificate that is renewed, if one is.
    pub replaces: Option<CertificateId>,
    /// Whether a person has to agree.
    pub approval: Approval,
    /// How many requests of the account may wait for a person at once.
    pub waiting_max: u32,
    /// The request itself, kept while it waits for a person.
    pub csr_der: Vec<u8>,
    /// The address it came from, kept likewise.
    pub source: Option<String>,
    /// For how long after its issue the same certificate answers the same request; zero for never,
    /// as when the key is made here and can't be delivered twice.
    pub repeat_for: Duration,
    /// Who asks, and when.
    pub by: By,
}

/// Whether the key to certify is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is.
    Made,
    /// It is made once nothing else is in the way; a token that is bound to a key is not good for it.
    ToBeMade,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The same request was answered with this certificate; answer with it again.
    AlreadyIssued(Box<Certificate>),
    /// The same request is being worked on right now; the caller should ask again.
    InProgress,
    /// Nothing is in the way, and nothing is stored: make the key, and begin again with it.
    MakeKey,
    /// The intent is stored: sign, then complete or abandon.
    Proceed,
    /// The request waits for a person.
    Waiting {
        /// Since when.
        since: UnixTime,
    },
}

/// Why issuing does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueRefused {
    /// Policy says no.
    #[error("{}", .0.sentence())]
    Policy(Reason),
    /// The CA used this serial before, or the certificate's id exists; choose fresh ones.
    #[error("the serial or the id was used before")]
    SerialTaken,
}

impl From<Reason> for Failed<IssueRefused> {
    fn from(reason: Reason) -> Self {
        Self::Refused(IssueRefused::Policy(reason))
    }
}

/// What is asked of a device here; decoding the whole record would cost as much as the look-up.
#[derive(Deserialize)]
struct DeviceStanding {
    status: DeviceStatus,
}

/// What is asked of the CA, likewise: its certificates stay where they are.
#[derive(Deserialize)]
struct CaStanding {
    account: AccountId,
    state: CaState,
}

/// What is asked of the certificate that is renewed, likewise.
#[derive(Deserialize)]
struct RenewedPart {
    device: DeviceId,
    #[serde(default)]
    revoked: Option<Revocation>,
}

impl Transaction for BeginIssue {
    const NAME: &'static str = "begin_issue";
    type Output = Begun;
    type Refused = IssueRefused;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<Begun, Failed<IssueRefused>> {
        let device: Option<DeviceStanding> =
            tables.get_part::<Device, _>(&keys::device(self.account, &self.device))?;
        match device.as_ref().map_or(DeviceStatus::Active, |device| device.status) {
            DeviceStatus::Active => {}
            DeviceStatus::Suspended => return Err(Reason::DeviceSuspended.into()),
            DeviceStatus::Retired => return Err(Reason::DeviceRetired.into()),
        }
        let token = self.token(tables)?;
        let stale: Option<Intent> = tables.get(&keys::request(self.request))?;
        if stale.as_ref().is_some_and(|intent| intent.at.plus(INTENT_STALE_AFTER) >= self.by.at) {
            return Ok(Begun::InProgress);
        }
        let request: Option<Request> = tables.get(&keys::request(self.request))?;
        match &request {
            Some(Request::Denied { .. }) => return Err(Reason::ApprovalDenied.into()),
            Some(Request::Waiting(waiting)) => return Ok(Begun::Waiting { since: waiting.since }),
            Some(Request::Approved { .. }) | None => {}
        }
        let before = self.issued_before(tables)?;
        if let Some(certificate) = before.as_ref().filter(|certificate| self.is_repeated_by(certificate)) {
            return Ok(Begun::AlreadyIssued(Box::new(certificate.clone())));
        }
        // The stale intent's use comes back before this one's is taken.
        let freed = stale.as_ref().is_some_and(|intent| intent.token == self.token);
        let approved = matches!(request, Some(Request::Approved { .. }));
        let mut uses = Uses::One;
        if let Some(token) = &token
            && let Some(reason) = usable(token, freed, approved, self)
        {
            if !self.asks_again(reason, token, before.as_ref()) {
                return Err(reason.into());
            }
            uses = Uses::None;
        }
        self.check_renewed(tables)?;
        self.check_ca(tables)?;
        if self.approval == Approval::Manual && !approved {
            return self.wait(tables, request.as_ref(), token.as_ref(), uses);
        }
        if self.key == KeyState::ToBeMade {
            return Ok(Begun::MakeKey);
        }
        if let Some(stale) = &stale {
            release(tables, &By::system(self.by.at), stale, Action::IssueInterrupted, None)?;
        }
        self.proceed(tables, device.is_none(), uses)?;
        Ok(Begun::Proceed)
    }
}

impl BeginIssue {
    /// Loads the token; a revoked one is refused even for a repetition.
    fn token(&self, tables: &mut Tables<'_>) -> Result<Option<Token>, Failed<IssueRefused>> {
        let Some(id) = self.token else { return Ok(None) };
        let Some(token) = tables.get::<Token>(&keys::token(self.account, id))? else {
            return Err(Reason::CredentialsWrong.into());
        };
        if token.revoked_at.is_some() {
            return Err(Reason::TokenRevoked.into());
        }
        Ok(Some(token))
    }

    /// The newest certificate that this very request was answered with.
    ///
    /// Request keys are kept in the device's index rather than in a table of their own: that would be
    /// one more page at a random place to write for every certificate.
    fn issued_before(&self, tables: &mut Tables<'_>) -> Result<Option<Certificate>, Fault> {
        let prefix = keys::device_certificates(self.account, &self.device);
        let request = self.request.as_bytes();
        let table = TableName::DeviceCertificates;
        let Some(id) = tables.newest_with_value(table, &prefix, request, REPEATS_LOOKED_AT)? else {
            return Ok(None);
        };
        tables.get(&keys::join(&[self.account.as_bytes(), &id]))
    }

    /// Whether that certificate still answers the request.
    fn is_repeated_by(&self, before: &Certificate) -> bool {
        let now = self.by.at;
        now < before.issued_at.plus(self.repeat_for) && before.status(now) == CertificateStatus::Active
    }

    /// Whether a used-up token carries this request all the same: it is bound to this device and this
    /// key, and the request was answered before. A device that never got the answer, and asks when it is no
    /// longer repeated, gets a fresh certificate for the key that it was made for; nobody else can ask.
    /// Not so once the certificate from before was revoked: that took the right away.
    fn asks_again(&self, refusal: Reason, token: &Token, before: Option<&Certificate>) -> bool {
        refusal == Reason::TokenUsed
            && token.device.as_ref() == Some(&self.device)
            && token.key == Some(self.key_fingerprint)
            && token.profile.as_ref().is_none_or(|profile| *profile == self.profile)
            && before.is_some_and(|before| before.revoked.is_none())
    }

    /// The certificate being renewed may have been revoked since the handshake.
    fn check_renewed(&self, tables: &mut Tables<'_>) -> Result<(), Failed<IssueRefused>> {
        let Some(id) = self.replaces else { return Ok(()) };
        match tables.get_part::<Certificate, RenewedPart>(&keys::certificate(self.account, id))? {
            Some(held) if held.device != self.device => Err(Reason::CertificateUnknown.into()),
            Some(held) if held.revoked.is_some() => Err(Reason::CertificateRevoked.into()),
            Some(_) => Ok(()),
            None => Err(Reason::CertificateUnknown.into()),
        }
    }

    fn check_ca(&self, tables: &mut Tables<'_>) -> Result<(), Failed<IssueRefused>> {
        match tables.get_part::<Ca, CaStanding>(&keys::ca(self.ca))? {
            Some(ca) if ca.account == self.account && ca.state == CaState::Active => {}
            _ => return Err(Reason::CaUnavailable.into()),
        }
        if tables.contains(TableName::Serials, &keys::serial(self.ca, self.serial))?
            || tables.contains(TableName::Certificates, &keys::certificate(self.account, self.certificate))?
        {
            return Err(Failed::Refused(IssueRefused::SerialTaken));
        }
        Ok(())
    }

    /// A token has as many requests wait as it has uses, and one that asks again for what it was given has this one:
    /// none of its bearers can fill everybody's queue.
    fn wait(
        &self,
        tables: &mut Tables<'_>,
        before: Option<&Request>,
        token: Option<&Token>,
        uses: Uses,
    ) -> Result<Begun, Failed<IssueRefused>> {
        let has_no_more = |token: &&Token| {
            let may_wait = match uses {
                Uses::One => token.uses_allowed.saturating_sub(token.uses_taken),
                Uses::None => 1,
            };
            token.waiting >= may_wait
        };
        let older = match token.filter(has_no_more) {
            Some(token) => Some(self.superseded(tables, token)?.ok_or(Reason::ApprovalQueueFull)?),
            None if tables.counters(self.account)?.waiting >= u64::from(self.waiting_max) => {
                return Err(Reason::ApprovalQueueFull.into());
            }
            None => None,
        };
        let mut details = format!("request {}", self.request);
        if let Some(older) = older {
            details.push_str(&format!(" instead of {}", older.key));
            requests::remove(tables, older.key, &Request::Waiting(older))?;
        }
        let waiting = WaitingRequest {
            key: self.request,
            account: self.account,
            device: self.device.clone(),
            profile: self.profile.clone(),
            caller: self.by.actor.clone(),
            key_fingerprint: self.key_fingerprint,
            csr_der: ByteBuf::from(self.csr_der.clone()),
            since: self.by.at,
            source: self.source.clone(),
        };
        requests::set(tables, self.request, before, &Request::Waiting(Box::new(waiting)))?;
        let subjects = Subjects {
            account: Some(self.account),
            device: Some(self.device.clone()),
            profile: Some(self.profile.clone()),
            token: self.token,
            ..Subjects::default()
        };
        audit(tables, &self.by, Action::RequestWaiting, subjects, Some(details))?;
        Ok(Begun::Waiting { since: self.by.at })
    }

    /// The oldest request by the token that waits, whose place this one takes: the token is one device's, which asks
    /// with another key once it has lost the one before. None for a claim token, whose bearers don't know each other.
    fn superseded(
        &self,
        tables: &mut Tables<'_>,
        token: &Token,
    ) -> Result<Option<Box<WaitingRequest>>, Fault> {
        match token.device {
            Some(_) => requests::oldest_of_token(tables, self.account, token.id),
            None => Ok(None),
        }
    }

    fn proceed(&self, tables: &mut Tables<'_>, device_is_new: bool, uses: Uses) -> Result<(), Fault> {
        if device_is_new {
            let device = Device::new(self.account, self.device.clone(), self.by.at);
            devices::store(tables, None, &device)?;
            let kind = ChangeKind::DeviceSet(device.id.clone(), device.status);
            tables.change(self.by.at, Some(self.account), kind)?;
        }
        let reserved = self.token.filter(|_| uses == Uses::One);
        if let Some(id) = reserved {
            let key = keys::token(self.account, id);
            if let Some(mut token) = tables.get::<Token>(&key)? {
                token.uses_taken = token.uses_taken.saturating_add(1);
                token.last_used_at = Some(self.by.at);
                tables.put(&key, &token)?;
            }
        }
        let intent = Intent {
            request: self.request,
            account: self.account,
            certificate: self.certificate,
            serial: self.serial,
            ca: self.ca,
            device: self.device.clone(),
            key_fingerprint: self.key_fingerprint,
            token: reserved,
            at: self.by.at,
        };
        tables.count_intent(1);
        tables.put(&keys::request(self.request), &intent)
    }
}

/// How many uses of the token a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uses {
    /// One.
    One,
    /// None: it asks again for what it was given already.
    None,
}

/// Why the token does not carry this request; `freed` when a use of it is about to come back.
///
/// One that ended while a person took their time still carries what that person `approved`: it was good when it
/// was asked.
fn usable(token: &Token, freed: bool, approved: bool, begin: &BeginIssue) -> Option<Reason> {
    let mut token = token.clone();
    if freed {
        token.uses_taken = token.uses_taken.saturating_sub(1);
    }
    if approved {
        token.expires_at = token.expires_at.max(begin.by.at.plus(Duration::from_secs(1)));
    }
    if let Some(reason) = token.refusal(begin.by.at, &begin.device) {
        return Some(reason);
    }
    if token.key.is_some_and(|key| key != begin.key_fingerprint || begin.key == KeyState::ToBeMade) {
        return Some(Reason::TokenKeyMismatch);
    }
    if token.profile.is_some_and(|profile| profile != begin.profile) {
        return Some(Reason::ProfileForbidden);
    }
    None
}

/// Stores the signed certificate with everything that belongs to it.
#[derive(Clone, Debug)]
pub struct CompleteIssue {
    /// The request that began.
    pub request: RequestKey,
    /// The certificate.
    pub certificate: Box<Certificate>,
    /// What the audit should say beside the facts, such as that a grace was used.
    pub note: Option<String>,
    /// Who asked, and when.
    pub by: By,
}

/// Why a signed certificate is not stored, and so must not be answered; abandon the intent then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteRefused {
    /// The device was suspended or retired meanwhile.
    #[error("the device is no longer active")]
    DeviceInactive(DeviceStatus),
    /// It is not the certificate that was intended.
    #[error("the certificate differs from its intent")]
    IntentDiffers,
    /// There is no intent: it was never stored, or was released as stale.
    #[error("there is no intent for the request")]
    IntentMissing,
    /// The CA used this serial before.
    #[error("the serial was used before")]
    SerialTaken,
}

impl CompleteRefused {
    /// The reason to answer with.
    pub const fn reason(self) -> Reason {
        match self {
            Self::DeviceInactive(DeviceStatus::Retired) => Reason::DeviceRetired,
            Self::DeviceInactive(_) => Reason::DeviceSuspended,
            Self::IntentDiffers | Self::IntentMissing | Self::SerialTaken => Reason::LedgerUnavailable,
        }
    }
}

impl Transaction for CompleteIssue {
    const NAME: &'static str = "complete_issue";
    type Output = ();
    type Refused = CompleteRefused;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<CompleteRefused>> {
        let certificate = &*self.certificate;
        let Some(intent) = tables.get::<Intent>(&keys::request(self.request))? else {
            return Err(Failed::Refused(CompleteRefused::IntentMissing));
        };
        if !carries_out(&intent, certificate) {
            return Err(Failed::Refused(CompleteRefused::IntentDiffers));
        }
        let device: Option<DeviceStanding> =
            tables.get_part::<Device, _>(&keys::device(intent.account, &intent.device))?;
        match device.map(|device| device.status) {
            Some(DeviceStatus::Active) => {}
            Some(status) => return Err(Failed::Refused(CompleteRefused::DeviceInactive(status))),
            None => return Err(Failed::Refused(CompleteRefused::IntentDiffers)),
        }
        if tables.contains(TableName::Serials, &keys::serial(certificate.ca, certificate.serial))? {
            return Err(Failed::Refused(CompleteRefused::SerialTaken));
        }
        let before: Option<Request> = tables.get(&keys::request(self.request))?;

        take_back(tables, &intent)?;
        store(tables, self.request, certificate)?;
        if let Some(approved) = &before {
            requests::remove(tables, self.request, approved)?;
        }
        let kind = ChangeKind::CertificateIssued(certificate.id);
        tables.change(self.by.at, Some(certificate.account), kind)?;
        let subjects = subjects_of(&intent, certificate);
        Ok(audit(tables, &self.by, Action::CertificateIssued, subjects, self.note.clone())?)
    }
}

fn carries_out(intent: &Intent, certificate: &Certificate) -> bool {
    intent.account == certificate.account
        && intent.certificate == certificate.id
        && intent.serial == certificate.serial
        && intent.ca == certificate.ca
        && intent.device == certificate.device
        && intent.key_fingerprint == certificate.key_fingerprint
}

fn store(tables: &mut Tables<'_>, request: RequestKey, certificate: &Certificate) -> Result<(), Fault> {
    let Certificate { id, account, ca, serial, device, not_after, .. } = certificate;
    let key = keys::certificate(*account, *id);
    tables.put(&key, certificate)?;
    tables.put_raw(TableName::Serials, &keys::serial(*ca, *serial), &key)?;
    let by_device = keys::device_certificate(*account, device, *id);
    tables.put_raw(TableName::DeviceCertificates, &by_device, request.as_bytes())?;
    tables.put_raw(TableName::Expiry, &keys::expiry(*not_after, *account, *id), &[])?;
    mark::put(tables, certificate)?;
    if let Some(client) = &certificate.client {
        count_in_zone(tables, client.zone, |number| number.saturating_add(1))?;
    }
    tables.count(*account, |counters| counters.certificates = counters.certificates.saturating_add(1))
}

/// Moves a zone's number of client certificates; the zone may be gone.
pub(super) fn count_in_zone(
    tables: &mut Tables<'_>,
    zone: ZoneId,
    change: impl FnOnce(u64) -> u64,
) -> Result<(), Fault> {
    let key = keys::zone(zone);
    if let Some(mut zone) = tables.get::<Zone>(&key)? {
        zone.client_certificates = change(zone.client_certificates);
        tables.put(&key, &zone)?;
    }
    Ok(())
}

fn subjects_of(intent: &Intent, certificate: &Certificate) -> Subjects {
    Subjects { profile: Some(certificate.profile.clone()), ..subjects_of_intent(intent) }
}

fn subjects_of_intent(intent: &Intent) -> Subjects {
    Subjects {
        account: Some(intent.account),
        ca: Some(intent.ca),
        device: Some(intent.device.clone()),
        token: intent.token,
        certificate: Some(intent.certificate),
        serial: Some(intent.serial),
        ..Subjects::default()
    }
}

/// Whether the signer was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// It was, or it may have been: the serial goes to the audit.
    Maybe,
    /// It was not.
    No,
}

/// Takes an intent back and releases the token's use; without that intent it changes nothing.
#[derive(Clone, Debug)]
pub struct AbandonIssue {
    /// The request that began.
    pub request: RequestKey,
    /// The certificate that was to be.
    pub certificate: CertificateId,
    /// Whether the signer was called.
    pub signed: Signed,
    /// Why, for the audit.
    pub reason: Option<Reason>,
    /// Who asked, and when.
    pub by: By,
}

impl Transaction for AbandonIssue {
    const NAME: &'static str = "abandon_issue";
    type Output = ();
    type Refused = core::convert::Infallible;

    fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Failed<Self::Refused>> {
        match tables.get::<Intent>(&keys::request(self.request))? {
            Some(intent) if intent.certificate == self.certificate => match self.signed {
                Signed::Maybe => release(tables, &self.by, &intent, Action::IssueAbandoned, self.reason)?,
                Signed::No => release_silently(tables, &intent)?,
            },
            Some(_) | None => {}
        }
        Ok(())
    }
}

/// Takes an intent back, with an audit entry that holds the serial that may have been signed.
pub(super) fn release(
    tables: &mut Tables<'_>,
    by: &By,
    intent: &Intent,
    action: Action,
    reason: Option<Reason>,
) -> Result<(), Fault> {
    release_silently(tables, intent)?;
    tables.audit(crate::record::AuditDraft {
        at: by.at,
        actor: by.actor.clone(),
        action,
        subjects: subjects_of_intent(intent),
        reason,
        details: None,
    })
}

fn release_silently(tables: &mut Tables<'_>, intent: &Intent) -> Result<(), Fault> {
    take_back(tables, intent)?;
    if let Some(id) = intent.token {
        let key = keys::token(intent.account, id);
        if let Some(mut token) = tables.get::<Token>(&key)? {
            token.uses_taken = token.uses_taken.saturating_sub(1);
            tables.put(&key, &token)?;
        }
    }
    Ok(())
}

fn take_back(tables: &mut Tables<'_>, intent: &Intent) -> Result<(), Fault> {
    tables.count_intent(-1);
    tables.remove(TableName::Intents, &keys::request(intent.request))?;
    Ok(())
}
