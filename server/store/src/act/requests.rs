//! The state of a request, with its index: those that wait are listed per account, others by age.

use muster_policy::identity::RequestKey;

use crate::keys;
use crate::record::{Request, Token, WaitingRequest};
use crate::tables::{TableName, Tables};
use crate::transaction::Fault;

/// Puts a request into a state, whatever its state was.
pub(super) fn set(
    tables: &mut Tables<'_>,
    key: RequestKey,
    before: Option<&Request>,
    after: &Request,
) -> Result<(), Fault> {
    if let Some(before) = before {
        unindex(tables, key, before)?;
    }
    if let Request::Waiting(waiting) = after {
        let index = keys::waiting(waiting.account, waiting.since, key);
        tables.put_raw(TableName::Waiting, &index, &[])?;
        tables.count(waiting.account, |counters| counters.waiting = counters.waiting.saturating_add(1))?;
        count_of_token(tables, waiting, |number| number.saturating_add(1))?;
    } else {
        tables.put_raw(TableName::RequestAges, &keys::request_age(after.at(), key), &[])?;
    }
    tables.put(&keys::request(key), after)
}

/// Forgets a request.
pub(super) fn remove(tables: &mut Tables<'_>, key: RequestKey, before: &Request) -> Result<(), Fault> {
    unindex(tables, key, before)?;
    tables.remove(TableName::Requests, &keys::request(key))?;
    Ok(())
}

fn unindex(tables: &mut Tables<'_>, key: RequestKey, before: &Request) -> Result<(), Fault> {
    if let Request::Waiting(waiting) = before {
        tables.remove(TableName::Waiting, &keys::waiting(waiting.account, waiting.since, key))?;
        tables.count(waiting.account, |counters| counters.waiting = counters.waiting.saturating_sub(1))?;
        count_of_token(tables, waiting, |number| number.saturating_sub(1))?;
    } else {
        tables.remove(TableName::RequestAges, &keys::request_age(before.at(), key))?;
    }
    Ok(())
}

/// Moves the number of requests by a token that wait; the token may be gone, or there is none.
fn count_of_token(
    tables: &mut Tables<'_>,
    waiting: &WaitingRequest,
    change: impl FnOnce(u32) -> u32,
) -> Result<(), Fault> {
    let Some(id) = waiting.caller.enrollment_token() else { return Ok(()) };
    let key = keys::token(waiting.account, id);
    if let Some(mut token) = tables.get::<Token>(&key)? {
        token.waiting = change(token.waiting);
        tables.put(&key, &token)?;
    }
    Ok(())
}
