//! Opening the account of a data directory. One process has it at a time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backon::{ConstantBuilder, Retryable as _};
use muster_ca::file_key::{FileKeyError, Passphrase};
use muster_enroll::{Authority, AuthorityError, Clock, KeyFolder, Metrics, Registrar, Settings};
use muster_policy::identity::AccountId;
use muster_store::{Ledger, OpenError, Options};
use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::datadir::DataDir;
use crate::passphrase;

/// How often one tries, and how many times: for ten seconds. A command without a server has the ledger for a moment,
/// a server that stops until it has answered what was asked.
const EVERY: Duration = Duration::from_millis(50);
const TRIES_MAX: usize = 200;

/// Does what opens the ledger, as soon as nobody else has it.
///
/// # Errors
/// Those of `attempt`; that the ledger [is in use](is_in_use) only after ten seconds of it.
pub(crate) async fn in_turn<T, F>(attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let every = ConstantBuilder::default().with_delay(EVERY).with_max_times(TRIES_MAX);
    attempt.retry(every).sleep(tokio::time::sleep).when(is_in_use).await
}

/// Whether another process has the ledger.
pub(crate) fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::AlreadyOpen { .. }))
}

/// Opens the account: ledger, CAs, pipeline; with the registry that the pipeline's figures are in.
///
/// # Errors
/// In words: no account there, in use, broken, keys that can't be opened.
pub fn account(dir: &DataDir, config: &Config, clock: &Clock) -> anyhow::Result<(Arc<Registrar>, Registry)> {
    let options = Options { cache_bytes: config.ledger_cache_bytes };
    let ledger = Ledger::open(&dir.ledger(), options, clock.now())?;
    let account = ledger.reader()?.accounts()?.first().map(|account| account.id);
    let account = account.context("the ledger has no account; create one with `muster init`")?;
    let authority = open_authority(dir, config, clock, &ledger, account)?;
    let mut registry = Registry::with_prefix("muster");
    let metrics = Arc::new(Metrics::new(&mut registry));
    let settings = Settings {
        account,
        default_profile: config.default_profile.clone(),
        first_window: config.first_window,
        renewal_window: config.renewal_window,
        approval_retry: config.approval_retry,
        approvals_max: config.approvals_max,
        admission: config.admission,
    };
    let registrar = Registrar::new(ledger, Arc::new(authority), clock.clone(), metrics, settings);
    Ok((Arc::new(registrar), registry))
}

/// The passphrase is asked for at the terminal only when the keys turn out to need one.
fn open_authority(
    dir: &DataDir,
    config: &Config,
    clock: &Clock,
    ledger: &Ledger,
    account: AccountId,
) -> anyhow::Result<Authority> {
    let open = |passphrase: Option<Passphrase>| {
        let keys = KeyFolder::new(dir.keys(), passphrase);
        Authority::open(ledger.clone(), account, keys, clock.clone(), config.crl_url_base.clone())
    };
    match open(passphrase::given(config.passphrase_file.as_deref())?) {
        Err(AuthorityError::Key(FileKeyError::PassphraseNeeded)) => match passphrase::asked()? {
            Some(passphrase) => Ok(open(Some(passphrase))?),
            None => anyhow::bail!(
                "the CA keys are encrypted; give ca.passphrase_file in muster.toml or {}",
                passphrase::VARIABLE
            ),
        },
        opened => Ok(opened?),
    }
}
