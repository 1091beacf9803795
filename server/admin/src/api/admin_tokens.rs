//! Tokens of this API.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use muster_enroll::{hash_secret, new_secret};
use muster_policy::identity::TokenId;
use muster_policy::name::Title;
use muster_policy::time::UnixTime;
use muster_store::act::{CreateAdminToken, RevokeAdminToken};
use muster_store::record::{AdminRole, AdminToken, Permission};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Account, Id, Json, Query};

/// Longest life of a token that has an end.
const TTL_MAX: u64 = 3_660 * 86_400;
/// Says to people and secret scanners what it is.
const SECRET_PREFIX: &str = "msa_";

#[derive(Serialize, ToSchema)]
pub(crate) struct AdminTokenView {
    id: TokenId,
    name: Title,
    role: AdminRole,
    /// The only things it may do, within its role; null when the role alone decides.
    permissions: Option<BTreeSet<Permission>>,
    status: &'static str,
    created_at: UnixTime,
    expires_at: Option<UnixTime>,
    revoked_at: Option<UnixTime>,
    /// The secret, in the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl AdminTokenView {
    fn new(token: AdminToken, now: UnixTime) -> Self {
        let status = match token.revoked_at {
            Some(_) => "revoked",
            None if token.is_good(now) => "active",
            None => "expired",
        };
        Self {
            id: token.id,
            name: token.name,
            role: token.role,
            permissions: token.permissions,
            status,
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            token: None,
        }
    }
}

/// `GET …/admin_tokens`
pub(crate) async fn list(State(api): State<Arc<Api>>, _: Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let tokens = api.read(|reader| reader.admin_tokens()).await?;
    let (tokens, info) = page.cut_sorted(Order::Descending, tokens, |token| token.id.to_string());
    let now = api.now();
    let views: Vec<AdminTokenView> =
        tokens.into_iter().map(|token| AdminTokenView::new(token, now)).collect();
    Answer::list(&views, info)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAdminToken {
    name: Title,
    /// Needed, unless `permissions` say what it may do.
    role: Option<AdminRole>,
    permissions: Option<BTreeSet<Permission>>,
    ttl_s: Option<u64>,
}

/// `POST …/admin_tokens`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    _: Account,
    caller: Caller,
    Json(wanted): Json<NewAdminToken>,
) -> Outcome {
    caller.require_admin()?;
    if wanted.ttl_s.is_some_and(|ttl| !(1..=TTL_MAX).contains(&ttl)) {
        return Err(ApiError::argument("/ttl_s", "ttl_s: one second to ten years"));
    }
    let role = match (wanted.role, &wanted.permissions) {
        (Some(role), _) => role,
        (None, Some(_)) => AdminRole::Admin,
        (None, None) => {
            let message = "role: `admin` or `reader`, unless permissions say what the token may do";
            return Err(ApiError::argument("/role", message));
        }
    };
    let secret = new_secret(SECRET_PREFIX).map_err(ApiError::internal)?;
    let random = muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
    let by = caller.by(api.now());
    let token = AdminToken {
        id: TokenId::new(api.registrar().clock().unix_millis(), random),
        hash: hash_secret(&secret),
        name: wanted.name,
        role,
        permissions: wanted.permissions,
        created_at: by.at,
        expires_at: wanted.ttl_s.map(|ttl| by.at.plus(Duration::from_secs(ttl))),
        revoked_at: None,
    };
    let now = by.at;
    api.registrar().ledger().transact(CreateAdminToken { token: token.clone(), by }).await?;
    Answer::one(&AdminTokenView { token: Some(secret.to_string()), ..AdminTokenView::new(token, now) })
}

/// `DELETE …/admin_tokens/{id}`; a token may revoke itself.
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    _: Account,
    Id(token): Id<TokenId>,
    caller: Caller,
) -> Outcome {
    if caller.token_id() != Some(token) {
        caller.require_admin()?;
    }
    let now = api.now();
    let token = api.registrar().ledger().transact(RevokeAdminToken { token, by: caller.by(now) }).await?;
    Answer::one(&AdminTokenView::new(token, now))
}
