//! Access applications, policies and groups (contract §6.1), as far as certificates and addresses go.
//!
//! Rules of other kinds need an identity provider, which is not here, so they are refused when they are
//! written. The edge enforces an application at its hostname and path, with or without its certificate.

pub(crate) mod app_policies;
mod documents;
mod gate;
mod links;
pub(crate) mod views;
mod weight;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use muster_policy::gate::{Decision, normal_path};
use muster_policy::host::HostPattern;
use muster_policy::identity::CaId;
use muster_policy::network::Network;
use muster_store::record::{AssociationScope, Document, DocumentKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub(crate) use self::documents::Written;
use self::documents::{find, list_all, remove_one, store};
pub use self::gate::gate;
pub(crate) use self::gate::{app_labels, read};
use self::views::{AppView, GroupView, PolicyView};
use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Json, Query, Scope};

/// Most rules of a policy or group, and most policies of an application.
const PARTS_MAX: usize = 100;
/// Most conditions of all applications of an account, groups counted where they are named: twenty
/// applications with ten policies of a hundred. Each of an application may be asked for one request, and all
/// are held by the edge.
const CONDITIONS_MAX: usize = 20_000;
/// Longest name.
const NAME_MAX_CHARS: usize = 350;

/// One thing that is said of a visitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessRule)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Rule {
    Certificate {},
    CommonName { common_name: String },
    Everyone {},
    Group { id: CaId },
    Ip { ip: Network },
}

/// A group as it is written and stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessGroup)]
pub(crate) struct Group {
    name: String,
    include: Vec<Rule>,
    #[serde(default)]
    exclude: Vec<Rule>,
    #[serde(default)]
    require: Vec<Rule>,
    #[serde(default)]
    is_default: bool,
}

/// A policy as it is written and stored; what could not be enforced is refused.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessPolicy)]
pub(crate) struct Policy {
    name: String,
    decision: Decision,
    include: Vec<Rule>,
    #[serde(default)]
    exclude: Vec<Rule>,
    #[serde(default)]
    require: Vec<Rule>,
    #[serde(default)]
    session_duration: Option<String>,
    #[serde(default)]
    approval_required: bool,
    #[serde(default)]
    isolation_required: bool,
    #[serde(default)]
    purpose_justification_required: bool,
    /// Looked at so that it is refused: a second factor that nobody asks for would protect nothing.
    #[serde(default, skip_serializing)]
    #[schema(ignore)]
    mfa_config: Option<Value>,
}

/// What an application is; only what stands at a hostname can be guarded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessAppKind)]
#[serde(rename_all = "snake_case")]
enum AppKind {
    SelfHosted,
}

/// An application as it is written and stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessApp)]
pub(crate) struct App {
    #[serde(default)]
    name: Option<String>,
    domain: String,
    #[serde(rename = "type")]
    kind: AppKind,
    #[serde(default)]
    session_duration: Option<String>,
    #[serde(default)]
    policies: Vec<links::Link>,
    /// Where the application stands, which is at its domain: what else is named would be open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    destinations: Vec<Destination>,
    /// The same in the words of older clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    self_hosted_domains: Vec<String>,
}

/// A place where an application stands; private networks are not guarded here.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessDestination)]
struct Destination {
    #[serde(default, rename = "type")]
    kind: DestinationKind,
    uri: String,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessDestinationKind)]
#[serde(rename_all = "snake_case")]
enum DestinationKind {
    #[default]
    Public,
}

impl App {
    /// The hostname.
    fn host(&self) -> Result<HostPattern, ApiError> {
        let (host, _) = self.domain.split_once('/').unwrap_or((&self.domain, ""));
        host.parse().map_err(|error| ApiError::argument("/domain", format!("domain: {error}")))
    }

    /// Refuses what names another place than the domain, which the edge would leave open.
    fn check_places(&self) -> Result<(), ApiError> {
        let destinations = self.destinations.iter().map(|destination| &destination.uri);
        let destinations =
            destinations.enumerate().map(|(index, uri)| (format!("/destinations/{index}/uri"), uri));
        let domains = self.self_hosted_domains.iter().enumerate();
        let domains = domains.map(|(index, uri)| (format!("/self_hosted_domains/{index}"), uri));
        match destinations.chain(domains).find(|(_, uri)| **uri != self.domain) {
            Some((pointer, _)) => {
                let message = "an application stands at its domain alone; make one for each other place";
                Err(ApiError::argument(pointer, message))
            }
            None => Ok(()),
        }
    }

    /// The path, `/` for all. In the form that requests are compared in: one in another would match none,
    /// and protect nothing.
    fn path(&self) -> Result<String, ApiError> {
        let (_, path) = self.domain.split_once('/').unwrap_or((&self.domain, ""));
        let start = path.strip_suffix('*').filter(|start| start.is_empty() || start.ends_with('/'));
        let path = format!("/{}", start.unwrap_or(path).trim_end_matches('/'));
        if path.contains(['*', '?', '#', '%'])
            || path.contains(char::is_control)
            || normal_path(&path) != path
        {
            let message =
                "domain: a path is plain, in whole segments, without wildcards, escapes, query, `;` and dots";
            return Err(ApiError::argument("/domain", message));
        }
        Ok(path)
    }
}

/// What surrounds a document in answers.
pub(crate) struct Parts {
    /// The reusable policies of the account.
    policies: BTreeMap<CaId, Document>,
    /// How many applications of the account name each of them.
    app_counts: BTreeMap<CaId, u32>,
}

/// A document with what surrounds it, as it is answered.
fn view<T: Written>(document: &Document, parts: &Parts) -> Result<T::View, ApiError> {
    let written: T = serde_json::from_str(&document.text).map_err(ApiError::internal)?;
    written.view(document, parts)
}

async fn view_one<T: Written>(
    api: &Api,
    scope: AssociationScope,
    document: &Document,
) -> Result<T::View, ApiError> {
    view::<T>(document, &links::parts(api, scope).await?)
}

impl Written for Group {
    type View = GroupView;
    const KIND: DocumentKind = DocumentKind::AccessGroup;
    const NOUNS: (&'static str, &'static str) = ("an Access group", "Access groups");

    fn view(self, document: &Document, _: &Parts) -> Result<GroupView, ApiError> {
        Ok(GroupView::new(self, document))
    }

    async fn check(&self, api: &Api, scope: AssociationScope) -> Result<(), ApiError> {
        check_name(&self.name)?;
        for (name, rules) in
            [("include", &self.include), ("exclude", &self.exclude), ("require", &self.require)]
        {
            check_rules(api, scope, name, rules).await?;
            // A group of groups could be one of itself.
            if let Some(index) = rules.iter().position(|rule| matches!(rule, Rule::Group { .. })) {
                return Err(ApiError::argument(format!("/{name}/{index}/group"), "a group holds no groups"));
            }
        }
        Ok(())
    }
}

impl Policy {
    async fn check_parts(&self, api: &Api, scope: AssociationScope) -> Result<(), ApiError> {
        check_name(&self.name)?;
        for (name, set) in [
            ("approval_required", self.approval_required),
            ("isolation_required", self.isolation_required),
            ("purpose_justification_required", self.purpose_justification_required),
        ] {
            if set {
                return Err(ApiError::argument(format!("/{name}"), format!("{name}: not offered here")));
            }
        }
        if self.mfa_config.is_some() {
            return Err(ApiError::argument("/mfa_config", "mfa_config: not offered here"));
        }
        for (name, rules) in
            [("include", &self.include), ("exclude", &self.exclude), ("require", &self.require)]
        {
            check_rules(api, scope, name, rules).await?;
        }
        if self.include.is_empty() {
            return Err(ApiError::argument("/include", "include: at least one rule"));
        }
        Ok(())
    }
}

impl Written for Policy {
    type View = PolicyView;
    const KIND: DocumentKind = DocumentKind::AccessPolicy;
    const NOUNS: (&'static str, &'static str) = ("a reusable Access policy", "reusable Access policies");

    fn view(self, document: &Document, parts: &Parts) -> Result<PolicyView, ApiError> {
        Ok(PolicyView::new(self, document, parts))
    }

    async fn check(&self, api: &Api, scope: AssociationScope) -> Result<(), ApiError> {
        self.check_parts(api, scope).await
    }
}

impl Written for App {
    type View = AppView;
    const KIND: DocumentKind = DocumentKind::AccessApp;
    const NOUNS: (&'static str, &'static str) = ("an Access application", "Access applications");

    async fn check(&self, api: &Api, scope: AssociationScope) -> Result<(), ApiError> {
        let host = self.host()?;
        self.path()?;
        self.check_places()?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        let zones = api.read(move |reader| reader.zones(scope.account())).await?;
        let within = |zone: &muster_store::record::Zone| match scope {
            AssociationScope::Account(_) => true,
            AssociationScope::Zone { zone: wanted, .. } => zone.id == wanted,
        };
        if !zones.iter().any(|zone| within(zone) && host.is_within(&zone.name)) {
            return Err(ApiError::argument(
                "/domain",
                format!("domain: {host} lies in no zone of this scope"),
            ));
        }
        links::check(api, scope, &self.policies).await
    }

    async fn settle(
        &mut self,
        api: &Api,
        scope: AssociationScope,
        before: Option<&Document>,
    ) -> Result<(), ApiError> {
        let before: Option<Self> = before.and_then(|before| serde_json::from_str(&before.text).ok());
        let before = before.map_or_else(Vec::new, |before| before.policies);
        links::settle(api, scope, &mut self.policies, &before).await
    }

    fn view(self, document: &Document, parts: &Parts) -> Result<AppView, ApiError> {
        AppView::new(self, document, &parts.policies)
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let sound =
        !name.is_empty() && name.chars().count() <= NAME_MAX_CHARS && !name.chars().any(char::is_control);
    let message = "name: 1 to 350 characters, none of them a control";
    if sound { Ok(()) } else { Err(ApiError::argument("/name", message)) }
}

async fn check_rules(api: &Api, scope: AssociationScope, name: &str, rules: &[Rule]) -> Result<(), ApiError> {
    if rules.len() > PARTS_MAX {
        return Err(ApiError::argument(format!("/{name}"), format!("{name}: at most {PARTS_MAX} rules")));
    }
    for (index, rule) in rules.iter().enumerate() {
        let Rule::Group { id } = rule else { continue };
        if find(api, scope, DocumentKind::AccessGroup, *id).await.is_err() {
            let message = format!("there is no group {id}");
            return Err(ApiError::argument(format!("/{name}/{index}/group/id"), message));
        }
    }
    Ok(())
}

/// What a list is to hold: the query parameters of the API we follow.
pub(crate) struct Sought {
    /// Each field with what it must hold.
    fields: Vec<(&'static str, String)>,
    /// What the name or the domain must hold.
    anywhere: Option<String>,
    is_exact: bool,
}

impl Sought {
    /// The query parameters that it is read from.
    pub(crate) const QUESTIONS: &[&str] = &["name", "domain", "search", "exact"];

    fn read(query: &Query) -> Self {
        let lower = |name| query.get(name).filter(|text| !text.is_empty()).map(str::to_lowercase);
        let field = |name: &'static str| lower(name).map(|text| (name, text));
        Self {
            fields: ["name", "domain"].into_iter().filter_map(field).collect(),
            anywhere: lower("search"),
            is_exact: query.get("exact") == Some("true"),
        }
    }

    fn is(&self, document: &Document) -> bool {
        let written: Value = serde_json::from_str(&document.text).unwrap_or_default();
        let holds = |field: &str, text: &String| {
            let held = written.get(field).and_then(Value::as_str).unwrap_or_default().to_lowercase();
            if self.is_exact { held == *text } else { held.contains(text) }
        };
        self.fields.iter().all(|(field, text)| holds(field, text))
            && self.anywhere.as_ref().is_none_or(|text| holds("name", text) || holds("domain", text))
    }
}

/// `GET /{scope}/access/{apps|groups|policies}`
pub(crate) async fn list<T: Written>(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    query: Query,
) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let mut found = list_all(&api, scope, T::KIND).await?;
    let sought = Sought::read(&query);
    found.retain(|document| sought.is(document));
    let (found, info) = page.cut_sorted(Order::Descending, found, |document| document.id.to_string());
    let parts = links::parts(&api, scope).await?;
    let views: Vec<T::View> =
        found.iter().map(|document| view::<T>(document, &parts)).collect::<Result<_, _>>()?;
    Answer::list(&views, info)
}

/// `GET /{scope}/access/{apps|groups|policies}/{id}`
pub(crate) async fn get<T: Written>(State(api): State<Arc<Api>>, Scope(scope): Scope, id: Named) -> Outcome {
    let document = find(&api, scope, T::KIND, id.0).await?;
    Answer::one(&view_one::<T>(&api, scope, &document).await?)
}

/// `POST /{scope}/access/{apps|groups|policies}`
pub(crate) async fn create<T: Written>(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    caller: Caller,
    Json(written): Json<T>,
) -> Outcome {
    let _turn = api.turn().await;
    let stored = store(&api, scope, None, written, &caller).await?;
    Ok(Answer::one(&view_one::<T>(&api, scope, &stored).await?)?.created())
}

/// `PUT /{scope}/access/{apps|groups|policies}/{id}`
pub(crate) async fn update<T: Written>(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    id: Named,
    caller: Caller,
    Json(written): Json<T>,
) -> Outcome {
    let _turn = api.turn().await;
    let before = find(&api, scope, T::KIND, id.0).await?;
    let stored = store(&api, scope, Some(before), written, &caller).await?;
    Answer::one(&view_one::<T>(&api, scope, &stored).await?)
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccessRemoved)]
pub(crate) struct Removed {
    id: CaId,
}

/// `DELETE /{scope}/access/{apps|groups|policies}/{id}`; refused while another names it.
pub(crate) async fn remove<T: Written>(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    id: Named,
    caller: Caller,
) -> Outcome {
    let _turn = api.turn().await;
    let document = find(&api, scope, T::KIND, id.0).await?;
    for kind in [DocumentKind::AccessApp, DocumentKind::AccessPolicy] {
        let namers = list_all(&api, AssociationScope::Account(scope.account()), kind).await?;
        if let Some(namer) = namers.iter().find(|namer| namer.text.contains(&document.id.to_string())) {
            return Err(ApiError::conflict(format!("{} is used by {}", document.id, namer.id)));
        }
    }
    remove_one(&api, &document, &caller).await?;
    Answer::one(&Removed { id: document.id })
}

/// The id of a path.
pub(crate) struct Named(CaId);

impl axum::extract::FromRequestParts<Arc<Api>> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let missing = || ApiError::not_found("object");
        let path: Result<Path<std::collections::HashMap<String, String>>, _> =
            Path::from_request_parts(parts, api).await;
        let Path(segments) = path.map_err(|_| missing())?;
        segments.get("id").and_then(|text| text.parse().ok()).map(Self).ok_or_else(missing)
    }
}
