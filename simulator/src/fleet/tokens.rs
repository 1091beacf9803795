//! Where a device's first credential comes from: one claim token for all, a file, a command, or the account's API.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::api::Api;

/// As the command line says it.
#[derive(Clone, Debug)]
pub(crate) enum TokenSource {
    /// The admin API of our server makes a claim token for all; its own token is in a file.
    Api { url: String, token_file: PathBuf },
    /// A command line, run for each device, prints the token; `{device}` in it is the device's id.
    Command(String),
    /// Lines of `DEVICE TOKEN`, with a comma or white space between.
    File(PathBuf),
    /// None: the devices hold certificates.
    Nothing,
    /// One token for all.
    Same(String),
}

/// Ready to give tokens out.
pub(crate) enum Tokens {
    Command { line: String, at_once: Semaphore },
    Listed(HashMap<String, String>),
    Nothing,
    Same(String),
}

impl TokenSource {
    /// Gets ready for `devices` devices.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn open(self, devices: usize) -> anyhow::Result<Tokens> {
        Ok(match self {
            Self::Api { url, token_file } => Tokens::Same(claim_token(&url, &token_file, devices).await?),
            Self::Command(line) => Tokens::Command { line, at_once: Semaphore::new(COMMANDS_AT_ONCE) },
            Self::File(path) => {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("can't read {}", path.display()))?;
                Tokens::Listed(listed(&text).with_context(|| path.display().to_string())?)
            }
            Self::Nothing => Tokens::Nothing,
            Self::Same(token) => Tokens::Same(token),
        })
    }
}

impl Tokens {
    /// The token of a device; `None` when devices have none.
    ///
    /// # Errors
    /// When there is none for this device, or the command failed.
    pub(crate) async fn of(&self, device: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::Command { line, at_once } => {
                let _turn = at_once.acquire().await?;
                run(&line.replace("{device}", device)).await.map(Some)
            }
            Self::Listed(tokens) => tokens
                .get(device)
                .cloned()
                .map(Some)
                .with_context(|| format!("there is no token for {device}")),
            Self::Nothing => Ok(None),
            Self::Same(token) => Ok(Some(token.clone())),
        }
    }
}

async fn run(line: &str) -> anyhow::Result<String> {
    let output =
        Command::new("sh").args(["-c", line]).stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    anyhow::ensure!(output.status.success(), "the token command failed");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().to_owned())
}

fn listed(text: &str) -> anyhow::Result<HashMap<String, String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let parts = line.split_once(|c: char| c == ',' || c.is_whitespace());
            let (device, token) = parts.with_context(|| "a line is not DEVICE TOKEN")?;
            Ok((device.trim().to_owned(), token.trim().to_owned()))
        })
        .collect()
}

/// Asks the account's API for a token that `devices` devices may claim.
async fn claim_token(url: &str, token_file: &Path, devices: usize) -> anyhow::Result<String> {
    let secret = std::fs::read_to_string(token_file)
        .with_context(|| format!("can't read {}", token_file.display()))?;
    Api::open(url, secret.trim()).await?.claim_token(devices).await
}

/// A process each: more at once would only slow each other down.
const COMMANDS_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_come_from_lines_and_commands() {
        let tokens = Tokens::Listed(listed("# fleet\na,t-1\nb  t-2\n\n").expect("lines"));
        assert_eq!(tokens.of("b").await.expect("listed").as_deref(), Some("t-2"));
        assert!(tokens.of("c").await.is_err());
        assert!(listed("only-one-word").is_err());
        let command =
            TokenSource::Command("printf 'for-%s\\n' {device}".into()).open(1).await.expect("opens");
        assert_eq!(command.of("dev-1").await.expect("runs").as_deref(), Some("for-dev-1"));
    }
}
