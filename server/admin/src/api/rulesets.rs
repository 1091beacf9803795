//! The rules of a zone that requests are judged by: one list, in the phase of custom firewall rules.
//!
//! PUT replaces the list; an expression that can't be meant is refused with its position. With the ETag
//! of what was read as `If-Match` nobody overwrites another's list unseen. Single rules have routes of their
//! own ([`rules`]).

pub(crate) mod rules;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use http::HeaderValue;
use muster_policy::expression::Expression;
use muster_policy::gate::{Action, RULES_MAX};
use muster_policy::identity::{AccountId, CaId, ZoneId};
use muster_policy::time::UnixTime;
use muster_store::act::{RemoveDocument, SetDocument};
use muster_store::record::{self, Document, DocumentKind};
use muster_store::{Fault, Reader};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::access_test::labels::RuleLabel;
use crate::api::{Outcome, access};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Id, IfMatch, Json, Query, Zone, tag};

/// The phase that these rules belong to.
const PHASE: &str = "http_request_firewall_custom";
/// What they are the rules of.
const KIND: &str = "zone";
/// Longest description of a rule.
const DESCRIPTION_MAX_CHARS: usize = 500;

/// A list as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Ruleset {
    pub(crate) rules: Vec<Rule>,
}

/// A rule as it is written and stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RulesetRule)]
pub(crate) struct Rule {
    #[serde(default)]
    id: Option<String>,
    pub(crate) expression: String,
    pub(crate) action: Action,
    #[serde(default)]
    description: String,
    #[serde(default = "Rule::is_enabled")]
    pub(crate) enabled: bool,
}

impl Rule {
    const fn is_enabled() -> bool {
        true
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RulesetView {
    id: CaId,
    name: &'static str,
    description: &'static str,
    kind: &'static str,
    phase: &'static str,
    version: String,
    last_updated: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<RuleView>>,
}

/// A rule as clients want it: those that check what they get take no list without these.
#[derive(Serialize, ToSchema)]
#[schema(as = RulesetRuleView)]
struct RuleView {
    #[serde(flatten)]
    rule: Rule,
    version: String,
    last_updated: UnixTime,
    #[serde(rename = "ref")]
    reference: Option<String>,
}

impl RulesetView {
    fn new(document: &Document) -> Self {
        Self {
            id: document.id,
            name: "default",
            description: "",
            kind: KIND,
            phase: PHASE,
            version: document.revision.to_string(),
            last_updated: document.changed_at,
            rules: None,
        }
    }

    fn with_rules(document: &Document) -> Result<Self, ApiError> {
        let ruleset: Ruleset = serde_json::from_str(&document.text).map_err(ApiError::internal)?;
        let view = |rule: Rule| RuleView {
            reference: rule.id.clone(),
            rule,
            version: document.revision.to_string(),
            last_updated: document.changed_at,
        };
        Ok(Self { rules: Some(ruleset.rules.into_iter().map(view).collect()), ..Self::new(document) })
    }
}

/// Of its text too: a list that is removed and made anew has the same id, and begins with the same revision.
fn etag(document: &Document) -> HeaderValue {
    tag(&format!("{} {} {}", document.id, document.revision, document.text))
}

/// The rules of each zone that are enabled, in their order.
///
/// # Errors
/// When the ledger can't be read, or holds a text that is no list.
pub(crate) fn rules_in_force(
    reader: &Reader,
    account: AccountId,
) -> Result<Vec<(ZoneId, Vec<RuleLabel>)>, Fault> {
    let mut zones = Vec::new();
    for document in reader.documents(account, DocumentKind::Ruleset)? {
        let Some(zone) = document.zone else { continue };
        let ruleset: Ruleset = access::read(&document)?;
        let rules = ruleset.rules.into_iter().filter(|rule| rule.enabled).zip(1..);
        let label = |(rule, number): (Rule, usize)| RuleLabel {
            number,
            id: rule.id,
            expression: rule.expression,
            action: rule.action,
            description: rule.description,
        };
        zones.push((zone, rules.map(label).collect()));
    }
    Ok(zones)
}

async fn of_zone(api: &Api, zone: &record::Zone) -> Result<Option<Document>, ApiError> {
    let (account, zone) = (zone.account, zone.id);
    let found = api.read(move |reader| reader.documents(account, DocumentKind::Ruleset)).await?;
    Ok(found.into_iter().find(|document| document.zone == Some(zone)))
}

/// `GET /zones/{zone_id}/rulesets`
pub(crate) async fn list(State(api): State<Arc<Api>>, Zone(zone): Zone, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let found = of_zone(&api, &zone).await?;
    let (views, info) = page.cut(found.iter().map(RulesetView::new).collect());
    Answer::list(&views, info)
}

/// The list of this id, which is that of the zone or none.
async fn named(api: &Api, zone: &record::Zone, id: CaId) -> Result<Document, ApiError> {
    let found = of_zone(api, zone).await?.filter(|document| document.id == id);
    found.ok_or_else(|| ApiError::not_found("ruleset"))
}

/// `GET /zones/{zone_id}/rulesets/{id}`
pub(crate) async fn get_named(State(api): State<Arc<Api>>, Zone(zone): Zone, Id(id): Id<CaId>) -> Outcome {
    let found = named(&api, &zone, id).await?;
    Ok(Answer::one(&RulesetView::with_rules(&found)?)?.tagged(etag(&found)))
}

/// `PUT /zones/{zone_id}/rulesets/{id}`
pub(crate) async fn set_named(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CaId>,
    caller: Caller,
    if_match: IfMatch,
    Json(wanted): Json<Ruleset>,
) -> Outcome {
    let before = named(&api, &zone, id).await?;
    if_match.check(&etag(&before))?;
    stored(&api, &zone, Some(before), wanted, &caller).await
}

/// `GET /zones/{zone_id}/rulesets/phases/http_request_firewall_custom/entrypoint`
pub(crate) async fn get(State(api): State<Arc<Api>>, Zone(zone): Zone) -> Outcome {
    let found = of_zone(&api, &zone).await?.ok_or_else(|| ApiError::not_found("ruleset"))?;
    Ok(Answer::one(&RulesetView::with_rules(&found)?)?.tagged(etag(&found)))
}

/// `PUT /zones/{zone_id}/rulesets/phases/http_request_firewall_custom/entrypoint`
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    if_match: IfMatch,
    Json(wanted): Json<Ruleset>,
) -> Outcome {
    let before = of_zone(&api, &zone).await?;
    let held = before.as_ref().map_or(HeaderValue::from_static("\"\""), etag);
    if_match.check(&held)?;
    stored(&api, &zone, before, wanted, &caller).await
}

/// A list that is made by itself; all but its phase and kind is as in [`Ruleset`].
#[derive(Deserialize, ToSchema)]
#[schema(as = NewRuleset)]
pub(crate) struct NewRuleset {
    phase: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

/// `POST /zones/{zone_id}/rulesets`; refused while there is one, as its phase has one list.
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(wanted): Json<NewRuleset>,
) -> Outcome {
    let is = |text: &Option<String>, only: &str| text.as_deref() == Some(only);
    if !is(&wanted.phase, PHASE) {
        return Err(ApiError::argument("/phase", format!("phase: there is only {PHASE}")));
    }
    if !is(&wanted.kind, KIND) {
        return Err(ApiError::argument("/kind", format!("kind: there is only {KIND}")));
    }
    if let Some(held) = of_zone(&api, &zone).await? {
        let message = format!("the phase has a ruleset already, {}: change that one", held.id);
        return Err(ApiError::conflict(message).at("/phase"));
    }
    stored(&api, &zone, None, Ruleset { rules: wanted.rules }, &caller).await
}

/// `DELETE /zones/{zone_id}/rulesets/{id}`: its rules hold no more.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CaId>,
    caller: Caller,
    if_match: IfMatch,
) -> Outcome {
    let found = named(&api, &zone, id).await?;
    if_match.check(&etag(&found))?;
    let Document { account, kind, id, .. } = found;
    let instead_of = if_match.0.is_some().then_some(found);
    let remove = RemoveDocument { account, kind, id, instead_of, by: caller.by(api.now()) };
    let removed = api.registrar().ledger().transact(remove).await?;
    Answer::one(&RulesetView::with_rules(&removed)?)
}

/// Stores a list in the place of the one before, unless that was replaced meanwhile.
async fn stored(
    api: &Api,
    zone: &record::Zone,
    before: Option<Document>,
    wanted: Ruleset,
    caller: &Caller,
) -> Outcome {
    let ruleset = checked(wanted)?;
    let text = serde_json::to_string(&ruleset).map_err(ApiError::internal)?;
    let by = caller.by(api.now());
    let instead_of = before.clone();
    let document = match before {
        Some(before) => Document { text, ..before },
        None => Document {
            // The zone's own id, so that two first writers can't make two lists.
            id: CaId::from_bytes(*zone.id.as_bytes()),
            account: zone.account,
            zone: Some(zone.id),
            kind: DocumentKind::Ruleset,
            text,
            revision: 0,
            created_at: by.at,
            changed_at: by.at,
        },
    };
    let stored = api.registrar().ledger().transact(SetDocument { document, instead_of, by }).await?;
    Ok(Answer::one(&RulesetView::with_rules(&stored)?)?.tagged(etag(&stored)))
}

/// Checks every rule, and gives ids to those that have none.
fn checked(mut ruleset: Ruleset) -> Result<Ruleset, ApiError> {
    if ruleset.rules.len() > RULES_MAX {
        return Err(ApiError::argument("/rules", format!("rules: at most {RULES_MAX}")));
    }
    let mut ids = BTreeSet::new();
    for (index, rule) in ruleset.rules.iter_mut().enumerate() {
        rule.expression.parse::<Expression>().map_err(|error| {
            let pointer = format!("/rules/{index}/expression");
            ApiError::argument(pointer, format!("expression, {error}"))
        })?;
        let sound =
            |text: &str| text.chars().count() <= DESCRIPTION_MAX_CHARS && !text.chars().any(char::is_control);
        if !sound(&rule.description) || !rule.id.as_deref().is_none_or(sound) {
            let message = format!("at most {DESCRIPTION_MAX_CHARS} characters, none of them a control");
            return Err(ApiError::argument(format!("/rules/{index}/description"), message));
        }
        if rule.id.as_ref().is_some_and(|id| !ids.insert(id.clone())) {
            return Err(ApiError::argument(format!("/rules/{index}/id"), "id: another rule has it"));
        }
        if rule.id.is_none() {
            let octets: [u8; 16] =
                muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
            rule.id = Some(format!("{:032x}", u128::from_be_bytes(octets)));
        }
    }
    Ok(ruleset)
}
