//! Muster: every device of a fleet gets a certificate from your own CA, checked at the door.
//!
//! This package wires the parts of the server together and is the `muster` command. It holds no
//! rules of its own: policy decides, `ca` builds, `store` remembers, `enroll` issues, `admin` shows.
//!
//! * [`config`], [`datadir`], [`passphrase`]: what an operator sets, and where things lie.
//! * [`init`], [`open`], [`serve`], [`backup`]: making, opening, running and saving an account. Programs that embed a
//!   server use [`serve::Server`], and hand it a [`Clock`].
//! * [`cli`]: the command line. Commands that read or change the account are clients of the admin API, over HTTP while
//!   a server runs and in process otherwise, so both ways are one implementation.
//! * `settings`: every setting with its default, as `muster settings` prints it.
//! * `edge`: the edge and the broker in this process, how they follow the ledger, and how edges in others do.
//! * [`server_tls`], [`est_tls`], [`serving`], [`telemetry`]: the server's own certificate, note and log.
//! * `outbound`, `webhooks`: where the server may connect to by itself, and what signs and trusts its webhooks.
//! * `plain_http`: listeners without TLS, for the admin API and for CRLs.

pub mod backup;
pub mod cli;
pub mod config;
pub mod datadir;
mod edge;
pub mod est_tls;
pub mod init;
pub mod open;
mod outbound;
pub mod passphrase;
mod plain_http;
pub mod serve;
pub mod server_tls;
pub mod serving;
mod settings;
pub mod telemetry;
mod webhooks;

pub use muster_enroll::Clock;
