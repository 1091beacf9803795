//! Hostnames: what the edge demands at the door of each.
//!
//! PUT changes the fields that are given, of the rule as it is stored: what another writer changed meanwhile
//! stays. With the ETag of what was read as `If-Match` it is refused instead.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use http::HeaderValue;
use muster_departure::literal;
use muster_enroll::CaCertificate;
use muster_policy::host::{DefaultCas, HostMode, HostPattern, HostRule, MinTls, Protocol, WhenStale};
use muster_policy::identity::{AccountId, CaId, ZoneId};
use muster_policy::name::Hostname;
use muster_policy::network::DeniedNetworks;
use muster_policy::time::UnixTime;
use muster_store::act::{RemoveHost, SetHost};
use muster_store::record::{Host, OriginTls};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use utoipa::ToSchema;

use crate::Api;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Account, Id, IfMatch, Json, Query, tag};

/// Most origins of a hostname.
const ORIGINS_MAX: usize = 16;
/// Longest origin.
const ORIGIN_MAX_BYTES: usize = 300;
/// Longest silence of an origin that is not one without end.
const ORIGIN_TIMEOUT_MAX_S: u32 = 86_400;
/// Most CAs that may vouch for the origins of a hostname; room for two of each of a few operators.
const ORIGIN_CAS_MAX: usize = 8;
/// Longest text of them.
const ORIGIN_CA_MAX_BYTES: usize = 64 << 10;

#[derive(Serialize, ToSchema)]
pub(crate) struct HostView {
    host: HostPattern,
    zone_id: ZoneId,
    mode: HostMode,
    protocols: BTreeSet<Protocol>,
    cas: BTreeSet<CaId>,
    default_cas: DefaultCas,
    min_tls: MinTls,
    origins: Vec<String>,
    /// The only CAs that may vouch for the origins, PEM; empty for those that the machine trusts.
    origin_ca: String,
    /// The name that the origins' certificates must have; the host of the URL when there is none.
    origin_name: Option<Hostname>,
    /// Whether the origins are shown the account's outbound certificate.
    origin_client_cert: bool,
    when_stale: WhenStale,
    forward_certificate: bool,
    /// How many seconds an origin may be silent, before its answer begins and within it; 0 is for as long as
    /// it likes.
    origin_timeout_s: u32,
    created_at: UnixTime,
    changed_at: UnixTime,
}

impl From<Host> for HostView {
    fn from(host: Host) -> Self {
        let (rule, tls) = (host.rule, host.origin_tls);
        Self {
            host: rule.host,
            zone_id: rule.zone,
            mode: rule.mode,
            protocols: rule.protocols,
            cas: rule.cas,
            default_cas: rule.default_cas,
            min_tls: rule.min_tls,
            origins: rule.origins,
            origin_ca: pem::certificates(tls.cas.iter().map(|der| der.as_slice())),
            origin_name: tls.name,
            origin_client_cert: tls.identify,
            when_stale: rule.when_stale,
            forward_certificate: rule.forward_certificate,
            origin_timeout_s: rule.origin_timeout_s,
            created_at: host.created_at,
            changed_at: host.changed_at,
        }
    }
}

/// A field that is missing keeps what is set; one of a new hostname takes its default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostWish {
    mode: Option<HostMode>,
    protocols: Option<BTreeSet<Protocol>>,
    cas: Option<BTreeSet<CaId>>,
    default_cas: Option<DefaultCas>,
    min_tls: Option<MinTls>,
    origins: Option<Vec<String>>,
    /// PEM; empty for the CAs that the machine trusts.
    origin_ca: Option<String>,
    /// Empty for the host of the URL.
    origin_name: Option<String>,
    origin_client_cert: Option<bool>,
    when_stale: Option<WhenStale>,
    forward_certificate: Option<bool>,
    /// 60 of a new hostname; at most a day, and 0 for no end.
    origin_timeout_s: Option<u32>,
}

impl HostWish {
    fn onto(self, rule: HostRule, tls: OriginTls) -> Result<(HostRule, OriginTls), ApiError> {
        let tls = OriginTls {
            cas: self.origin_ca.map_or(Ok(tls.cas), |text| origin_cas(&text))?,
            name: self.origin_name.map_or(Ok(tls.name), |text| origin_name(&text))?,
            identify: self.origin_client_cert.unwrap_or(tls.identify),
        };
        let rule = HostRule {
            mode: self.mode.unwrap_or(rule.mode),
            protocols: self.protocols.unwrap_or(rule.protocols),
            default_cas: match (self.default_cas, &self.cas) {
                (Some(default_cas), _) => default_cas,
                // A new list of CAs means what it says, whatever was associated before.
                (None, Some(_)) => DefaultCas::default(),
                (None, None) => rule.default_cas,
            },
            cas: self.cas.unwrap_or(rule.cas),
            min_tls: self.min_tls.unwrap_or(rule.min_tls),
            origins: self.origins.unwrap_or(rule.origins),
            when_stale: self.when_stale.unwrap_or(rule.when_stale),
            forward_certificate: self.forward_certificate.unwrap_or(rule.forward_certificate),
            origin_timeout_s: self.origin_timeout_s.unwrap_or(rule.origin_timeout_s),
            ..rule
        };
        Ok((rule, tls))
    }
}

/// `GET …/hosts`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let hosts = api.read(move |reader| reader.hosts(account)).await?;
    let (hosts, info) = page.cut_sorted(Order::Ascending, hosts, |host| host.rule.host.to_string());
    let views: Vec<HostView> = hosts.into_iter().map(HostView::from).collect();
    Answer::list(&views, info)
}

fn etag(host: &Host) -> Result<HeaderValue, ApiError> {
    Ok(tag(&serde_json::to_string(host).map_err(ApiError::internal)?))
}

fn tagged(host: Host) -> Outcome {
    let tag = etag(&host)?;
    Ok(Answer::one(&HostView::from(host))?.tagged(tag))
}

/// `GET …/hosts/{host}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(host): Id<HostPattern>,
) -> Outcome {
    tagged(held(&api, account, &host).await?.ok_or_else(|| ApiError::not_found("hostname"))?)
}

async fn held(api: &Api, account: AccountId, host: &HostPattern) -> Result<Option<Host>, ApiError> {
    let wanted = host.clone();
    let found = api.read(move |reader| reader.host(&wanted)).await?;
    Ok(found.filter(|host| host.rule.account == account))
}

/// `PUT …/hosts/{host}`: makes it, or changes the fields that are given.
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    axum::extract::Path(path): axum::extract::Path<std::collections::HashMap<String, String>>,
    caller: Caller,
    if_match: IfMatch,
    Json(wish): Json<HostWish>,
) -> Outcome {
    // A name that can't be one is an error of the request here, not a missing object.
    let name = path.get("id").map(String::as_str).unwrap_or_default();
    let host: HostPattern =
        name.parse().map_err(|error| ApiError::argument("/host", format!("host: {error}")))?;
    let _turn = api.turn().await;
    let before = held(&api, account, &host).await?;
    if_match.check(before.as_ref().map(etag).transpose()?.as_ref())?;
    let (rule, origin_tls) = match before.clone() {
        Some(before) => (before.rule, before.origin_tls),
        None => (new_rule(&api, account, &host).await?, OriginTls::default()),
    };
    let (rule, origin_tls) = wish.onto(rule, origin_tls)?;
    check(&rule, &api.hooks().outbound.denied_networks)?;
    let set = SetHost { rule, origin_tls, instead_of: before, by: caller.by(api.now()) };
    tagged(api.registrar().ledger().transact(set).await?)
}

/// The rule of a hostname nobody set: mode `require`, HTTPS.
async fn new_rule(api: &Api, account: AccountId, host: &HostPattern) -> Result<HostRule, ApiError> {
    let zones = api.read(move |reader| reader.zones(account)).await?;
    let lies_in = zones.into_iter().filter(|zone| host.is_within(&zone.name));
    // A zone may lie in another one: the longest name is the nearest.
    let zone = lies_in.max_by_key(|zone| zone.name.as_str().len()).ok_or_else(|| {
        ApiError::argument(
            "/host",
            format!("host: {host} lies in no zone of the account; add the zone first"),
        )
    })?;
    Ok(HostRule::new(host.clone(), account, zone.id))
}

fn check(rule: &HostRule, denied: &DeniedNetworks) -> Result<(), ApiError> {
    check_origins(&rule.origins, denied)?;
    if rule.protocols.is_empty() {
        return Err(ApiError::argument("/protocols", "protocols: at least one of https, mqtt"));
    }
    if rule.origin_timeout_s > ORIGIN_TIMEOUT_MAX_S {
        let text = format!("origin_timeout_s: 0 to {ORIGIN_TIMEOUT_MAX_S}");
        return Err(ApiError::argument("/origin_timeout_s", text));
    }
    Ok(())
}

fn origin_cas(text: &str) -> Result<Vec<ByteBuf>, ApiError> {
    let wrong = |what: &str| ApiError::argument("/origin_ca", format!("origin_ca: {what}"));
    if text.len() > ORIGIN_CA_MAX_BYTES {
        return Err(wrong(&format!("at most {ORIGIN_CA_MAX_BYTES} bytes")));
    }
    let blocks = ::pem::parse_many(text).map_err(|error| wrong(&error.to_string()))?;
    if blocks.len() > ORIGIN_CAS_MAX {
        return Err(wrong(&format!("at most {ORIGIN_CAS_MAX} certificates")));
    }
    if blocks.is_empty() && !text.trim().is_empty() {
        return Err(wrong("no certificate in PEM"));
    }
    blocks
        .into_iter()
        .map(|block| match block.tag() {
            "CERTIFICATE" => match CaCertificate::parse(block.contents()) {
                Ok(_) => Ok(ByteBuf::from(block.into_contents())),
                Err(error) => Err(wrong(&error.to_string())),
            },
            // A key here would be a secret in the ledger, for everybody who lists hostnames to see.
            _ => Err(wrong("certificates alone")),
        })
        .collect()
}

fn origin_name(text: &str) -> Result<Option<Hostname>, ApiError> {
    let wrong = |error| ApiError::argument("/origin_name", format!("origin_name: {error}"));
    (!text.is_empty()).then(|| text.parse().map_err(wrong)).transpose()
}

/// An origin is scheme, host and port: paths come from the request. Where a name leads is judged by the edge.
fn check_origins(origins: &[String], denied: &DeniedNetworks) -> Result<(), ApiError> {
    if origins.len() > ORIGINS_MAX {
        return Err(ApiError::argument("/origins", format!("origins: at most {ORIGINS_MAX}")));
    }
    for (index, origin) in origins.iter().enumerate() {
        let wrong = |why: &str| ApiError::argument(format!("/origins/{index}"), format!("origins: {why}"));
        let uri = origin.parse::<http::Uri>().ok().filter(|uri| {
            origin.len() <= ORIGIN_MAX_BYTES
                && matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        });
        let unsound = || wrong(&format!("`{origin}` is not http://HOST[:PORT] or https://HOST[:PORT]"));
        let address = literal(&uri.ok_or_else(unsound)?);
        address.map_or(Ok(()), |address| denied.check(address)).map_err(|why| wrong(&why.to_string()))?;
    }
    Ok(())
}

/// `DELETE …/hosts/{host}`.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    if_match: IfMatch,
    Id(host): Id<HostPattern>,
) -> Outcome {
    let _turn = api.turn().await;
    let found = held(&api, account, &host).await?.ok_or_else(|| ApiError::not_found("hostname"))?;
    if_match.check(Some(&etag(&found)?))?;
    let remove = RemoveHost { account, host, instead_of: Some(found), by: caller.by(api.now()) };
    let removed = api.registrar().ledger().transact(remove).await?;
    Answer::one(&HostView::from(removed))
}
