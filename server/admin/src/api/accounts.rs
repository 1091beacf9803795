//! Tokens that verify themselves, and accounts (contract §2).

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use muster_store::record;
use serde::Serialize;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::{ApiError, CODE_AUTHENTICATION};
use crate::paging::PageWish;
use crate::request::{Account, Query};

/// A token about itself. One that is not active got no answer.
#[derive(Serialize)]
struct TokenView {
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_on: Option<UnixTime>,
}

/// An account, with the fields that SDKs read.
#[derive(Serialize)]
struct AccountView<'a> {
    id: AccountId,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    created_on: UnixTime,
    settings: AccountSettings,
    trust_domain: &'a str,
}

#[derive(Serialize)]
struct AccountSettings {
    enforce_twofactor: bool,
}

impl<'a> AccountView<'a> {
    fn new(account: &'a record::Account) -> Self {
        Self {
            id: account.id,
            name: account.name.as_str(),
            kind: "standard",
            created_on: account.created_at,
            settings: AccountSettings { enforce_twofactor: false },
            trust_domain: account.trust_domain.as_str(),
        }
    }
}

/// `GET /user/tokens/verify`
pub(crate) async fn verify_token(caller: Caller) -> Outcome {
    let view = TokenView {
        id: caller.token_id().map_or_else(|| "local".to_owned(), |id| id.to_string()),
        status: "active",
        expires_on: caller.token.and_then(|token| token.expires_at),
    };
    Ok(Answer::one(&view)?.with_message(CODE_AUTHENTICATION, "This API Token is valid and active"))
}

/// `GET /accounts/{account_id}/tokens/verify`
pub(crate) async fn verify_account_token(_: Account, caller: Caller) -> Outcome {
    verify_token(caller).await
}

/// `GET /accounts`
pub(crate) async fn list(State(api): State<Arc<Api>>, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let account = own(&api).await?;
    let wanted = query.get("name").is_none_or(|name| name == account.name.as_str());
    let (accounts, info) = page.cut(if wanted { vec![AccountView::new(&account)] } else { Vec::new() });
    Answer::list(&accounts, info)
}

/// `GET /accounts/{account_id}`
pub(crate) async fn get(State(api): State<Arc<Api>>, _: Account) -> Outcome {
    Answer::one(&AccountView::new(&own(&api).await?))
}

/// The account of this server.
pub(crate) async fn own(api: &Api) -> Result<record::Account, ApiError> {
    let id = api.registrar().account();
    api.read(move |reader| reader.account(id)).await?.ok_or_else(|| ApiError::no_route_to("account"))
}
