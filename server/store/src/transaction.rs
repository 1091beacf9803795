//! What a transaction is, and how one can fail.
//!
//! A transaction checks everything first and writes afterwards: a refusal after the first write is a
//! bug, and the committer treats it as one, because its neighbours in the batch share the commit.

use muster_policy::reason::Reason;

use crate::tables::Tables;

/// A named change of the ledger: all of it happens, or nothing.
///
/// `apply` may run more than once when a neighbour in the batch turns out to be broken, so it has no
/// effect but through `tables`. It must not return [`Failed::Refused`] after it wrote.
pub trait Transaction: Send + 'static {
    /// The name in logs.
    const NAME: &'static str;
    /// What the caller gets once the change is durable.
    type Output: Send + 'static;
    /// Why the change was refused; nothing was written then.
    type Refused: core::fmt::Debug + Send + 'static;

    /// Checks, then writes.
    ///
    /// # Errors
    /// [`Failed::Refused`] before anything was written, [`Failed::Fault`] when the store fails.
    fn apply(&self, tables: &mut Tables<'_>) -> Result<Self::Output, Failed<Self::Refused>>;
}

/// Why `apply` did not succeed.
#[derive(Debug)]
pub enum Failed<R> {
    /// The rules say no.
    Refused(R),
    /// The store can't.
    Fault(Fault),
}

impl<R> From<Fault> for Failed<R> {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A failure of the store itself.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A record is not what its table says; the file needs `check`, and perhaps a backup.
    #[error("a record of table `{table}` can't be read: {what}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What the decoder said.
        what: String,
    },
    /// The ledger is being reopened after a failure, or was closed.
    #[error("the ledger is not open now")]
    NotOpen,
    /// Reading or writing the file failed.
    #[error("the ledger's file: {0}")]
    Storage(redb::StorageError),
}

impl From<redb::StorageError> for Fault {
    fn from(error: redb::StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<redb::TableError> for Fault {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(storage) => Self::Storage(storage),
            other => Self::Corrupt { table: "catalogue", what: other.to_string() },
        }
    }
}

impl From<redb::TransactionError> for Fault {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(storage) => Self::Storage(storage),
            other => Self::Corrupt { table: "catalogue", what: other.to_string() },
        }
    }
}

impl From<redb::CommitError> for Fault {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(storage) => Self::Storage(storage),
            other => Self::Corrupt { table: "catalogue", what: other.to_string() },
        }
    }
}

/// What a submitter is told instead of an output.
#[derive(Debug, thiserror::Error)]
pub enum Error<R> {
    /// The transaction broke a rule of the ledger's code; it was undone. The log has more.
    #[error("internal ledger error; nothing was changed")]
    Internal,
    /// Too much is waiting; nothing was changed.
    #[error("the ledger is overloaded")]
    Overloaded,
    /// The rules say no; nothing was changed.
    #[error("refused: {0:?}")]
    Refused(R),
    /// The change could not be made durable: it is whole or absent, and was never acknowledged.
    #[error("the ledger can't store the change: {0}")]
    Unavailable(String),
}

impl Error<Reason> {
    /// The reason to answer with.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused(reason) => *reason,
            Self::Overloaded => Reason::Overloaded,
            Self::Internal | Self::Unavailable(_) => Reason::LedgerUnavailable,
        }
    }
}
