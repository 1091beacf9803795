//! Requests that carried an idempotency key, so that a repeat gets the answer of the first.

use muster_policy::identity::{RequestKey, SecretHash};
use muster_policy::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::tables::{Record, TableName};

/// A request under an idempotency key, begun or answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequest {
    /// Hash of the bearer token that sent it; keys are the token's own.
    pub token: SecretHash,
    /// Hash of the key.
    pub key: SecretHash,
    /// Hash of the request, to tell a repeat from another request.
    pub request: RequestKey,
    /// When it came first.
    pub at: UnixTime,
    /// Its answer, sealed by the caller of the ledger; none until it is known.
    pub answer: Option<ByteBuf>,
}

impl Record for KeyedRequest {
    const TABLE: TableName = TableName::KeyedRequests;
}

/// How much is kept for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyedUse {
    /// Requests.
    pub(crate) count: u64,
    /// Octets of their answers.
    pub(crate) bytes: u64,
}

impl Record for KeyedUse {
    const TABLE: TableName = TableName::KeyedUses;
}
