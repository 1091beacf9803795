//! A consistent copy of everything, as a stream. It holds the CA keys, so readers don't get it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use tokio_util::io::ReaderStream;

use crate::Api;
use crate::api::RawOutcome;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::request::Account;

/// Octets read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// `GET …/backup`
pub(crate) async fn download(State(api): State<Arc<Api>>, _: Account, caller: Caller) -> RawOutcome {
    caller.require_admin()?;
    tracing::info!("a backup is made");
    let made = (api.hooks().backup)().await;
    let file = made.map_err(|error| match error.kind() {
        // The operator's to mend; it names one of the operator's own files.
        std::io::ErrorKind::InvalidInput => ApiError::conflict(error.to_string()),
        _ => ApiError::internal(error),
    })?;
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
    let headers = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_DISPOSITION, "attachment; filename=\"muster.backup\""),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}
