//! Enrollment tokens. The secret is answered once, when the token is made, and stored as a hash.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use muster_enroll::{hash_secret, new_secret};
use muster_policy::enrol::DeviceStatus;
use muster_policy::identity::{AccountId, KeyFingerprint, TokenId};
use muster_policy::name::{DeviceId, Label};
use muster_policy::time::UnixTime;
use muster_store::act::{CreateToken, RevokeToken};
use muster_store::reader::TokenFilter;
use muster_store::record::{Token, TokenState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Account, Id, Json, Query};

/// How long a token is good when nothing is said: the time to carry it to a device.
const TTL_DEFAULT: u64 = 3_600;
/// Longest life of a token, the same as of a certificate: 10 years.
const TTL_MAX: u64 = 3_660 * 86_400;
/// Says to people and secret scanners what it is.
const SECRET_PREFIX: &str = "mst_";

#[derive(Serialize, ToSchema)]
#[schema(as = TokensTokenView)]
pub(crate) struct TokenView {
    id: TokenId,
    status: TokenState,
    /// None for a claim token, which any device may use.
    device: Option<DeviceId>,
    claim: bool,
    profile: Option<Label>,
    key_sha256: Option<KeyFingerprint>,
    uses_allowed: u32,
    uses_taken: u32,
    created_at: UnixTime,
    expires_at: UnixTime,
    revoked_at: Option<UnixTime>,
    last_used_at: Option<UnixTime>,
    /// The secret, in the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    fn new(token: Token, now: UnixTime) -> Self {
        Self {
            id: token.id,
            status: token.state(now),
            claim: token.device.is_none(),
            device: token.device,
            profile: token.profile,
            key_sha256: token.key,
            uses_allowed: token.uses_allowed,
            uses_taken: token.uses_taken,
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            last_used_at: token.last_used_at,
            token: None,
        }
    }
}

/// `GET …/tokens`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let filter = TokenFilter { state: query.word("status")?, device: query.parse("device")? };
    let (paging, now) = (page.paging(), api.now());
    let found = api.read(move |reader| reader.tokens(account, &filter, now, &paging)).await?;
    let info = page.info(&found)?;
    let views: Vec<TokenView> = found.items.into_iter().map(|token| TokenView::new(token, now)).collect();
    Answer::list(&views, info)
}

/// `GET …/tokens/{id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<TokenId>,
) -> Outcome {
    let token = api.read(move |reader| reader.token(account, id)).await?;
    let token = token.ok_or_else(|| ApiError::not_found("token"))?;
    Answer::one(&TokenView::new(token, api.now()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    device: Option<DeviceId>,
    #[serde(default)]
    claim: bool,
    uses: Option<u32>,
    ttl_s: Option<u64>,
    profile: Option<Label>,
    key_sha256: Option<KeyFingerprint>,
}

impl NewToken {
    /// How often and how long it is good.
    fn bounds(&self) -> Result<(u32, Duration), ApiError> {
        if self.device.is_some() == self.claim {
            return Err(ApiError::argument("/device", "give either a device, or `claim`: true"));
        }
        let uses = self.uses.unwrap_or(1);
        if uses == 0 {
            return Err(ApiError::argument("/uses", "uses: 1 or more"));
        }
        let ttl = self.ttl_s.unwrap_or(TTL_DEFAULT);
        if !(1..=TTL_MAX).contains(&ttl) {
            return Err(ApiError::argument("/ttl_s", "ttl_s: one second to ten years"));
        }
        Ok((uses, Duration::from_secs(ttl)))
    }
}

/// `POST …/tokens`
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    Json(wanted): Json<NewToken>,
) -> Outcome {
    let (uses_allowed, ttl) = wanted.bounds()?;
    check_references(&api, account, &wanted).await?;
    let secret = new_secret(SECRET_PREFIX).map_err(ApiError::internal)?;
    let random = muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
    let by = caller.by(api.now());
    let token = Token {
        id: TokenId::new(api.registrar().clock().unix_millis(), random),
        account,
        hash: hash_secret(&secret),
        device: wanted.device,
        key: wanted.key_sha256,
        profile: wanted.profile,
        uses_allowed,
        uses_taken: 0,
        waiting: 0,
        expires_at: by.at.plus(ttl),
        revoked_at: None,
        created_at: by.at,
        last_used_at: None,
    };
    let now = by.at;
    api.registrar().ledger().transact(CreateToken { token: token.clone(), by }).await?;
    Answer::one(&TokenView { token: Some(secret.to_string()), ..TokenView::new(token, now) })
}

/// A token for what does not exist would be found out in the field, far from who made it.
async fn check_references(api: &Api, account: AccountId, wanted: &NewToken) -> Result<(), ApiError> {
    if let Some(label) = &wanted.profile
        && api.registrar().profile(label)?.is_none()
    {
        return Err(ApiError::argument("/profile", format!("there is no profile {label}")));
    }
    let Some(id) = wanted.device.clone() else { return Ok(()) };
    let device = api.read(move |reader| reader.device(account, &id)).await?;
    match device {
        Some(device) if device.status == DeviceStatus::Retired => {
            Err(ApiError::conflict(format!("the device {} is retired for good", device.id)).at("/device"))
        }
        _ => Ok(()),
    }
}

/// `DELETE …/tokens/{id}`
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(token): Id<TokenId>,
    caller: Caller,
) -> Outcome {
    let now = api.now();
    let revoke = RevokeToken { account, token, by: caller.by(now) };
    let token = api.registrar().ledger().transact(revoke).await?;
    Answer::one(&TokenView::new(token, now))
}
