//! Requests that wait for a person.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::{AccountId, KeyFingerprint, RequestKey};
use muster_policy::name::{DeviceId, Label};
use muster_policy::time::UnixTime;
use muster_store::act::{DecideRequest, Decision};
use muster_store::record::{Actor, Request, WaitingRequest};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::PageWish;
use crate::request::{Account, Id, Query};

#[derive(Serialize, ToSchema)]
pub(crate) struct WaitingView {
    id: RequestKey,
    device: DeviceId,
    profile: Label,
    caller: Actor,
    key_sha256: KeyFingerprint,
    since: UnixTime,
    source: Option<String>,
    csr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'static str>,
}

impl From<WaitingRequest> for WaitingView {
    fn from(waiting: WaitingRequest) -> Self {
        Self {
            id: waiting.key,
            csr: pem::encode("CERTIFICATE REQUEST", &waiting.csr_der),
            device: waiting.device,
            profile: waiting.profile,
            caller: waiting.caller,
            key_sha256: waiting.key_fingerprint,
            since: waiting.since,
            source: waiting.source,
            decision: None,
        }
    }
}

/// `GET …/approvals`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let paging = page.paging();
    let found = api.read(move |reader| reader.waiting(account, &paging)).await?;
    let info = page.info(&found)?;
    let views: Vec<WaitingView> = found.items.into_iter().map(WaitingView::from).collect();
    Answer::list(&views, info)
}

/// `POST …/approvals/{id}/approve`
pub(crate) async fn approve(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(request): Id<RequestKey>,
    caller: Caller,
) -> Outcome {
    decide(&api, account, request, Decision::Approve, &caller).await
}

/// `POST …/approvals/{id}/deny`
pub(crate) async fn deny(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(request): Id<RequestKey>,
    caller: Caller,
) -> Outcome {
    decide(&api, account, request, Decision::Deny, &caller).await
}

async fn decide(
    api: &Api,
    account: AccountId,
    request: RequestKey,
    decision: Decision,
    caller: &Caller,
) -> Outcome {
    let found = api.read(move |reader| reader.request(request)).await?;
    match found {
        Some(Request::Waiting(waiting)) if waiting.account == account => {}
        _ => return Err(ApiError::not_found("waiting request")),
    }
    let decide = DecideRequest { request, decision, by: caller.by(api.now()) };
    let decided = api.registrar().ledger().transact(decide).await?;
    let word = match decision {
        Decision::Approve => "approved",
        Decision::Deny => "denied",
    };
    Answer::one(&WaitingView { decision: Some(word), ..decided.into() })
}
