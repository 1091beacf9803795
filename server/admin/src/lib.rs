//! The admin API: what people and programs manage an account with.
//!
//! JSON over HTTP in the envelope, with the auth, paging and error codes of the Cloudflare v4 API
//! (its contract, §1 and §2), under `/client/v4`. Muster's own objects lie below
//! `/client/v4/accounts/ACCOUNT/muster/`. Beside it, without a token: `/healthz`, `/readyz`,
//! `/metrics`, and the CRLs at `/crl/CA_ID.crl`. The dashboard is at `/`.
//!
//! Beside answering: changes are told as a stream of events and to webhooks, a change is carried through
//! though its client hangs up, a POST with an `Idempotency-Key` is carried out once, and the table of routes is also the OpenAPI document
//! (`openapi.json`).
//!
//! What the server asks of others by itself (webhooks, CRLs of CAs) goes one way out, which reaches no network
//! that the operator denies: an account's administrator is not let into every network that the machine is in.
//!
//! The command line uses the same router: over HTTP while a server runs, in process otherwise, so
//! there is one implementation of everything. What always holds: an object of another account looks
//! exactly like a missing one; no answer holds the hash of a secret or the path of a key; a reader's
//! token changes nothing.
//!
//! What it may import says `tests/system/architecture.rs`.

mod api;
mod auth;
mod carry;
mod dashboard;
mod envelope;
mod error;
mod events;
mod health;
mod idempotency;
mod lists;
mod metrics;
mod openapi;
mod outbound;
mod paging;
mod permission;
mod request;
mod routes;
mod service;
mod sse;
#[cfg(test)]
mod tests;
mod webhooks;
mod x509;

pub use api::access::gate;
pub use lists::fetch_lists;
pub use outbound::OutboundSettings;
pub use routes::{crl_router, figures_router, router};
pub use service::{
    Api, Backup, CloseConnections, Connection, ConnectionFilter, ConnectionPlace, Connections, EdgeFigures,
    Hooks, ReadConnections, ReadEdge, Rehearse, ZonesChanged,
};
pub use webhooks::{WebhookSettings, deliver_webhooks};
