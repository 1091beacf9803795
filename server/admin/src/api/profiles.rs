//! Profiles: what may be issued. Shown with every value in force and with what was written.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::key::KeyKind;
use muster_policy::name::Label;
use muster_policy::profile::{
    Approval, ChannelBinding, CredentialRule, CsrAttributes, Profile, ProfileError, ProfileWritten,
};
use muster_store::act::SetProfile;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::paging::{Order, PageWish};
use crate::request::{Account, Id, Json, Query};

#[derive(Serialize, ToSchema)]
pub(crate) struct ProfileView {
    label: Label,
    /// Whether it is the one of paths without a label.
    default: bool,
    /// What is in force.
    effective: Option<Effective>,
    /// What was written; a field that is null takes the default.
    written: ProfileWritten,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Effective {
    keys: Vec<KeyKind>,
    rsa_min_bits: u32,
    lifetime_s: u64,
    backdate_s: u64,
    renew_from_percent: u8,
    renew_urgent_percent: u8,
    renew_jitter_percent: u8,
    renewal_grace_s: u64,
    approval: Approval,
    channel_binding: ChannelBinding,
    credentials: CredentialRule,
    csr_attributes: CsrAttributes,
    server_keygen: bool,
    dns_suffix: Option<String>,
    crl_url: bool,
    wrap_base64: bool,
}

impl From<Profile> for Effective {
    fn from(profile: Profile) -> Self {
        Self {
            keys: profile.keys.into_iter().collect(),
            rsa_min_bits: profile.rsa_min_bits,
            lifetime_s: profile.lifetime.as_secs(),
            backdate_s: profile.backdate.as_secs(),
            renew_from_percent: profile.renew_from_percent,
            renew_urgent_percent: profile.renew_urgent_percent,
            renew_jitter_percent: profile.renew_jitter_percent,
            renewal_grace_s: profile.renewal_grace.as_secs(),
            approval: profile.approval,
            channel_binding: profile.channel_binding,
            credentials: profile.credentials,
            csr_attributes: profile.csr_attributes,
            server_keygen: profile.server_keygen,
            dns_suffix: profile.dns_suffix.map(String::from),
            crl_url: profile.crl_url,
            wrap_base64: profile.wrap_base64,
        }
    }
}

impl ProfileView {
    fn new(api: &Api, label: Label, written: ProfileWritten) -> Self {
        let default = label == *api.registrar().default_profile();
        let effective = written.check(label.clone()).ok().map(Effective::from);
        Self { label, default, effective, written }
    }
}

/// `GET …/profiles`
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let profiles = api.read(move |reader| reader.profiles(account)).await?;
    let (profiles, info) = page.cut_sorted(Order::Ascending, profiles, |(label, _)| label.to_string());
    let views: Vec<ProfileView> =
        profiles.into_iter().map(|(label, written)| ProfileView::new(&api, label, written)).collect();
    Answer::list(&views, info)
}

/// `GET …/profiles/{label}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    Id(label): Id<Label>,
) -> Outcome {
    let name = label.clone();
    let written = api.read(move |reader| reader.profile(account, &name)).await?;
    let written = written.ok_or_else(|| ApiError::not_found("profile"))?;
    Answer::one(&ProfileView::new(&api, label, written))
}

/// `PUT …/profiles/{label}`: makes it, or sets all of it anew.
pub(crate) async fn set(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    axum::extract::Path(path): axum::extract::Path<std::collections::HashMap<String, String>>,
    caller: Caller,
    Json(written): Json<ProfileWritten>,
) -> Outcome {
    // A name that can't be one is an error of the request here, not a missing object.
    let label = path.get("id").map(String::as_str).unwrap_or_default();
    let label: Label =
        label.parse().map_err(|error| ApiError::argument("/label", format!("label: {error}")))?;
    let wrong = |error: ProfileError| ApiError::argument(format!("/{}", error.field), error.to_string());
    written.check(label.clone()).map_err(wrong)?;
    let set =
        SetProfile { account, label: label.clone(), written: written.clone(), by: caller.by(api.now()) };
    api.registrar().ledger().transact(set).await?;
    Answer::one(&ProfileView::new(&api, label, written))
}
