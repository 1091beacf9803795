//! Changes are carried through though their clients hang up.
//!
//! A change may be several transactions, such as a revocation and the CRL that tells of it: cut off between them it
//! would hold by half. So a request is read whole while its client is there, and then carried out in a task of its
//! own, which [`Api::drain`] waits for.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use crate::error::ApiError;
use crate::{Api, request};

/// Changes at once: they go on when their clients go, so connections do not bound them.
pub(crate) const CHANGES_MAX: usize = 1_024;

/// The places for changes that are being carried out.
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CHANGES_MAX)))
    }
}

impl Places {
    fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        place.map_err(|_| ApiError::too_often("too many changes at once"))
    }
}

/// Carries whatever is no reading method to its end.
pub(crate) async fn through(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    in_own_task(&api, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn in_own_task(api: &Api, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // Before the task: one that hangs up in its body has begun nothing, and leaves nothing behind.
    let body = request::collect(body).await?;
    let place = api.places().take()?;
    let request = Request::from_parts(parts, Body::from(body));
    let change = async move {
        let _place = place;
        next.run(request).await
    };
    api.tasks().spawn(change.in_current_span()).await.map_err(ApiError::internal)
}
