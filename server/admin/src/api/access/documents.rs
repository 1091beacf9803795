//! Documents of Access: found in their scope, checked, stored, removed.

use muster_policy::identity::CaId;
use muster_store::act::{RemoveDocument, SetDocument};
use muster_store::record::{AssociationScope, Document, DocumentKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::{CONDITIONS_MAX, Parts, weight};
use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;

/// Largest document; a policy with a hundred rules is below 16 KiB.
const DOCUMENT_MAX_BYTES: usize = 64 << 10;

/// What is written as a document.
pub(crate) trait Written: Serialize + DeserializeOwned + ToSchema + Send + Sync + 'static {
    /// How it is answered.
    type View: Serialize + ToSchema;
    /// What it is.
    const KIND: DocumentKind;
    /// What the description of the API calls one, and several.
    const NOUNS: (&'static str, &'static str);

    /// Refuses what can't be meant.
    fn check(&self, api: &Api, scope: AssociationScope) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Brings it into the form that is stored; `before` is what is stored now.
    fn settle(
        &mut self,
        _: &Api,
        _: AssociationScope,
        _: Option<&Document>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        core::future::ready(Ok(()))
    }

    /// What is answered of it.
    ///
    /// # Errors
    /// When what surrounds it can't be read.
    fn view(self, document: &Document, parts: &Parts) -> Result<Self::View, ApiError>;
}

/// Policies and groups belong to the account; an application also to its zone.
fn is_in(document: &Document, scope: AssociationScope) -> bool {
    match scope {
        AssociationScope::Account(_) => true,
        AssociationScope::Zone { zone, .. } => {
            document.kind != DocumentKind::AccessApp || document.zone == Some(zone)
        }
    }
}

pub(super) async fn list_all(
    api: &Api,
    scope: AssociationScope,
    kind: DocumentKind,
) -> Result<Vec<Document>, ApiError> {
    let mut found = api.read(move |reader| reader.documents(scope.account(), kind)).await?;
    found.retain(|document| is_in(document, scope));
    Ok(found)
}

pub(super) async fn find(
    api: &Api,
    scope: AssociationScope,
    kind: DocumentKind,
    id: CaId,
) -> Result<Document, ApiError> {
    let found = api.read(move |reader| reader.document(scope.account(), kind, id)).await?;
    found.filter(|document| is_in(document, scope)).ok_or_else(|| ApiError::not_found("object"))
}

/// Stores a new document, or another text of one that is there.
pub(super) async fn store<T: Written>(
    api: &Api,
    scope: AssociationScope,
    before: Option<Document>,
    mut written: T,
    caller: &Caller,
) -> Result<Document, ApiError> {
    written.settle(api, scope, before.as_ref()).await?;
    written.check(api, scope).await?;
    let text = serde_json::to_string(&written).map_err(ApiError::internal)?;
    if text.len() > DOCUMENT_MAX_BYTES {
        return Err(ApiError::argument("", format!("at most {DOCUMENT_MAX_BYTES} bytes")));
    }
    let by = caller.by(api.now());
    let instead_of = before.clone();
    let document = match before {
        Some(before) => Document { text, ..before },
        None => {
            let random = muster_enroll::random().ok_or_else(|| ApiError::internal("no random numbers"))?;
            Document {
                id: CaId::new(api.registrar().clock().unix_millis(), random),
                account: scope.account(),
                zone: match scope {
                    AssociationScope::Account(_) => None,
                    AssociationScope::Zone { zone, .. } => Some(zone),
                },
                kind: T::KIND,
                text,
                revision: 0,
                created_at: by.at,
                changed_at: by.at,
            }
        }
    };
    let weighed = document.clone();
    let conditions = api.read(move |reader| weight::conditions_with(reader, &weighed)).await?;
    if conditions > CONDITIONS_MAX {
        let message =
            format!("the applications of an account have at most {CONDITIONS_MAX} conditions in all");
        return Err(ApiError::argument("", message));
    }
    Ok(api.registrar().ledger().transact(SetDocument { document, instead_of, by }).await?)
}

pub(super) async fn remove_one(api: &Api, document: &Document, caller: &Caller) -> Result<(), ApiError> {
    let Document { id, account, kind, .. } = *document;
    let remove = RemoveDocument { account, kind, id, instead_of: None, by: caller.by(api.now()) };
    api.registrar().ledger().transact(remove).await?;
    Ok(())
}
