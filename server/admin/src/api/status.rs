//! How the server is: version, counts, figures of the ledger.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::identity::AccountId;
use muster_policy::time::UnixTime;
use muster_store::SCHEMA_VERSION;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Outcome;
use crate::envelope::Answer;
use crate::request::Account;
use crate::{Api, EdgeFigures};

#[derive(Serialize, ToSchema)]
pub(crate) struct StatusView {
    version: &'static str,
    account: AccountId,
    now: UnixTime,
    started_at: UnixTime,
    can_issue: bool,
    counts: CountsView,
    ledger: LedgerView,
    /// None when no edge runs in this process.
    edge: Option<EdgeFigures>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CountsView {
    certificates: u64,
    certificates_revoked: u64,
    devices_active: u64,
    devices_suspended: u64,
    devices_retired: u64,
    tokens: u64,
    approvals_waiting: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LedgerView {
    schema: u32,
    newest_change: u64,
    queue: usize,
    commits: u64,
    transactions: u64,
    largest_batch: u64,
    failures: u64,
    faults: u64,
}

/// `GET …/status`
pub(crate) async fn status(State(api): State<Arc<Api>>, Account(account): Account) -> Outcome {
    let (counters, newest_change) =
        api.read(move |reader| Ok((reader.counters(account)?, reader.newest_change()?))).await?;
    let ledger = api.registrar().ledger();
    let stats = ledger.stats();
    Answer::one(&StatusView {
        version: env!("CARGO_PKG_VERSION"),
        account,
        now: api.now(),
        started_at: api.started_at(),
        can_issue: api.registrar().authority().trust().issuing.is_some(),
        counts: CountsView {
            certificates: counters.certificates,
            certificates_revoked: counters.certificates_revoked,
            devices_active: counters.devices_active,
            devices_suspended: counters.devices_suspended,
            devices_retired: counters.devices_retired,
            tokens: counters.tokens,
            approvals_waiting: counters.waiting,
        },
        ledger: LedgerView {
            schema: SCHEMA_VERSION,
            newest_change,
            queue: ledger.queue_length(),
            commits: stats.commits,
            transactions: stats.jobs,
            largest_batch: stats.largest_batch,
            failures: stats.failures,
            faults: stats.faults,
        },
        edge: api.hooks().edge_figures.as_ref().map(|read| read()),
    })
}
