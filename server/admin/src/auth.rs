//! Who calls: `Authorization: Bearer TOKEN` (contract §1.2, §1.5).
//!
//! An admin token is looked up by its hash, so a comparison tells nothing about stored ones; the
//! process's own secret is compared in constant time. Wrong tokens are answered slowly, and only so
//! many at once wait; a right token is never held up by wrong ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use muster_enroll::hash_secret;
use muster_policy::identity::{SecretHash, TokenId};
use muster_policy::time::UnixTime;
use muster_store::act::By;
use muster_store::record::{Actor, AdminRole, AdminToken, Area, Level, Permission};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::error::{ApiError, CODE_AUTHENTICATION, CODE_PERMISSION};
use crate::{Api, permission};

/// How long the answer to a wrong token takes; tokens have 256 random bits, so this is about the log.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(250);
/// Wrong tokens whose answers wait at once; beyond, 429 at once.
const WRONG_TOKENS_WAITING_MAX: usize = 64;
/// Longer than any token of ours.
const TOKEN_MAX_BYTES: usize = 512;

/// The places for answers that wait.
pub(crate) struct Slowdown(Semaphore);

impl Default for Slowdown {
    fn default() -> Self {
        Self(Semaphore::new(WRONG_TOKENS_WAITING_MAX))
    }
}

/// A caller whose token is good.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    role: AdminRole,
    /// The only things it may do; none when its role alone decides.
    permissions: Option<BTreeSet<Permission>>,
    /// None for the process's own secret.
    pub(crate) token: Option<AdminToken>,
}

impl Caller {
    /// The caller as the ledger remembers it.
    pub(crate) fn by(&self, at: UnixTime) -> By {
        By { actor: self.actor.clone(), at }
    }

    /// The caller behind the hash of an admin token, when that token is good.
    pub(crate) fn of_hash(api: &Api, hash: SecretHash) -> Result<Option<Self>, ApiError> {
        let known = api.registrar().ledger().reader()?.admin_token_by_hash(hash)?;
        let good = known.filter(|token| token.is_good(api.now()));
        Ok(good.map(|token| Self {
            actor: Actor::AdminToken(token.id),
            role: token.role,
            permissions: token.permissions.clone(),
            token: Some(token),
        }))
    }

    /// Whether its token is good still; for answers that take long.
    pub(crate) fn is_still_good(&self, api: &Api) -> bool {
        let Some(token) = &self.token else { return true };
        matches!(Self::of_hash(api, token.hash), Ok(Some(_)))
    }

    /// The id of its token.
    pub(crate) fn token_id(&self) -> Option<TokenId> {
        self.token.as_ref().map(|token| token.id)
    }

    /// Refuses everybody but an administrator without limits: what else it did could grow its own right.
    pub(crate) fn require_admin(&self) -> Result<(), ApiError> {
        if self.role == AdminRole::Admin && self.permissions.is_none() {
            return Ok(());
        }
        let message = "the token lacks the permission for this: only one of the role `admin` without a list \
                       of permissions may";
        Err(ApiError::new(StatusCode::FORBIDDEN, CODE_PERMISSION, message))
    }

    /// Whether it may change what is in an area.
    pub(crate) fn may_change(&self, area: Area) -> bool {
        self.require(Permission { area, level: Level::Write }).is_ok()
    }

    /// Refuses who lacks a permission, and names it.
    fn require(&self, needed: Permission) -> Result<(), ApiError> {
        let by_role = self.role == AdminRole::Admin || needed.level == Level::Read;
        let listed = |permissions: &BTreeSet<Permission>| permissions.iter().any(|held| held.covers(needed));
        if by_role && self.permissions.as_ref().is_none_or(listed) {
            return Ok(());
        }
        let message = format!("the token lacks the permission \"{}\" ({needed})", needed.title());
        Err(ApiError::new(StatusCode::FORBIDDEN, CODE_PERMISSION, message))
    }

    const fn local() -> Self {
        Self { actor: Actor::Local, role: AdminRole::Admin, permissions: None, token: None }
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        // `authenticate` runs before every route; without it nobody is let in.
        parts.extensions.get().cloned().ok_or_else(unauthenticated)
    }
}

/// Lets a request through when its token is good and may use the method.
pub(crate) async fn authenticate(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    // Every guarded route has a path of its own; without one nothing but the most would do.
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let needed = permission::needed(route, request.method());
    // Only the dashboard puts a caller there, in process, for a session that it checked.
    let admitted = match request.extensions().get::<Caller>() {
        Some(caller) => permit(caller.clone(), needed),
        None => admit(&api, request.headers(), needed).await,
    };
    match admitted {
        Ok(caller) => {
            tracing::Span::current().record("actor", tracing::field::debug(&caller.actor));
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn admit(api: &Api, headers: &HeaderMap, needed: Option<Permission>) -> Result<Caller, ApiError> {
    let token = bearer(headers).ok_or_else(unauthenticated)?;
    let Some(caller) = identify(api, token)? else {
        slow_down(api).await?;
        return Err(unauthenticated());
    };
    permit(caller, needed)
}

fn permit(caller: Caller, needed: Option<Permission>) -> Result<Caller, ApiError> {
    if let Some(needed) = needed {
        caller.require(needed)?;
    }
    Ok(caller)
}

/// Holds up the answer to a wrong token; refuses at once when too many wait already.
pub(crate) async fn slow_down(api: &Api) -> Result<(), ApiError> {
    let Ok(_place) = api.slowdown().0.try_acquire() else {
        return Err(ApiError::too_often("too many wrong tokens at once"));
    };
    tracing::info!("a request with an unknown, revoked or expired token");
    tokio::time::sleep(WRONG_TOKEN_DELAY).await;
    Ok(())
}

fn identify(api: &Api, token: &str) -> Result<Option<Caller>, ApiError> {
    if api.local_secret().as_bytes().ct_eq(token.as_bytes()).into() {
        return Ok(Some(Caller::local()));
    }
    Caller::of_hash(api, hash_secret(token))
}

/// The token of exactly one well-formed header (RFC 6750 §2.1); the scheme's case does not matter.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    let sound = !token.is_empty() && token.len() <= TOKEN_MAX_BYTES && !token.contains(' ');
    (scheme.eq_ignore_ascii_case("bearer") && sound).then_some(token)
}

fn unauthenticated() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        CODE_AUTHENTICATION,
        "Authentication error: a valid token is needed, as `Authorization: Bearer TOKEN`",
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| HeaderValue::from_str(text).expect("a header value");
        values.iter().map(|text| (AUTHORIZATION, value(text))).collect()
    }

    #[test]
    fn reads_one_bearer_token() {
        assert_eq!(bearer(&headers(&["Bearer abc"])), Some("abc"));
        assert_eq!(bearer(&headers(&["bearer  abc "])), Some("abc"));
        for wrong in ["Basic abc", "Bearer", "Bearer ", "abc", "Bearer a b", ""] {
            assert_eq!(bearer(&headers(&[wrong])), None, "{wrong}");
        }
        assert_eq!(bearer(&headers(&["Bearer a", "Bearer b"])), None);
        assert_eq!(bearer(&headers(&[&format!("Bearer {}", "a".repeat(513))])), None);
    }
}
