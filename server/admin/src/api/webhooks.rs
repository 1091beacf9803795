//! Webhooks: made, listed, tested, removed, and their dead letters.
//!
//! The secret that deliveries are signed with is answered once, when the webhook is made.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use muster_policy::identity::{AccountId, WebhookId};
use muster_policy::name::Title;
use muster_policy::time::UnixTime;
use muster_store::act::{AddWebhook, RemoveDeadLetter, RemoveWebhook};
use muster_store::record::{DeadLetter, Webhook, WebhookProgress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::events;
use crate::outbound::Failed;
use crate::paging::{Order, PageWish};
use crate::request::{Account, Id, Json, Number, Query};
use crate::routes::RequestId;
use crate::webhooks::{self, Letter};

#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookView {
    id: WebhookId,
    name: Title,
    url: String,
    /// Which events are sent; empty for all.
    events: BTreeSet<String>,
    created_at: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<ProgressView>,
    /// In the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ProgressView {
    /// The last change that was dealt with.
    change: u64,
    delivered: u64,
    given_up: u64,
    delivered_at: Option<UnixTime>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetterView {
    /// The last change of the delivery.
    number: u64,
    first: u64,
    attempts: u32,
    why: String,
    at: UnixTime,
}

/// A dead letter that is gone.
#[derive(Serialize, ToSchema)]
pub(crate) struct Dropped {
    number: u64,
}

/// Whether a delivery was taken.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeliveryView {
    delivered: bool,
    status: Option<u16>,
    why: Option<String>,
    took_ms: u64,
}

impl WebhookView {
    fn new(webhook: Webhook) -> Self {
        let Webhook { id, name, url, events, created_at, .. } = webhook;
        Self { id, name, url, events, created_at, progress: None, secret: None }
    }

    fn with(webhook: Webhook, progress: WebhookProgress) -> Self {
        let WebhookProgress { change, delivered, given_up, delivered_at } = progress;
        let progress = Some(ProgressView { change, delivered, given_up, delivered_at });
        Self { progress, ..Self::new(webhook) }
    }
}

impl From<DeadLetter> for DeadLetterView {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { first, last, attempts, why, at } = letter;
        Self { number: last, first, attempts, why, at }
    }
}

/// `GET …/webhooks`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let webhooks = api.read(move |reader| reader.webhooks(account)).await?;
    let (webhooks, info) = page.cut_sorted(Order::Descending, webhooks, |webhook| webhook.id.to_string());
    Answer::list(&webhooks.into_iter().map(WebhookView::new).collect::<Vec<_>>(), info)
}

/// `GET …/webhooks/{id}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<WebhookId>,
) -> Outcome {
    let (webhook, progress) = known(&api, account, id).await?;
    Answer::one(&WebhookView::with(webhook, progress))
}

async fn known(api: &Api, account: AccountId, id: WebhookId) -> Result<(Webhook, WebhookProgress), ApiError> {
    let found = api.read(move |reader| reader.webhook(account, id)).await?;
    found.ok_or_else(|| ApiError::not_found("webhook"))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    name: Title,
    url: String,
    /// Names of events, such as `certificate-revoked`; empty for all.
    #[serde(default)]
    events: BTreeSet<String>,
}

/// `POST …/webhooks`; it is told of what happens from then on.
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    Json(NewWebhook { name, url, events }): Json<NewWebhook>,
) -> Outcome {
    api.webhooks().check_url(&url)?;
    if let Some(unknown) = events.iter().find(|name| !events::NAMES.contains(&name.as_str())) {
        let message =
            format!("events: there is no event {unknown:?}; there are {}", events::NAMES.join(", "));
        return Err(ApiError::argument("/events", message));
    }
    let random = muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
    let by = caller.by(api.now());
    let id = WebhookId::new(api.registrar().clock().unix_millis(), random);
    let webhook = Webhook { id, account, name, url, events, created_at: by.at };
    api.registrar().ledger().transact(AddWebhook { webhook: webhook.clone(), by }).await?;
    api.webhooks().changed();
    let secret = Some(api.webhooks().shown_secret(id));
    Answer::one(&WebhookView { secret, ..WebhookView::new(webhook) })
}

/// `DELETE …/webhooks/{id}`
pub(crate) async fn remove(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(webhook): Id<WebhookId>,
    caller: Caller,
) -> Outcome {
    let remove = RemoveWebhook { account, webhook, by: caller.by(api.now()) };
    let removed = api.registrar().ledger().transact(remove).await?;
    api.webhooks().changed();
    Answer::one(&WebhookView::new(removed))
}

/// `POST …/webhooks/{id}/test` sends a delivery without events, once.
pub(crate) async fn test(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<WebhookId>,
    Extension(request): Extension<RequestId>,
) -> Outcome {
    let (webhook, _) = known(&api, account, id).await?;
    let letter = Letter::test(&webhook, &request.0);
    Answer::one(&try_once(&api, &webhook, &letter).await)
}

async fn try_once(api: &Api, webhook: &Webhook, letter: &Letter) -> DeliveryView {
    let began_at = Instant::now();
    let sent = api.webhooks().send(webhook, letter, api.now()).await;
    let took_ms = u64::try_from(began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let why = sent.as_ref().err().map(ToString::to_string);
    let status = match sent {
        Ok(status) => Some(status),
        Err(Failed::Answered(status)) => Some(status.as_u16()),
        Err(_) => None,
    };
    DeliveryView { delivered: why.is_none(), status, why, took_ms }
}

/// `GET …/webhooks/{id}/dead_letters`, newest first.
pub(crate) async fn letters(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<WebhookId>,
    query: Query,
) -> Outcome {
    let page = PageWish::from_query(&query)?;
    known(&api, account, id).await?;
    let letters = api.read(move |reader| reader.dead_letters(account, id)).await?;
    let (letters, info) =
        page.cut_sorted(Order::Descending, letters, |letter| format!("{:020}", letter.last));
    Answer::list(&letters.into_iter().map(DeadLetterView::from).collect::<Vec<_>>(), info)
}

/// `POST …/webhooks/{id}/dead_letters/{number}/redeliver` tries once; what is taken leaves the list.
pub(crate) async fn redeliver(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<WebhookId>,
    Number(number): Number,
    caller: Caller,
) -> Outcome {
    let (webhook, _) = known(&api, account, id).await?;
    let letters = api.read(move |reader| reader.dead_letters(account, id)).await?;
    let dead = letters.into_iter().find(|letter| letter.last == number);
    let dead = dead.ok_or_else(|| ApiError::not_found("dead letter"))?;
    let letter = webhooks::read_letter(&api, &webhook, &dead).await?;
    let letter = letter.ok_or_else(|| ApiError::conflict("the changes of this letter are gone"))?;
    let done = try_once(&api, &webhook, &letter).await;
    if done.delivered {
        forget(&api, account, id, number, &caller).await?;
    }
    Answer::one(&done)
}

/// `DELETE …/webhooks/{id}/dead_letters/{number}`
pub(crate) async fn drop_letter(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(id): Id<WebhookId>,
    Number(number): Number,
    caller: Caller,
) -> Outcome {
    known(&api, account, id).await?;
    forget(&api, account, id, number, &caller).await?;
    Answer::one(&Dropped { number })
}

async fn forget(
    api: &Api,
    account: AccountId,
    webhook: WebhookId,
    letter: u64,
    caller: &Caller,
) -> Result<(), ApiError> {
    let remove = RemoveDeadLetter { account, webhook, letter, by: caller.by(api.now()) };
    Ok(api.registrar().ledger().transact(remove).await?)
}
