//! The audit: who did what, and whether the chain of hashes holds.

use std::sync::Arc;

use axum::extract::State;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use muster_store::reader::AuditFilter;
use muster_store::record::{Action, Actor, AuditEntry, Subjects};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Api;
use crate::api::Outcome;
use crate::envelope::Answer;
use crate::paging::PageWish;
use crate::request::{Account, Query};

#[derive(Serialize, ToSchema)]
pub(crate) struct EntryView {
    number: u64,
    at: UnixTime,
    actor: Actor,
    action: Action,
    subjects: Subjects,
    reason: Option<Reason>,
    details: Option<String>,
}

impl From<AuditEntry> for EntryView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { number, at, actor, action, subjects, reason, details } = entry;
        Self { number, at, actor, action, subjects, reason, details }
    }
}

/// `GET …/audit?action=&device=`, newest first.
pub(crate) async fn list(State(api): State<Arc<Api>>, Account(account): Account, query: Query) -> Outcome {
    let page = PageWish::from_query(&query)?;
    let (action, device) = (query.word("action")?, query.parse("device")?);
    let paging = page.paging();
    let found = api
        .read(move |reader| {
            // With one account everything is its own, what concerns the whole server too.
            let alone = reader.accounts()?.len() == 1;
            let filter = AuditFilter { account: (!alone).then_some(account), action, device };
            reader.audit(&filter, &paging)
        })
        .await?;
    let info = page.info(&found)?;
    let views: Vec<EntryView> = found.items.into_iter().map(EntryView::from).collect();
    Answer::list(&views, info)
}

/// Whether the chain holds; if so its length and head, which are worth noting elsewhere.
#[derive(Serialize, ToSchema)]
pub(crate) struct VerifiedView {
    sound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
    /// The first entry that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
}

/// `GET …/audit/verify`
pub(crate) async fn verify(State(api): State<Arc<Api>>, _: Account) -> Outcome {
    let view = match api.read(|reader| reader.verify_audit()).await? {
        Ok(verified) => VerifiedView {
            sound: true,
            count: Some(verified.count),
            head: Some(verified.head),
            broken_at: None,
            what: None,
        },
        Err(broken) => VerifiedView {
            sound: false,
            count: None,
            head: None,
            broken_at: Some(broken.number),
            what: Some(broken.what),
        },
    };
    Answer::one(&view)
}
