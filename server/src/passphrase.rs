//! Where the passphrase of the CA keys comes from: a file, the environment, or the terminal.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use muster_ca::file_key::Passphrase;
use zeroize::Zeroizing;

/// The variable that may hold the passphrase.
pub const VARIABLE: &str = "MUSTER_CA_PASSPHRASE";
/// A passphrase file is one line; more is a mix-up of files.
const FILE_MAX_BYTES: u64 = 4096;

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// It is empty.
    #[error("the passphrase is empty")]
    Empty,
    /// The file can't be read.
    #[error("can't read the passphrase file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be one.
    #[error("the passphrase file {path} is larger than 4096 bytes")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The terminal can't be read.
    #[error("can't read the passphrase from the terminal")]
    Terminal(#[source] std::io::Error),
    /// The two entries differ.
    #[error("the two entries differ")]
    Differ,
}

/// From a file, else from the environment; none when neither is given.
///
/// # Errors
/// When what is given can't be used.
pub fn given(file: Option<&Path>) -> Result<Option<Passphrase>, PassphraseError> {
    if let Some(path) = file {
        return read_file(path).map(Some);
    }
    #[expect(clippy::disallowed_methods, reason = "the one setting that must not be in a file or in `ps`")]
    match std::env::var(VARIABLE) {
        Ok(text) if text.is_empty() => Err(PassphraseError::Empty),
        Ok(text) => Ok(Some(Passphrase::new(text))),
        Err(_) => Ok(None),
    }
}

/// From the terminal, once, to open keys that exist; none where there is no terminal.
///
/// # Errors
/// When the terminal can't be read.
pub fn asked() -> Result<Option<Passphrase>, PassphraseError> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let text =
        rpassword::prompt_password("Passphrase of the CA keys: ").map_err(PassphraseError::Terminal)?;
    checked(text).map(Some)
}

/// From the terminal, twice, to protect new keys.
///
/// # Errors
/// When the terminal can't be read, or the entries differ.
pub fn asked_twice() -> Result<Passphrase, PassphraseError> {
    let ask = |prompt: &str| rpassword::prompt_password(prompt).map_err(PassphraseError::Terminal);
    let first = Zeroizing::new(ask("New passphrase of the CA keys: ")?);
    let second = Zeroizing::new(ask("The same again: ")?);
    if *first != *second {
        return Err(PassphraseError::Differ);
    }
    checked(first.to_string())
}

fn read_file(path: &Path) -> Result<Passphrase, PassphraseError> {
    let failed = |source| PassphraseError::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX_BYTES {
        return Err(PassphraseError::FileTooLarge { path: path.to_owned() });
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    checked(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn checked(text: String) -> Result<Passphrase, PassphraseError> {
    if text.is_empty() { Err(PassphraseError::Empty) } else { Ok(Passphrase::new(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_line_and_not_empty() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("pass");
        std::fs::write(&path, "secret\n").expect("written");
        assert!(read_file(&path).is_ok());
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(read_file(&path), Err(PassphraseError::Empty)));
        std::fs::write(&path, vec![b'a'; 5000]).expect("written");
        assert!(matches!(read_file(&path), Err(PassphraseError::FileTooLarge { .. })));
        assert!(matches!(read_file(&temp.path().join("none")), Err(PassphraseError::File { .. })));
    }
}
