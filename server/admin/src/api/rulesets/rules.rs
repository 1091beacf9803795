//! One rule of a list: added, changed, moved, taken out. The answer is the whole list.
//!
//! Each is a change of the list as it is by then, so of two at once neither undoes the other. With the ETag of
//! the list as `If-Match` it is refused when the list is another by then.

use std::sync::Arc;

use axum::extract::{Path, State};
use muster_policy::gate::Action;
use muster_policy::identity::CaId;
use muster_store::record::Document;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Rule, Ruleset, etag, named, stored};
use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::{Id, IfMatch, Json, Zone};

/// Where a rule goes.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = RulePosition)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Position {
    /// After the rule of this id; first of all without one.
    After(String),
    /// Before the rule of this id; last of all without one.
    Before(String),
    /// This place, from 1.
    Index(usize),
}

impl Position {
    /// The place in a list that the rule itself is not in.
    fn place(&self, rules: &[Rule]) -> Result<usize, ApiError> {
        let of = |id: &str| {
            let found = rules.iter().position(|rule| rule.id.as_deref() == Some(id));
            found.ok_or_else(|| ApiError::argument("/position", format!("position: there is no rule {id}")))
        };
        match self {
            Self::After(id) if id.is_empty() => Ok(0),
            Self::After(id) => Ok(of(id)?.saturating_add(1)),
            Self::Before(id) if id.is_empty() => Ok(rules.len()),
            Self::Before(id) => of(id),
            Self::Index(index) => match index.checked_sub(1).filter(|place| *place <= rules.len()) {
                Some(place) => Ok(place),
                None => {
                    let message = format!("position: an index from 1 to {}", rules.len().saturating_add(1));
                    Err(ApiError::argument("/position/index", message))
                }
            },
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = RuleAdded)]
pub(crate) struct Added {
    #[serde(flatten)]
    rule: Rule,
    position: Option<Position>,
}

/// What of a rule is to be another; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[schema(as = RuleChanged)]
pub(crate) struct Changed {
    #[serde(rename = "ref")]
    reference: Option<String>,
    expression: Option<String>,
    action: Option<Action>,
    #[schema(value_type = Option<Object>)]
    action_parameters: Option<Value>,
    description: Option<String>,
    enabled: Option<bool>,
    position: Option<Position>,
    /// Looked at so that they are refused, as of a rule.
    #[schema(ignore)]
    ratelimit: Option<Value>,
    #[schema(ignore)]
    exposed_credential_check: Option<Value>,
}

/// The rule of a path.
pub(crate) struct RuleId(String);

impl axum::extract::FromRequestParts<Arc<Api>> for RuleId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let path = Path::<std::collections::HashMap<String, String>>::from_request_parts(parts, api).await;
        let found = path.ok().and_then(|Path(mut segments)| segments.remove("rule_id"));
        found.map(Self).ok_or_else(|| ApiError::not_found("rule"))
    }
}

/// `POST /zones/{zone_id}/rulesets/{id}/rules`
pub(crate) async fn add(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CaId>,
    caller: Caller,
    if_match: IfMatch,
    Json(Added { rule, position }): Json<Added>,
) -> Outcome {
    let _turn = api.turn().await;
    let (before, mut ruleset) = read(&api, &zone, id, &if_match).await?;
    let rules = &mut ruleset.rules;
    let place = position.map_or(Ok(rules.len()), |position| position.place(rules))?;
    rules.insert(place, rule);
    let outcome = stored(&api, &zone, Some(before), ruleset, &caller).await;
    outcome.map_err(|error| of_one(error, place))
}

/// `PATCH /zones/{zone_id}/rulesets/{id}/rules/{rule_id}`
pub(crate) async fn change(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CaId>,
    RuleId(rule_id): RuleId,
    caller: Caller,
    if_match: IfMatch,
    Json(changed): Json<Changed>,
) -> Outcome {
    let _turn = api.turn().await;
    let (before, mut ruleset) = read(&api, &zone, id, &if_match).await?;
    let rules = &mut ruleset.rules;
    let (at, rule) = take(rules, &rule_id)?;
    let place = changed.position.map_or(Ok(at), |position| position.place(rules))?;
    let action = changed.action.unwrap_or(rule.action);
    // Parameters are those of an action, and go with it.
    let parameters = rule.action_parameters.filter(|_| action == rule.action);
    let rule = Rule {
        id: rule.id,
        reference: changed.reference.or(rule.reference),
        expression: changed.expression.unwrap_or(rule.expression),
        action,
        action_parameters: changed.action_parameters.or(parameters),
        description: changed.description.unwrap_or(rule.description),
        enabled: changed.enabled.unwrap_or(rule.enabled),
        ratelimit: changed.ratelimit,
        exposed_credential_check: changed.exposed_credential_check,
    };
    rules.insert(place, rule);
    let outcome = stored(&api, &zone, Some(before), ruleset, &caller).await;
    outcome.map_err(|error| of_one(error, place))
}

/// `DELETE /zones/{zone_id}/rulesets/{id}/rules/{rule_id}`
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    Id(id): Id<CaId>,
    RuleId(rule_id): RuleId,
    caller: Caller,
    if_match: IfMatch,
) -> Outcome {
    let _turn = api.turn().await;
    let (before, mut ruleset) = read(&api, &zone, id, &if_match).await?;
    take(&mut ruleset.rules, &rule_id)?;
    stored(&api, &zone, Some(before), ruleset, &caller).await
}

async fn read(
    api: &Api,
    zone: &muster_store::record::Zone,
    id: CaId,
    if_match: &IfMatch,
) -> Result<(Document, Ruleset), ApiError> {
    let document = named(api, zone, id).await?;
    if_match.check(Some(&etag(&document)))?;
    let ruleset = serde_json::from_str(&document.text).map_err(ApiError::internal)?;
    Ok((document, ruleset))
}

fn take(rules: &mut Vec<Rule>, id: &str) -> Result<(usize, Rule), ApiError> {
    let found = rules.iter().position(|rule| rule.id.as_deref() == Some(id));
    let at = found.ok_or_else(|| ApiError::not_found("rule"))?;
    Ok((at, rules.remove(at)))
}

/// An error of the list, pointing into the rule that was sent.
fn of_one(error: ApiError, place: usize) -> ApiError {
    let inside = format!("/rules/{place}");
    match error.pointer.as_deref().and_then(|pointer| pointer.strip_prefix(&inside)) {
        Some(pointer) if pointer.starts_with('/') => {
            let pointer = pointer.to_owned();
            error.at(pointer)
        }
        _ => error,
    }
}
