//! The policies of one application, one by one. A policy that is made here is the application's own; a reusable
//! one is listed and can be taken away here, and is changed under `/access/policies`.

use std::sync::Arc;

use axum::extract::{Path, State};
use muster_policy::identity::CaId;
use muster_store::record::{AssociationScope, Document, DocumentKind};

use super::documents::{find, store};
pub(crate) use super::links::Own;
use super::links::{Link, reusable};
use super::views::LinkView;
use super::{App, Named, Removed};
use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Json, Query, Scope};

/// The policy of a path.
pub(crate) struct PolicyId(CaId);

impl axum::extract::FromRequestParts<Arc<Api>> for PolicyId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let path = Path::<std::collections::HashMap<String, String>>::from_request_parts(parts, api).await;
        let id = path.ok().and_then(|Path(segments)| segments.get("policy_id")?.parse().ok());
        id.map(Self).ok_or_else(|| ApiError::not_found("policy"))
    }
}

async fn read(api: &Api, scope: AssociationScope, id: CaId) -> Result<(Document, App), ApiError> {
    let document = find(api, scope, DocumentKind::AccessApp, id).await?;
    let app = serde_json::from_str(&document.text).map_err(ApiError::internal)?;
    Ok((document, app))
}

/// An error of a policy among others, pointing into the one that was sent.
fn of_one(error: ApiError) -> ApiError {
    let inside = error.pointer.as_deref().and_then(|pointer| pointer.strip_prefix("/policies/"));
    match inside.and_then(|inside| inside.split_once('/')) {
        Some((_, rest)) => {
            let pointer = format!("/{rest}");
            error.at(pointer)
        }
        None => error,
    }
}

async fn all(api: &Api, scope: AssociationScope, document: &Document) -> Result<Vec<LinkView>, ApiError> {
    let app: App = serde_json::from_str(&document.text).map_err(ApiError::internal)?;
    LinkView::all(&app.policies, document, &reusable(api, scope).await?)
}

async fn one(
    api: &Api,
    scope: AssociationScope,
    document: &Document,
    id: CaId,
) -> Result<LinkView, ApiError> {
    let found = all(api, scope, document).await?.into_iter().find(|policy| policy.id == Some(id));
    found.ok_or_else(|| ApiError::not_found("policy"))
}

/// `GET /{scope}/access/apps/{id}/policies`
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    app: Named,
    query: Query,
) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let document = find(&api, scope, DocumentKind::AccessApp, app.0).await?;
    let (found, info) = page.cut(all(&api, scope, &document).await?);
    Answer::list(&found, info)
}

/// `GET /{scope}/access/apps/{id}/policies/{policy_id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    app: Named,
    PolicyId(id): PolicyId,
) -> Outcome {
    let document = find(&api, scope, DocumentKind::AccessApp, app.0).await?;
    Answer::one(&one(&api, scope, &document, id).await?)
}

/// `POST /{scope}/access/apps/{id}/policies`
pub(crate) async fn add(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    named: Named,
    caller: Caller,
    Json(mut own): Json<Own>,
) -> Outcome {
    let _turn = api.turn().await;
    let (before, mut app) = read(&api, scope, named.0).await?;
    // It gets its id when it is stored.
    own.id = None;
    app.policies.push(Link::Own(Box::new(own)));
    let stored = store(&api, scope, Some(before), app, &caller).await.map_err(of_one)?;
    let app: App = serde_json::from_str(&stored.text).map_err(ApiError::internal)?;
    let id = app.policies.last().and_then(Link::id).ok_or_else(|| ApiError::not_found("policy"))?;
    Ok(Answer::one(&one(&api, scope, &stored, id).await?)?.created())
}

/// `PUT /{scope}/access/apps/{id}/policies/{policy_id}`
pub(crate) async fn update(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    named: Named,
    PolicyId(id): PolicyId,
    caller: Caller,
    Json(mut own): Json<Own>,
) -> Outcome {
    let _turn = api.turn().await;
    let (before, mut app) = read(&api, scope, named.0).await?;
    let held = app.policies.iter_mut().find(|link| link.id() == Some(id));
    match held.ok_or_else(|| ApiError::not_found("policy"))? {
        Link::Named(_) => {
            return Err(ApiError::conflict(format!(
                "{id} is a reusable policy: change it under /access/policies/{id}"
            )));
        }
        Link::Own(held) => {
            own.id = Some(id);
            own.precedence = own.precedence.or(held.precedence);
            **held = own;
        }
    }
    let stored = store(&api, scope, Some(before), app, &caller).await.map_err(of_one)?;
    Answer::one(&one(&api, scope, &stored, id).await?)
}

/// `DELETE /{scope}/access/apps/{id}/policies/{policy_id}`; a reusable one stays where it is.
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Scope(scope): Scope,
    named: Named,
    PolicyId(id): PolicyId,
    caller: Caller,
) -> Outcome {
    let _turn = api.turn().await;
    let (before, mut app) = read(&api, scope, named.0).await?;
    let count = app.policies.len();
    app.policies.retain(|link| link.id() != Some(id));
    if app.policies.len() == count {
        return Err(ApiError::not_found("policy"));
    }
    store(&api, scope, Some(before), app, &caller).await?;
    Answer::one(&Removed { id })
}
