//! The rules of a zone that requests are judged by: one list, in the phase of custom firewall rules.
//!
//! PUT replaces the list; an expression that can't be meant is refused with its position. With the ETag
//! of what was read as `If-Match` nobody overwrites another's list unseen.

use std::sync::Arc;

use axum::extract::State;
use http::HeaderValue;
use muster_policy::expression::Expression;
use muster_policy::gate::{Action, RULES_MAX};
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::act::SetDocument;
use muster_store::record::{self, Document, DocumentKind};
use serde::{Deserialize, Serialize};

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{IfMatch, Json, Query, Zone, tag};

/// The phase that these rules belong to.
const PHASE: &str = "http_request_firewall_custom";
/// Longest description of a rule.
const DESCRIPTION_MAX_CHARS: usize = 500;

/// A list as it is stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ruleset {
    pub(crate) rules: Vec<Rule>,
}

/// A rule as it is written and stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

#[derive(Serialize)]
struct RulesetView {
    id: CaId,
    name: &'static str,
    description: &'static str,
    kind: &'static str,
    phase: &'static str,
    version: String,
    last_updated: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<Rule>>,
}

impl RulesetView {
    fn new(document: &Document) -> Self {
        Self {
            id: document.id,
            name: "default",
            description: "",
            kind: "zone",
            phase: PHASE,
            version: document.revision.to_string(),
            last_updated: document.changed_at,
            rules: None,
        }
    }

    fn with_rules(document: &Document) -> Result<Self, ApiError> {
        let ruleset: Ruleset = serde_json::from_str(&document.text).map_err(ApiError::internal)?;
        Ok(Self { rules: Some(ruleset.rules), ..Self::new(document) })
    }
}

fn etag(document: &Document) -> HeaderValue {
    tag(&format!("{} {}", document.id, document.revision))
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
    let ruleset = checked(wanted)?;
    let before = of_zone(&api, &zone).await?;
    let held = before.as_ref().map_or(HeaderValue::from_static("\"\""), etag);
    if_match.check(&held)?;
    let text = serde_json::to_string(&ruleset).map_err(ApiError::internal)?;
    let by = caller.by(api.now());
    let instead_of = before.as_ref().map(|before| before.revision);
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
        if rule.id.is_none() {
            let octets: [u8; 16] =
                muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
            rule.id = Some(format!("{:032x}", u128::from_be_bytes(octets)));
        }
    }
    Ok(ruleset)
}
