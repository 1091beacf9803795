//! Uploading a certificate: from PEM text to a CA that verifies, or to a leaf with its key.

use std::sync::Arc;

use axum::extract::State;
use muster_enroll::{AuthorityError, ImportPlan};
use muster_policy::identity::{AccountId, CaId, Fingerprint};
use muster_store::act::AddOutboundLeaf;
use muster_store::record::{Ca, OutboundLeaf, ShownTo, Upload, UploadKind};
use serde::Deserialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::CertificateView;
use crate::Api;
use crate::api::{Outcome, pem};
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::{ApiError, CODE_ARGUMENT, CODE_NOT_A_CA};
use crate::request::{Account, Json};
use crate::x509::Facts;

/// A dozen RSA-4096 certificates are below 64 KiB.
const TEXT_MAX_BYTES: usize = 256 << 10;
/// Longest name of a certificate, as Access has it.
const NAME_MAX_CHARS: usize = 350;

#[derive(Deserialize, ToSchema)]
#[schema(as = MtlsCertificateUploadWanted)]
pub(crate) struct Wanted {
    ca: Option<bool>,
    certificates: Option<String>,
    name: Option<String>,
    #[schema(value_type = Option<String>)]
    private_key: Option<Zeroizing<String>>,
}

/// `POST /accounts/{account_id}/mtls_certificates`
pub(crate) async fn upload(
    State(api): State<Arc<Api>>,
    Account(account): Account,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let is_ca = wanted.ca.ok_or_else(|| ApiError::argument("/ca", "ca: true or false is needed"))?;
    let missing = || ApiError::argument("/certificates", "certificates: PEM text is needed");
    let text = wanted.certificates.ok_or_else(missing)?;
    let name = read_name(wanted.name)?;
    let bundle = Bundle::read(&text, "/certificates")?;
    let mut notes = bundle.note.clone();
    let view = if is_ca {
        if wanted.private_key.is_some() {
            notes.push(
                "private_key was not kept: with an uploaded CA certificates are only verified".to_owned(),
            );
        }
        let upload = Upload { kind: UploadKind::Custom, name, pem: bundle.text.clone(), changed_at: None };
        CertificateView::of_ca(&import_ca(&api, &bundle, upload, &caller, "/certificates").await?)
    } else {
        let key = wanted.private_key.as_ref().map(|key| key.as_str());
        let new = NewLeaf { account, bundle, name, key, shown_to: None, pointer: "/certificates" };
        CertificateView::of_leaf(add_leaf(&api, new, &caller).await?)
    };
    let updated_at = Some(view.uploaded_on);
    let answer = Answer::one(&CertificateView { updated_at, ..view })?;
    Ok(notes.iter().fold(answer, |answer, note| answer.with_message(CODE_ARGUMENT, note)))
}

/// A name for people; an empty one is none.
pub(crate) fn read_name(name: Option<String>) -> Result<Option<String>, ApiError> {
    let name = name.filter(|name| !name.is_empty());
    let sound = |name: &String| name.chars().count() <= NAME_MAX_CHARS && !name.chars().any(char::is_control);
    if name.as_ref().is_some_and(|name| !sound(name)) {
        let message = format!("name: at most {NAME_MAX_CHARS} characters, none of them a control");
        return Err(ApiError::argument("/name", message));
    }
    Ok(name)
}

/// The certificates of a text, in its order; at least one.
pub(crate) struct Bundle {
    /// The text, or its certificates alone when there was something else in it, such as a key.
    pub(crate) text: String,
    first: Vec<u8>,
    facts: Facts,
    /// What was left out.
    note: Vec<String>,
}

impl Bundle {
    /// Reads PEM text; what is no certificate is left out, and said.
    pub(crate) fn read(text: &str, pointer: &str) -> Result<Self, ApiError> {
        let wrong = |message: String| ApiError::argument(pointer, message);
        if text.len() > TEXT_MAX_BYTES {
            return Err(wrong(format!("at most {TEXT_MAX_BYTES} bytes")));
        }
        let blocks = ::pem::parse_many(text)
            .map_err(|error| wrong(format!("Unable to parse certificate: {error}")))?;
        let others: Vec<&str> =
            blocks.iter().map(::pem::Pem::tag).filter(|tag| *tag != "CERTIFICATE").collect();
        let ders: Vec<&[u8]> =
            blocks.iter().filter(|block| block.tag() == "CERTIFICATE").map(::pem::Pem::contents).collect();
        let Some(first) = ders.first() else {
            let found = if others.is_empty() { "nothing in PEM form".to_owned() } else { others.join(", ") };
            return Err(wrong(format!("Unable to parse certificate: there is none, but {found}")));
        };
        let unreadable = || wrong("Unable to parse certificate: the first block is not one".to_owned());
        let facts = Facts::of(first).ok_or_else(unreadable)?;
        let text = if others.is_empty() { text.to_owned() } else { pem::certificates(ders.iter().copied()) };
        let note = if others.is_empty() {
            Vec::new()
        } else {
            vec![format!("left out of `certificates`: {}", others.join(", "))]
        };
        Ok(Self { text, first: first.to_vec(), facts, note })
    }
}

/// Makes a CA of a bundle; every certificate in it must be a CA's.
pub(crate) async fn import_ca(
    api: &Api,
    bundle: &Bundle,
    upload: Upload,
    caller: &Caller,
    pointer: &str,
) -> Result<Ca, ApiError> {
    let not_a_ca =
        |message: String| ApiError::new(http::StatusCode::BAD_REQUEST, CODE_NOT_A_CA, message).at(pointer);
    if !bundle.facts.is_ca {
        return Err(not_a_ca("it is not a CA certificate: basicConstraints does not say CA:TRUE".to_owned()));
    }
    if bundle.facts.is_weakly_signed() {
        return Err(not_a_ca(format!("it is signed with {}, which is weak", bundle.facts.signature)));
    }
    let plan = ImportPlan {
        pem: bundle.text.clone(),
        passphrase: None,
        manufacturer: false,
        title: None,
        upload: Some(upload),
    };
    let imported = api.registrar().authority().import(plan, caller.by(api.now())).await;
    imported.map_err(|error| match error {
        AuthorityError::Import(refused) => not_a_ca(refused.to_string()),
        other => ApiError::from(other).at(pointer),
    })
}

/// A leaf that is to be kept.
pub(crate) struct NewLeaf<'a> {
    pub(crate) account: AccountId,
    pub(crate) bundle: Bundle,
    pub(crate) name: Option<String>,
    pub(crate) key: Option<&'a str>,
    pub(crate) shown_to: Option<ShownTo>,
    /// Where the request has the certificate.
    pub(crate) pointer: &'static str,
}

/// Keeps a leaf, and its key in a file of its own.
pub(crate) async fn add_leaf(api: &Api, new: NewLeaf<'_>, caller: &Caller) -> Result<OutboundLeaf, ApiError> {
    let NewLeaf { account, bundle, name, key, shown_to, pointer } = new;
    if bundle.facts.is_ca {
        return Err(ApiError::argument(pointer, "it is a CA certificate, where a leaf is needed"));
    }
    let now = api.now();
    if bundle.facts.not_after.is_some_and(|end| end < now) {
        return Err(ApiError::argument(pointer, "the certificate has expired"));
    }
    let random = muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
    let id = CaId::new(api.registrar().clock().unix_millis(), random);
    let fingerprint: Fingerprint = muster_enroll::fingerprint(&bundle.first);
    let authority = api.registrar().authority();
    let key_file = match key {
        Some(key) => Some(authority.keep_outbound_key(id, key, &bundle.facts.spki_der).map_err(about_key)?),
        None => None,
    };
    let leaf = OutboundLeaf {
        id,
        account,
        name,
        pem: bundle.text,
        fingerprint,
        key_file,
        uploaded_at: now,
        shown_to,
    };
    let added = api.registrar().ledger().transact(AddOutboundLeaf { leaf: leaf.clone(), by: caller.by(now) });
    if let Err(error) = added.await {
        forget_key(api, &leaf);
        let error = ApiError::from(error);
        return Err(if error.status.is_client_error() { error.at(pointer) } else { error });
    }
    Ok(leaf)
}

/// Removes the key of a leaf that is not kept, or no more.
pub(crate) fn forget_key(api: &Api, leaf: &OutboundLeaf) {
    if let Some(file) = &leaf.key_file
        && let Err(error) = api.registrar().authority().forget_outbound_key(file)
    {
        tracing::warn!(%error, file, "the key file of a certificate that is gone stays");
    }
}

/// What the key's reader says holds nothing of the key.
fn about_key(error: AuthorityError) -> ApiError {
    match error {
        AuthorityError::Key(_) | AuthorityError::Import(_) => {
            ApiError::argument("/private_key", format!("private_key: {error}"))
        }
        other => other.into(),
    }
}
