//! The state of a request, with its index: those that wait are listed per account and per
//! token, others by age.

use muster_policy::identity::{AccountId, RequestKey, TokenId};

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
        list_by_token(tables, waiting)?;
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
        if let Some(index) = by_token(waiting) {
            tables.remove(TableName::TokenWaiting, &index)?;
        }
        tables.count(waiting.account, |counters| counters.waiting = counters.waiting.saturating_sub(1))?;
        count_of_token(tables, waiting, |number| number.saturating_sub(1))?;
    } else {
        tables.remove(TableName::RequestAges, &keys::request_age(before.at(), key))?;
    }
    Ok(())
}

/// Lists those that wait by their tokens; for ledgers from before that was done.
pub(crate) fn build_by_token(tables: &mut Tables<'_>) -> Result<(), Fault> {
    // Their keys are held at once: they are no more than persons are to judge.
    for (index, _) in tables.rows(TableName::Waiting, &[], None, usize::MAX)? {
        if let Some(key) = keys::request_of(&index)
            && let Some(Request::Waiting(waiting)) = tables.get(&keys::request(key))?
        {
            list_by_token(tables, &waiting)?;
        }
    }
    Ok(())
}

/// The oldest request by a token that waits.
pub(super) fn oldest_of_token(
    tables: &mut Tables<'_>,
    account: AccountId,
    token: TokenId,
) -> Result<Option<Box<WaitingRequest>>, Fault> {
    let prefix = keys::token(account, token);
    let rows = tables.rows(TableName::TokenWaiting, &prefix, keys::after(&prefix).as_deref(), 1)?;
    let Some(key) = rows.first().and_then(|(index, _)| keys::request_of(index)) else { return Ok(None) };
    Ok(match tables.get(&keys::request(key))? {
        Some(Request::Waiting(waiting)) => Some(waiting),
        Some(Request::Approved { .. } | Request::Denied { .. }) | None => None,
    })
}

fn list_by_token(tables: &mut Tables<'_>, waiting: &WaitingRequest) -> Result<(), Fault> {
    match by_token(waiting) {
        Some(index) => tables.put_raw(TableName::TokenWaiting, &index, &[]),
        None => Ok(()),
    }
}

/// Its place among its token's; none when no token carries it.
pub(crate) fn by_token(waiting: &WaitingRequest) -> Option<Vec<u8>> {
    let token = waiting.caller.enrollment_token()?;
    Some(keys::token_waiting(waiting.account, token, waiting.since, waiting.key))
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
