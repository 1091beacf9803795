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
use serde_json::{Value, json};
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
/// Longest name or description, of a rule or of the list.
const TEXT_MAX_CHARS: usize = 500;

/// A list as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ruleset {
    #[serde(default = "Ruleset::unnamed")]
    name: String,
    #[serde(default)]
    description: String,
    pub(crate) rules: Vec<Rule>,
}

impl Ruleset {
    fn unnamed() -> String {
        "default".to_owned()
    }
}

/// A list as it is written; a name and a description that are left out stay as they are.
#[derive(Deserialize, ToSchema)]
#[schema(as = Ruleset)]
pub(crate) struct Wanted {
    name: Option<String>,
    description: Option<String>,
    rules: Vec<Rule>,
}

impl Wanted {
    fn onto(self, before: Option<&Document>) -> Ruleset {
        let before = before.and_then(|before| serde_json::from_str::<Ruleset>(&before.text).ok());
        let (name, description) = before
            .map_or_else(|| (Ruleset::unnamed(), String::new()), |before| (before.name, before.description));
        Ruleset {
            name: self.name.unwrap_or(name),
            description: self.description.unwrap_or(description),
            rules: self.rules,
        }
    }
}

/// A rule as it is written and stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RulesetRule)]
pub(crate) struct Rule {
    #[serde(default)]
    id: Option<String>,
    /// What its writer knows it by; its id unless another is given.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    pub(crate) expression: String,
    pub(crate) action: Action,
    /// Of `skip`, `{"ruleset":"current"}`, which it means without it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    action_parameters: Option<Value>,
    #[serde(default)]
    description: String,
    #[serde(default = "Rule::is_enabled")]
    pub(crate) enabled: bool,
    /// Looked at so that it is refused: a rule without it would mean more requests.
    #[serde(default, skip_serializing)]
    #[schema(ignore)]
    ratelimit: Option<Value>,
    /// Likewise.
    #[serde(default, skip_serializing)]
    #[schema(ignore)]
    exposed_credential_check: Option<Value>,
}

impl Rule {
    const fn is_enabled() -> bool {
        true
    }

    /// Refuses what can't be meant, or would mean another thing here.
    fn check(&self) -> Result<(), ApiError> {
        let unreadable = |error| ApiError::argument("/expression", format!("expression, {error}"));
        self.expression.parse::<Expression>().map_err(unreadable)?;
        check_text("description", &self.description)?;
        check_text("id", self.id.as_deref().unwrap_or_default())?;
        check_text("ref", self.reference.as_deref().unwrap_or_default())?;
        let is_meant = |parameters: &Value| {
            let all = self.action == Action::Skip && *parameters == json!({ "ruleset": "current" });
            all || *parameters == json!({})
        };
        if !self.action_parameters.as_ref().is_none_or(is_meant) {
            // To pass over some rules only: passing over all would let in what the others refuse.
            let message = "action_parameters: there is only {\"ruleset\":\"current\"}, of skip";
            return Err(ApiError::argument("/action_parameters", message));
        }
        let refused =
            [("ratelimit", &self.ratelimit), ("exposed_credential_check", &self.exposed_credential_check)];
        match refused.iter().find(|(_, given)| given.is_some()) {
            Some((name, _)) => {
                Err(ApiError::argument(format!("/{name}"), format!("{name}: not offered here")))
            }
            None => Ok(()),
        }
    }
}

fn check_text(name: &str, text: &str) -> Result<(), ApiError> {
    if text.chars().count() <= TEXT_MAX_CHARS && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("{name}: at most {TEXT_MAX_CHARS} characters, none of them a control");
    Err(ApiError::argument(format!("/{name}"), message))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RulesetView {
    id: CaId,
    name: String,
    description: String,
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
}

impl RulesetView {
    fn with_rules(document: &Document) -> Result<Self, ApiError> {
        let Ruleset { name, description, rules } =
            serde_json::from_str(&document.text).map_err(ApiError::internal)?;
        let view = |rule: Rule| RuleView {
            rule: Rule { reference: rule.reference.or_else(|| rule.id.clone()), ..rule },
            version: document.revision.to_string(),
            last_updated: document.changed_at,
        };
        Ok(Self {
            id: document.id,
            name,
            description,
            kind: KIND,
            phase: PHASE,
            version: document.revision.to_string(),
            last_updated: document.changed_at,
            rules: Some(rules.into_iter().map(view).collect()),
        })
    }

    fn without_rules(document: &Document) -> Result<Self, ApiError> {
        Ok(Self { rules: None, ..Self::with_rules(document)? })
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
    let views = found.iter().map(RulesetView::without_rules).collect::<Result<_, _>>()?;
    let (views, info) = page.cut(views);
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
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let _turn = api.turn().await;
    let before = named(&api, &zone, id).await?;
    if_match.check(Some(&etag(&before)))?;
    let ruleset = wanted.onto(Some(&before));
    stored(&api, &zone, Some(before), ruleset, &caller).await
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
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let _turn = api.turn().await;
    let before = of_zone(&api, &zone).await?;
    if_match.check(before.as_ref().map(etag).as_ref())?;
    let ruleset = wanted.onto(before.as_ref());
    stored(&api, &zone, before, ruleset, &caller).await
}

/// A list that is made by itself; all but its phase and kind is as in [`Ruleset`].
#[derive(Deserialize, ToSchema)]
#[schema(as = NewRuleset)]
pub(crate) struct NewRuleset {
    phase: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    description: Option<String>,
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
    let _turn = api.turn().await;
    if let Some(held) = of_zone(&api, &zone).await? {
        let message = format!("the phase has a ruleset already, {}: change that one", held.id);
        return Err(ApiError::conflict(message).at("/phase"));
    }
    let NewRuleset { name, description, rules, .. } = wanted;
    stored(&api, &zone, None, Wanted { name, description, rules }.onto(None), &caller).await
}

/// `DELETE /zones/{zone_id}/rulesets/{id}`: its rules hold no more.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CaId>,
    caller: Caller,
    if_match: IfMatch,
) -> Outcome {
    let _turn = api.turn().await;
    let found = named(&api, &zone, id).await?;
    if_match.check(Some(&etag(&found)))?;
    let Document { account, kind, id, .. } = found;
    let instead_of = Some(found);
    let remove = RemoveDocument { account, kind, id, instead_of, by: caller.by(api.now()) };
    let removed = api.registrar().ledger().transact(remove).await?;
    Answer::one(&RulesetView::with_rules(&removed)?)
}

/// Stores a list in the place of the one before.
async fn stored(
    api: &Api,
    zone: &record::Zone,
    before: Option<Document>,
    ruleset: Ruleset,
    caller: &Caller,
) -> Outcome {
    let ruleset = checked(ruleset)?;
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
    check_text("name", &ruleset.name)?;
    check_text("description", &ruleset.description)?;
    let mut ids = BTreeSet::new();
    for (index, rule) in ruleset.rules.iter_mut().enumerate() {
        rule.check().map_err(|error| {
            let pointer = error.pointer.clone().unwrap_or_default();
            error.at(format!("/rules/{index}{pointer}"))
        })?;
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
