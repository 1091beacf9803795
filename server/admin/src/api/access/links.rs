//! The policies of an application: reusable ones by their ids, and ones of its own, which are part of it.

use std::collections::{BTreeMap, BTreeSet};

use muster_policy::identity::CaId;
use muster_store::record::{AssociationScope, Document, DocumentKind};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::AnyOfBuilder;
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::documents::{find, list_all};
use super::{App, PARTS_MAX, Parts, Policy};
use crate::Api;
use crate::error::ApiError;
use crate::request::ByName;

/// A policy of an application.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Link {
    /// A reusable one.
    Named(Named),
    /// One of the application's own.
    Own(Box<Own>),
}

/// A reusable policy, at its place among the others.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessAppPolicyLink)]
pub(super) struct Named {
    pub(super) id: CaId,
    #[serde(default)]
    pub(super) precedence: Option<u32>,
}

/// A policy that is part of the application.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessAppPolicy)]
pub(crate) struct Own {
    /// Given when it is stored.
    #[serde(default)]
    pub(super) id: Option<CaId>,
    #[serde(default)]
    pub(super) precedence: Option<u32>,
    #[serde(flatten)]
    pub(super) policy: Policy,
}

impl Link {
    pub(super) const fn id(&self) -> Option<CaId> {
        match self {
            Self::Named(named) => Some(named.id),
            Self::Own(own) => own.id,
        }
    }

    pub(super) fn precedence(&self) -> u32 {
        let written = match self {
            Self::Named(named) => named.precedence,
            Self::Own(own) => own.precedence,
        };
        written.unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Link {
    /// An id, an object that is an id with a place, or a whole policy: told apart by what is there, so that an
    /// error says what is wrong with the one that was meant.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let is_whole = ["name", "decision", "include"].iter().any(|name| value.get(name).is_some());
        let read = match value {
            Value::String(_) => {
                serde_json::from_value(value).map(|id| Self::Named(Named { id, precedence: None }))
            }
            value if is_whole => Own::deserialize(ByName(value)).map(|own| Self::Own(Box::new(own))),
            value => Named::deserialize(ByName(value)).map(Self::Named),
        };
        read.map_err(D::Error::custom)
    }
}

impl PartialSchema for Link {
    fn schema() -> RefOr<Schema> {
        let named = |name: &str| Ref::from_schema_name(name);
        AnyOfBuilder::new().item(CaId::schema()).item(named(&Named::name())).item(named(&Own::name())).into()
    }
}

impl ToSchema for Link {
    fn name() -> std::borrow::Cow<'static, str> {
        "AccessAppPolicyWish".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Named::name().into_owned(), Named::schema()));
        schemas.push((Own::name().into_owned(), Own::schema()));
        Own::schemas(schemas);
        Named::schemas(schemas);
    }
}

/// In the order in which they are looked at.
pub(super) fn ordered(links: &[Link]) -> Vec<Link> {
    let mut links = links.to_vec();
    links.sort_by_key(Link::precedence);
    links
}

/// Makes policies that came whole with the id of a reusable one into links to it, as clients send back what
/// they read; and gives ids to those that have none.
pub(super) async fn settle(
    api: &Api,
    scope: AssociationScope,
    links: &mut [Link],
    before: &[Link],
) -> Result<(), ApiError> {
    for (index, link) in links.iter_mut().enumerate() {
        let Link::Own(own) = link else { continue };
        let Some(id) = own.id else {
            let random = muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
            own.id = Some(CaId::new(api.registrar().clock().unix_millis(), random));
            continue;
        };
        let is_own = before.iter().any(|link| matches!(link, Link::Own(own) if own.id == Some(id)));
        if is_own {
            continue;
        }
        find(api, scope, DocumentKind::AccessPolicy, id).await.map_err(|_| missing(index, id))?;
        *link = Link::Named(Named { id, precedence: own.precedence });
    }
    Ok(())
}

/// Refuses policies that are not there, twice, too many or can't be meant.
pub(super) async fn check(api: &Api, scope: AssociationScope, links: &[Link]) -> Result<(), ApiError> {
    if links.len() > PARTS_MAX {
        return Err(ApiError::argument("/policies", format!("policies: at most {PARTS_MAX}")));
    }
    let mut seen = BTreeSet::new();
    for (index, link) in links.iter().enumerate() {
        if let Some(id) = link.id()
            && !seen.insert(id)
        {
            let message = format!("policies: {id} is there twice");
            return Err(ApiError::argument(format!("/policies/{index}"), message));
        }
        match link {
            Link::Named(named) => {
                let found = find(api, scope, DocumentKind::AccessPolicy, named.id).await;
                found.map_err(|_| missing(index, named.id))?;
            }
            Link::Own(own) => own.policy.check_parts(api, scope).await.map_err(|error| {
                let pointer = error.pointer.clone().unwrap_or_default();
                error.at(format!("/policies/{index}{pointer}"))
            })?,
        }
    }
    Ok(())
}

fn missing(index: usize, id: CaId) -> ApiError {
    ApiError::argument(format!("/policies/{index}"), format!("there is no policy {id}"))
}

/// The reusable policies of an account, for answers that show those of applications whole.
pub(super) async fn reusable(
    api: &Api,
    scope: AssociationScope,
) -> Result<BTreeMap<CaId, Document>, ApiError> {
    let found = list_all(api, AssociationScope::Account(scope.account()), DocumentKind::AccessPolicy).await?;
    Ok(found.into_iter().map(|document| (document.id, document)).collect())
}

/// The same, and how many applications name each.
pub(super) async fn parts(api: &Api, scope: AssociationScope) -> Result<Parts, ApiError> {
    let account = AssociationScope::Account(scope.account());
    let mut app_counts = BTreeMap::new();
    for app in list_all(api, account, DocumentKind::AccessApp).await? {
        let app: App = serde_json::from_str(&app.text).map_err(ApiError::internal)?;
        for link in &app.policies {
            if let Link::Named(named) = link {
                let count: &mut u32 = app_counts.entry(named.id).or_default();
                *count = count.saturating_add(1);
            }
        }
    }
    Ok(Parts { policies: reusable(api, scope).await?, app_counts })
}
