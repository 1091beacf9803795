//! Headers that a zone's origins are sent of themselves (contract §8): the `cf-cert-*` ones, which are on until
//! they are turned off. `Client-Cert` is always sent.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::CaId;
use muster_store::act::{RemoveDocument, SetDocument};
use muster_store::record::{self, Document, DocumentKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::auth::Caller;
use crate::envelope::Answer;
use crate::error::ApiError;
use crate::request::{Json, Zone};

/// The one that there is.
const CLIENT_CERTIFICATE: &str = "add_client_certificate_headers";

/// What is stored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) add_client_certificate_headers: bool,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ManagedHeadersWanted)]
pub(crate) struct Wanted {
    #[serde(default)]
    managed_request_headers: Vec<Switch>,
    #[serde(default)]
    managed_response_headers: Vec<Switch>,
}

#[derive(Deserialize, ToSchema)]
struct Switch {
    id: String,
    enabled: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ManagedHeaders)]
pub(crate) struct View {
    managed_request_headers: [SwitchView; 1],
    managed_response_headers: [SwitchView; 0],
}

#[derive(Serialize, ToSchema)]
struct SwitchView {
    id: &'static str,
    enabled: bool,
    has_conflict: bool,
    conflicts_with: [&'static str; 0],
}

fn answer(enabled: bool) -> Outcome {
    let switch = SwitchView { id: CLIENT_CERTIFICATE, enabled, has_conflict: false, conflicts_with: [] };
    Answer::one(&View { managed_request_headers: [switch], managed_response_headers: [] })
}

async fn held(api: &Api, zone: &record::Zone) -> Result<Option<Document>, ApiError> {
    let (account, id) = (zone.account, CaId::from_bytes(*zone.id.as_bytes()));
    api.read(move |reader| reader.document(account, DocumentKind::ManagedHeaders, id)).await
}

/// `GET /zones/{zone_id}/managed_headers`
pub(crate) async fn get(State(api): State<Arc<Api>>, Zone(zone): Zone) -> Outcome {
    let kept = held(&api, &zone).await?.map(|document| serde_json::from_str::<Kept>(&document.text));
    let kept = kept.transpose().map_err(ApiError::internal)?;
    answer(kept.is_none_or(|kept| kept.add_client_certificate_headers))
}

/// `PATCH /zones/{zone_id}/managed_headers`; what is left out stays as it is.
pub(crate) async fn edit(
    State(api): State<Arc<Api>>,
    Zone(zone): Zone,
    caller: Caller,
    Json(wanted): Json<Wanted>,
) -> Outcome {
    let known = |switch: &Switch| switch.id == CLIENT_CERTIFICATE;
    let request = wanted.managed_request_headers.iter();
    // Others are off here, and may be said to be.
    if let Some(index) = request.clone().position(|switch| switch.enabled && !known(switch)) {
        return Err(unknown("managed_request_headers", index));
    }
    if let Some(index) = wanted.managed_response_headers.iter().position(|switch| switch.enabled) {
        return Err(unknown("managed_response_headers", index));
    }
    let Some(enabled) = request.clone().rev().find(|switch| known(switch)).map(|switch| switch.enabled)
    else {
        return get(State(api), Zone(zone)).await;
    };
    let _turn = api.turn().await;
    let instead_of = held(&api, &zone).await?;
    let kept = Kept { add_client_certificate_headers: enabled };
    let by = caller.by(api.now());
    let document = Document {
        // The zone's own id, so that two first writers can't make two.
        id: CaId::from_bytes(*zone.id.as_bytes()),
        account: zone.account,
        zone: Some(zone.id),
        kind: DocumentKind::ManagedHeaders,
        text: serde_json::to_string(&kept).map_err(ApiError::internal)?,
        revision: 0,
        created_at: by.at,
        changed_at: by.at,
    };
    api.registrar().ledger().transact(SetDocument { document, instead_of, by }).await?;
    answer(enabled)
}

fn unknown(list: &str, index: usize) -> ApiError {
    let message = format!("id: there is only {CLIENT_CERTIFICATE}, for requests");
    ApiError::argument(format!("/{list}/{index}/id"), message)
}

/// `DELETE /zones/{zone_id}/managed_headers`: as it was before anybody set it.
pub(crate) async fn remove(State(api): State<Arc<Api>>, Zone(zone): Zone, caller: Caller) -> Outcome {
    let _turn = api.turn().await;
    if let Some(Document { account, kind, id, .. }) = held(&api, &zone).await? {
        let remove = RemoveDocument { account, kind, id, instead_of: None, by: caller.by(api.now()) };
        api.registrar().ledger().transact(remove).await?;
    }
    answer(true)
}
