//! The ledger: everything Muster must not forget, in one redb file.
//!
//! A change is a *named transaction* (`act`), applied by one committer thread. It gathers what is
//! waiting into one redb commit with one fsync, and answers only when that is on the disk.
//! Reads are snapshots ([`Reader`]) and never wait for writers.
//!
//! What always holds, and [`check`](Ledger::check) verifies on a file:
//!
//! 1. **Intent before signature.** [`act::BeginIssue`] stores what is going to be signed before a
//!    signer is called; [`act::CompleteIssue`] refuses a certificate without its intent.
//! 2. **Durable before answer.** A transaction's output is handed out after the commit that holds it
//!    was fsynced. An error of kind [`Error::Unavailable`] means: not acknowledged.
//! 3. **Same request, same certificate.** A request's key is kept with its certificate; inside the
//!    window, and while the certificate is good, the same key yields the same certificate.
//! 4. **A token yields at most `uses_allowed` certificates**, however many callers present it at once:
//!    a use is reserved with the intent, in the same transaction.
//! 5. **A failed request uses up nothing.** Abandoning an intent, or finding one at start-up that a
//!    crash left behind, gives the token's use back.
//! 6. **Change numbers have no gaps** and grow in commit order.
//! 7. **The audit is a hash chain**: each entry's hash covers the previous one's, head and count are
//!    kept apart from the entries.
//! 8. **A serial is used once per CA.**
//! 9. **Indexes and counters agree with the records**: they change in the same transaction.
//!
//! Time is an argument everywhere; nothing here owns a clock or makes random numbers.
//! What it may import says `tests/system/architecture.rs`.

pub mod act;
mod audit;
mod backup;
mod check;
mod codec;
mod committer;
mod keys;
mod ledger;
mod mark;
mod migration;
pub mod reader;
pub mod record;
mod stats;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;

pub use audit::{AuditBreak, AuditVerified};
pub use backup::BackupError;
pub use check::{CheckError, Checked};

pub use ledger::{Ledger, OpenError, Options};
pub use migration::SCHEMA_VERSION;
pub use reader::Reader;
pub use stats::Stats;
pub use tables::Tables;
pub use transaction::{Error, Failed, Fault, Transaction};
