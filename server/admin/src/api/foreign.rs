//! What is revoked of certificates that a CA issued elsewhere: by the CA's own list, or by name.

use std::sync::Arc;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_enroll::{CRL_MAX_BYTES, ListOrigin};
use muster_policy::host::WhenStale;
use muster_policy::identity::{CaId, CertificateId, Fingerprint, Serial};
use muster_policy::revocation::RevocationReason;
use muster_policy::time::UnixTime;
use muster_store::act::{ListTaken, Named, ReinstateNamed, RevokeNamed, SetListSettings};
use muster_store::record::{
    ForeignCa, ForeignName, ForeignRevoked, ListFetch, ListSettings, ListSource, Revocation,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::cas::known;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::lists;
use crate::paging::PageWish;
use crate::request::{Account, ForeignNamed, Id, Json, Query};
use crate::x509;

/// How often a list is fetched when nothing is said.
const EVERY_DEFAULT_S: u32 = 3_600;
/// What a list in DER begins with.
const DER_SEQUENCE: u8 = 0x30;
/// A list of a week's age tells too little.
const EVERY_MAX_S: u32 = 7 * 86_400;
/// More often is a burden for the CA.
const EVERY_MIN_S: u32 = 60;

/// What is known of a CA's revocations beside those of certificates issued here.
#[derive(Serialize, ToSchema)]
pub(crate) struct ForeignView {
    /// How many certificates that were issued elsewhere are revoked.
    revoked: u64,
    /// How many of them were revoked here, by name.
    revoked_by_operator: u64,
    /// The CA's own list; none when there never was one.
    list: Option<ListView>,
    /// Whether nobody is let in by its certificates, because the list is past its end.
    closed: bool,
    #[serde(flatten)]
    settings: ListSettingsView,
    /// The last fetch of the list; null while the list is uploaded.
    last_fetch: Option<ListFetch>,
    /// When the list is fetched next; null while it is uploaded.
    next_fetch_at: Option<UnixTime>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ForeignListView)]
pub(crate) struct ListView {
    /// Its CRL number, hex.
    number_hex: String,
    this_update: UnixTime,
    next_update: UnixTime,
    /// Whether it is past its end.
    stale: bool,
    entries: u64,
    source: ListSource,
    taken_at: UnixTime,
    sha256: Fingerprint,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ListSettingsView {
    /// Where the list is fetched from; null when it is uploaded.
    url: Option<String>,
    every_s: u32,
    /// `closed`: nobody gets in by the CA's certificates once its list is past its end. `open`: the last list goes on.
    when_stale: WhenStale,
    /// The distribution point (RFC 5280 §5.2.5) whose list is the CA's complete one; null when it names none.
    distribution_point: Option<String>,
}

impl ForeignView {
    pub(crate) fn new(api: &Api, ca: CaId, known: &ForeignCa) -> Self {
        let now = api.now();
        let is_fetched = known.settings.url.is_some();
        let last_fetch = api.lists().last(ca, known).filter(|_| is_fetched);
        let next_fetch_at = is_fetched.then(|| lists::next_at(ca, known, last_fetch.as_ref(), now));
        let list = known.list.as_ref().map(|list| ListView {
            number_hex: if list.number.is_empty() { "00".to_owned() } else { hex(&list.number) },
            this_update: list.this_update,
            next_update: list.next_update,
            stale: list.next_update <= now,
            entries: list.entries,
            source: list.source,
            taken_at: list.taken_at,
            sha256: list.fingerprint,
        });
        Self {
            revoked: known.revoked,
            revoked_by_operator: known.by_operator,
            closed: known.closes_at().is_some_and(|at| at <= now),
            list,
            settings: ListSettingsView {
                url: known.settings.url.clone(),
                every_s: if known.settings.every_s == 0 { EVERY_DEFAULT_S } else { known.settings.every_s },
                when_stale: known.settings.when_stale,
                distribution_point: known.settings.point.clone(),
            },
            last_fetch,
            next_fetch_at,
        }
    }

    /// As it is now, of a CA.
    pub(crate) async fn of(api: &Api, ca: CaId) -> Result<Self, ApiError> {
        let known = api.read(move |reader| reader.foreign_ca(ca)).await?;
        Ok(Self::new(api, ca, &known))
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A certificate that is revoked, and by whom.
#[derive(Serialize, ToSchema)]
pub(crate) struct ForeignRevokedView {
    ca: CaId,
    /// What it is named by where it is revoked: its serial, or its fingerprint.
    name: String,
    serial_number: Option<Serial>,
    fingerprint_sha256: Option<Fingerprint>,
    /// The certificate, when this server issued it.
    certificate: Option<CertificateId>,
    revoked: bool,
    revoked_at: Option<UnixTime>,
    reason: Option<RevocationReason>,
    /// Whether the CA's own list says so.
    by_list: bool,
    /// Whether an operator said so.
    by_operator: bool,
}

impl ForeignRevokedView {
    fn of(entry: &ForeignRevoked) -> Self {
        let (serial_number, fingerprint_sha256) = match entry.name {
            ForeignName::Fingerprint(fingerprint) => (None, Some(fingerprint)),
            ForeignName::Serial(serial) => (Some(serial), None),
        };
        let revocation: Option<Revocation> = entry.revocation();
        Self {
            ca: entry.ca,
            name: entry.name.to_string(),
            serial_number,
            fingerprint_sha256,
            certificate: None,
            revoked: revocation.is_some(),
            revoked_at: revocation.map(|revocation| revocation.at),
            reason: revocation.map(|revocation| revocation.reason),
            by_list: entry.by_list.is_some(),
            by_operator: entry.by_operator.is_some(),
        }
    }

    fn of_named(named: &Named) -> Self {
        match named {
            Named::Foreign(entry) => Self::of(entry),
            Named::Issued(certificate) => Self {
                ca: certificate.ca,
                name: certificate.serial.to_string(),
                serial_number: Some(certificate.serial),
                fingerprint_sha256: Some(certificate.fingerprint),
                certificate: Some(certificate.id),
                revoked: certificate.revoked.is_some(),
                revoked_at: certificate.revoked.map(|revocation| revocation.at),
                reason: certificate.revoked.map(|revocation| revocation.reason),
                by_list: false,
                by_operator: certificate.revoked.is_some(),
            },
        }
    }
}

/// `GET …/cas/{id}/revoked?name=`
pub(crate) async fn list(State(api): State<Arc<Api>>, _: Account, Id(id): Id<CaId>, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let ca = known(&api, id).await?.id;
    if let Some(name) = query.parse::<ForeignName>("name")? {
        let found = api.read(move |reader| reader.foreign_revoked(ca, name)).await?;
        let (found, info) = page.cut(found.into_iter().collect());
        return Answer::list(&found.iter().map(ForeignRevokedView::of).collect::<Vec<_>>(), info);
    }
    let paging = page.paging();
    let found = api.read(move |reader| reader.foreign_revoked_of(ca, &paging)).await?;
    let views: Vec<ForeignRevokedView> = found.items.iter().map(ForeignRevokedView::of).collect();
    Answer::list(&views, page.info(&found)?)
}

/// One of the three says which certificate is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewForeignRevoked {
    /// Its serial, hex.
    serial_number: Option<Serial>,
    /// SHA-256 of it, hex.
    fingerprint_sha256: Option<Fingerprint>,
    /// The certificate itself, PEM.
    certificate: Option<String>,
    #[serde(default)]
    reason: RevocationReason,
}

impl NewForeignRevoked {
    fn name(&self, ca_der: &[u8]) -> Result<ForeignName, ApiError> {
        match (self.serial_number, self.fingerprint_sha256, &self.certificate) {
            (Some(serial), None, None) => Ok(ForeignName::Serial(serial)),
            (None, Some(fingerprint), None) => Ok(ForeignName::Fingerprint(fingerprint)),
            (None, None, Some(text)) => name_of(text, ca_der),
            _ => Err(ApiError::argument(
                "/serial_number",
                "give one of serial_number, fingerprint_sha256 and certificate",
            )),
        }
    }
}

/// A certificate of the CA is named by its serial.
fn name_of(text: &str, ca_der: &[u8]) -> Result<ForeignName, ApiError> {
    let wrong = |message: &str| ApiError::argument("/certificate", format!("certificate: {message}"));
    let der = pem::first(text).ok_or_else(|| wrong("there is none in PEM form"))?;
    match x509::serial_under(&der, ca_der) {
        Ok(serial) => Ok(ForeignName::Serial(serial)),
        Err(message) => Err(wrong(&message)),
    }
}

/// `POST …/cas/{id}/revoked`; one that is revoked keeps its first time and reason.
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<CaId>,
    caller: Caller,
    Json(new): Json<NewForeignRevoked>,
) -> Outcome {
    let ca = known(&api, id).await?;
    let name = new.name(&ca.certificate_der)?;
    let by = caller.by(api.now());
    let revoke = RevokeNamed { account, ca: ca.id, name, reason: new.reason, by };
    let named = api.registrar().ledger().transact(revoke).await?;
    answer_with_new_crl(&api, ca.id, &named).await
}

/// `DELETE …/cas/{id}/revoked/{name}`: takes back what was said here; the CA's own list stays.
pub(crate) async fn reinstate(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<CaId>,
    ForeignNamed(name): ForeignNamed,
    caller: Caller,
) -> Outcome {
    let ca = known(&api, id).await?.id;
    let reinstate = ReinstateNamed { account, ca, name, by: caller.by(api.now()) };
    let named = api.registrar().ledger().transact(reinstate).await?;
    answer_with_new_crl(&api, ca, &named).await
}

async fn answer_with_new_crl(api: &Api, ca: CaId, named: &Named) -> Outcome {
    api.registrar().authority().renew_crl(ca, api.crl_lifetime()).await?;
    Answer::one(&ForeignRevokedView::of_named(named))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewList {
    /// The CA's own CRL: PEM, or DER in base64.
    crl: String,
}

/// What a list changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListTakenView {
    /// How many certificates are revoked that were not.
    newly_revoked: u64,
    /// How many are good again.
    reinstated: u64,
    revocation: ForeignView,
}

impl ListTakenView {
    fn new(api: &Api, ca: CaId, taken: &ListTaken) -> Self {
        Self {
            newly_revoked: taken.revoked,
            reinstated: taken.reinstated,
            revocation: ForeignView::new(api, ca, &taken.ca),
        }
    }
}

/// `PUT …/cas/{id}/crl`: the CA's own list, in place of the one before.
pub(crate) async fn upload(
    State(api): State<Arc<Api>>,
    _: Account,
    Id(id): Id<CaId>,
    caller: Caller,
    Json(NewList { crl }): Json<NewList>,
) -> Outcome {
    let ca = known(&api, id).await?.id;
    let octets = octets_of(crl)?;
    let point = api.read(move |reader| reader.foreign_ca(ca)).await?.settings.point;
    let origin = ListOrigin { source: ListSource::Uploaded, by: caller.by(api.now()), point };
    let taken = lists::take(&api, ca, octets, origin, "/crl").await?;
    api.lists().changed();
    Answer::one(&ListTakenView::new(&api, ca, &taken))
}

fn octets_of(text: String) -> Result<Vec<u8>, ApiError> {
    if text.contains("-----BEGIN ") {
        return Ok(text.into_bytes());
    }
    if text.len() > CRL_MAX_BYTES * 2 {
        return Err(ApiError::argument("/crl", "crl: it is larger than 4 MiB"));
    }
    let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let octets = STANDARD.decode(digits).ok().filter(|octets| octets.first() == Some(&DER_SEQUENCE));
    octets.ok_or_else(|| ApiError::argument("/crl", "crl: neither PEM nor DER in base64"))
}

/// `GET …/cas/{id}/crl/settings`
pub(crate) async fn settings(State(api): State<Arc<Api>>, _: Account, Id(id): Id<CaId>) -> Outcome {
    let ca = known(&api, id).await?.id;
    Answer::one(&ForeignView::of(&api, ca).await?)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewListSettings {
    /// Where the list is fetched from, `https://` or `http://`; without it, it is uploaded.
    url: Option<String>,
    /// How often, 60 to 604,800 seconds; an hour when not given.
    every_s: Option<u32>,
    #[serde(default)]
    when_stale: WhenStale,
    /// A URI: a list that names this distribution point is the CA's complete list and no part.
    distribution_point: Option<String>,
}

/// Longest URI of a distribution point, octets.
const POINT_MAX_BYTES: usize = 2_048;

impl NewListSettings {
    fn check(self, api: &Api) -> Result<ListSettings, ApiError> {
        if let Some(url) = &self.url {
            api.lists().check_url(url)?;
        }
        let every_s = self.every_s.unwrap_or(EVERY_DEFAULT_S);
        if !(EVERY_MIN_S..=EVERY_MAX_S).contains(&every_s) {
            let message = format!("every_s: {EVERY_MIN_S} to {EVERY_MAX_S}");
            return Err(ApiError::argument("/every_s", message));
        }
        let is_uri = |point: &String| {
            point.len() <= POINT_MAX_BYTES
                && point.contains(':')
                && point.bytes().all(|c| c.is_ascii_graphic())
        };
        if !self.distribution_point.as_ref().is_none_or(is_uri) {
            let message = format!("distribution_point: a URI of at most {POINT_MAX_BYTES} octets");
            return Err(ApiError::argument("/distribution_point", message));
        }
        let point = self.distribution_point;
        Ok(ListSettings { url: self.url, every_s, when_stale: self.when_stale, point })
    }
}

/// `PUT …/cas/{id}/crl/settings`. A new address is fetched from first: one without a list is refused, and nothing
/// is set.
pub(crate) async fn set_settings(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<CaId>,
    caller: Caller,
    Json(new): Json<NewListSettings>,
) -> Outcome {
    let ca = known(&api, id).await?.id;
    let settings = new.check(&api)?;
    let by = caller.by(api.now());
    let before = api.read(move |reader| reader.foreign_ca(ca)).await?;
    if let Some(url) = settings.url.as_ref().filter(|url| before.settings.url.as_ref() != Some(*url)) {
        lists::fetch(&api, (ca, &before), url, settings.point.clone(), by.clone()).await?;
    }
    let set = SetListSettings { account, ca, settings, by };
    let known = api.registrar().ledger().transact(set).await?;
    api.lists().changed();
    Answer::one(&ForeignView::new(&api, ca, &known))
}

/// `POST …/cas/{id}/crl/fetch`: fetches the list now.
pub(crate) async fn fetch(
    State(api): State<Arc<Api>>,
    _: Account,
    Id(id): Id<CaId>,
    caller: Caller,
) -> Outcome {
    let ca = known(&api, id).await?.id;
    let before = api.read(move |reader| reader.foreign_ca(ca)).await?;
    let ListSettings { url, point, .. } = before.settings.clone();
    let url = url.ok_or_else(|| {
        ApiError::conflict("the CRL of this CA is uploaded: set the URL that it is fetched from first")
    })?;
    let taken = lists::fetch(&api, (ca, &before), &url, point, caller.by(api.now())).await?;
    api.lists().changed();
    Answer::one(&ListTakenView::new(&api, ca, &taken))
}
