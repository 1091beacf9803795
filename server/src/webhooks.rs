//! What the server gives for webhooks: the secret they are signed with, and how often they are tried.

use std::path::Path;
use std::time::Duration;

use muster_admin::WebhookSettings;
use muster_ca::file_key::FileKeyError;
use muster_enroll::{Authority, AuthorityError};
use zeroize::Zeroizing;

use crate::datadir::{DataDir, WEBHOOKS_KEY};
use crate::passphrase;

/// The pause after a delivery failed for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Tries of a delivery: with pauses of 1 s, 4 s, and so on, the last one is some 23 minutes after the first.
const ATTEMPTS: u32 = 7;

/// Reads the settings; the secret is made when there is none yet.
///
/// # Errors
/// In words, when a file can't be read or made.
pub(crate) fn settings(dir: &DataDir, authority: &Authority) -> anyhow::Result<WebhookSettings> {
    let secret = authority.secret(WEBHOOKS_KEY).map_err(|error| unusable(&dir.webhooks_key(), error))?;
    Ok(WebhookSettings {
        secret: Zeroizing::new(secret.to_vec()),
        first_pause: FIRST_PAUSE,
        attempts: ATTEMPTS,
    })
}

fn unusable(path: &Path, error: AuthorityError) -> anyhow::Error {
    let path = path.display();
    match error {
        AuthorityError::Key(FileKeyError::PassphraseNeeded) => anyhow::anyhow!(
            "{path} is encrypted; give ca.passphrase_file in muster.toml or {}",
            passphrase::VARIABLE
        ),
        AuthorityError::Key(FileKeyError::PassphraseWrong) => {
            anyhow::anyhow!("the passphrase does not open {path}; give the one that it was written with")
        }
        AuthorityError::Key(error @ FileKeyError::File { .. }) => error.into(),
        other => anyhow::anyhow!(
            "{path} is broken ({other}); restore it from a backup, or remove it and make all webhooks anew"
        ),
    }
}
