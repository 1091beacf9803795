//! Tokens that verify themselves, and accounts (contract §2).

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use muster_store::record;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::{ApiError, CODE_AUTHENTICATION};
use crate::paging::PageWish;
use crate::request::{Account, Query};

/// A token about itself. One that is not active got no answer.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountTokenView)]
pub(crate) struct TokenView {
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_on: Option<UnixTime>,
}

/// An account, with the fields that SDKs read.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountView<'a> {
    id: AccountId,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    created_on: UnixTime,
    settings: AccountSettings,
    trust_domain: &'a str,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AccountSettings {
    enforce_twofactor: bool,
    abuse_contact_email: Option<String>,
}

/// Who calls, as far as a token is a person.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserView {
    id: String,
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
    two_factor_authentication_enabled: bool,
    suspended: bool,
}

impl UserView {
    fn new(caller: &Caller, account: &record::Account) -> Self {
        let id = token_id(caller);
        let email = format!("{id}@{}", account.trust_domain);
        Self {
            id,
            email,
            first_name: None,
            last_name: None,
            two_factor_authentication_enabled: false,
            suspended: false,
        }
    }
}

/// The id of a caller's token in the form that the API we follow gives tokens and users: without hyphens.
fn token_id(caller: &Caller) -> String {
    caller.token_id().map_or_else(|| "0".repeat(32), |id| id.to_string().replace('-', ""))
}

/// A user's place in an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct MembershipView<'a> {
    id: String,
    status: &'static str,
    account: AccountView<'a>,
    roles: [&'static str; 1],
    permissions: serde_json::Value,
    api_access_enabled: bool,
    code: &'static str,
}

impl<'a> AccountView<'a> {
    fn new(account: &'a record::Account) -> Self {
        Self {
            id: account.id,
            name: account.name.as_str(),
            kind: "standard",
            created_on: account.created_at,
            settings: AccountSettings { enforce_twofactor: false, abuse_contact_email: None },
            trust_domain: account.trust_domain.as_str(),
        }
    }
}

/// `GET /user/tokens/verify`
pub(crate) async fn verify_token(caller: Caller) -> Outcome {
    let view = TokenView {
        id: token_id(&caller),
        status: "active",
        expires_on: caller.token.and_then(|token| token.expires_at),
    };
    Ok(Answer::one(&view)?.with_message(CODE_AUTHENTICATION, "This API Token is valid and active"))
}

/// `GET /accounts/{account_id}/tokens/verify`
pub(crate) async fn verify_account_token(_: Account, caller: Caller) -> Outcome {
    verify_token(caller).await
}

/// `GET /user`
pub(crate) async fn user(State(api): State<Arc<Api>>, caller: Caller) -> Outcome {
    Answer::one(&UserView::new(&caller, &own(&api).await?))
}

/// `GET /memberships`
pub(crate) async fn memberships(State(api): State<Arc<Api>>, caller: Caller, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let account = own(&api).await?;
    let name = query.get("account.name").or_else(|| query.get("name"));
    let wanted = name.is_none_or(|name| name == account.name.as_str())
        && query.get("status").is_none_or(|status| status == "accepted");
    let membership = MembershipView {
        id: UserView::new(&caller, &account).id,
        status: "accepted",
        account: AccountView::new(&account),
        roles: ["Administrator"],
        permissions: serde_json::json!({}),
        api_access_enabled: true,
        code: "",
    };
    let (memberships, info) = page.cut(if wanted { vec![membership] } else { Vec::new() });
    Answer::list(&memberships, info)
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
