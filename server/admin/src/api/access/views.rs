//! How applications, groups and policies are answered: as they were written, with their ids and ages.

use std::collections::BTreeMap;

use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::record::Document;
use serde::Serialize;
use utoipa::ToSchema;

use super::links::{Link, ordered};
use super::{App, AppKind, Destination, Group, Parts, Policy};
use crate::error::ApiError;

#[derive(Serialize, ToSchema)]
#[schema(as = AccessGroupView)]
pub(crate) struct GroupView {
    #[serde(flatten)]
    group: Group,
    id: CaId,
    created_at: UnixTime,
    updated_at: UnixTime,
}

impl GroupView {
    pub(super) const fn new(group: Group, document: &Document) -> Self {
        Self { group, id: document.id, created_at: document.created_at, updated_at: document.changed_at }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccessPolicyView)]
pub(crate) struct PolicyView {
    #[serde(flatten)]
    policy: Policy,
    id: CaId,
    created_at: UnixTime,
    updated_at: UnixTime,
    /// How many applications name it.
    app_count: u32,
    reusable: bool,
}

impl PolicyView {
    pub(super) fn new(policy: Policy, document: &Document, parts: &Parts) -> Self {
        Self {
            policy,
            id: document.id,
            created_at: document.created_at,
            updated_at: document.changed_at,
            app_count: parts.app_counts.get(&document.id).copied().unwrap_or_default(),
            reusable: true,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = AccessAppView)]
pub(crate) struct AppView {
    name: Option<String>,
    domain: String,
    #[serde(rename = "type")]
    kind: AppKind,
    session_duration: Option<String>,
    policies: Vec<LinkView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destinations: Vec<Destination>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    self_hosted_domains: Vec<String>,
    id: CaId,
    created_at: UnixTime,
    updated_at: UnixTime,
}

impl AppView {
    pub(super) fn new(
        app: App,
        document: &Document,
        reusable: &BTreeMap<CaId, Document>,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            policies: LinkView::all(&app.policies, document, reusable)?,
            name: app.name,
            domain: app.domain,
            kind: app.kind,
            session_duration: app.session_duration,
            destinations: app.destinations,
            self_hosted_domains: app.self_hosted_domains,
            id: document.id,
            created_at: document.created_at,
            updated_at: document.changed_at,
        })
    }
}

/// A policy of an application, at its place.
#[derive(Serialize, ToSchema)]
#[schema(as = AccessAppPolicyView)]
pub(crate) struct LinkView {
    /// None when a reusable one is gone, which keeps everybody out until it is taken away here too.
    #[serde(flatten)]
    #[schema(value_type = Policy)]
    policy: Option<Policy>,
    pub(super) id: Option<CaId>,
    precedence: u32,
    reusable: bool,
    created_at: UnixTime,
    updated_at: UnixTime,
}

impl LinkView {
    /// The policies of an application, whole and in their order.
    pub(super) fn all(
        links: &[Link],
        app: &Document,
        reusable: &BTreeMap<CaId, Document>,
    ) -> Result<Vec<Self>, ApiError> {
        let links = ordered(links);
        let places = 1_u32..;
        links.into_iter().zip(places).map(|(link, place)| Self::new(link, place, app, reusable)).collect()
    }

    fn new(
        link: Link,
        place: u32,
        app: &Document,
        reusable: &BTreeMap<CaId, Document>,
    ) -> Result<Self, ApiError> {
        let (id, precedence) = (link.id(), link.precedence());
        let (policy, is_reusable, document) = match link {
            Link::Named(named) => match reusable.get(&named.id) {
                Some(document) => {
                    (serde_json::from_str(&document.text).map_err(ApiError::internal)?, true, document)
                }
                None => (None, true, app),
            },
            Link::Own(own) => (Some(own.policy), false, app),
        };
        Ok(Self {
            policy,
            id,
            precedence: if precedence == u32::MAX { place } else { precedence },
            reusable: is_reusable,
            created_at: document.created_at,
            updated_at: document.changed_at,
        })
    }
}
