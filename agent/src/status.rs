//! What the agent says of itself in `DIR/status.json`, for `muster-agent status` and for monitoring.
//!
//! Written whole at each change; its reader needs no running agent. What it says about the certificate is
//! read from the slots instead, so that it is right even when the file is old.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::files::{Durability, Folder};

/// The file.
const FILE_NAME: &str = "status.json";
/// Failures that are kept, the newest last.
const FAILURES: usize = 5;
/// A page of text.
const STATUS_MAX_BYTES: u64 = 64 << 10;

/// What is known of the agent's work.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where the enrollment stands, in a word.
    pub state: String,
    /// When it came to stand there; Unix seconds, as all times here.
    pub since: u64,
    /// The generation of the identity in use.
    pub generation: Option<u32>,
    /// When the next try is due, if one is.
    pub next_try_at: Option<u64>,
    /// Certificates obtained since the agent started.
    pub obtained: u64,
    /// How local traffic is carried, when it is.
    #[serde(default)]
    pub carry: Option<serde_json::Value>,
    /// What went wrong last, the newest at the end; empty again after a success.
    pub failures: Vec<Noted>,
    /// What somebody has to change before anything can come of further tries; none once one succeeded.
    #[serde(default)]
    pub stuck: Option<Stuck>,
}

/// Tries that fail for a reason that repeating them does not cure.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// When the first of them failed.
    pub since: u64,
    /// How many did.
    pub tries: u64,
    /// Why the last one did, and what to do.
    pub what: String,
}

/// Something that went wrong.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Noted {
    /// When.
    pub at: u64,
    /// What, and what to do.
    pub what: String,
}

impl Status {
    /// Reads what an agent wrote last; `None` when none ever did, or it is no status.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        let bytes = Folder::open(dir).ok()?.read(FILE_NAME, STATUS_MAX_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        Folder::open(dir)?.replace(FILE_NAME, &bytes, Durability::Passing)
    }

    /// Notes for a service that does not run that a command got a certificate: what the service failed at is over.
    pub fn succeeded(dir: &Path) {
        if let Some(mut status) = Self::read(dir) {
            status.forget_failures();
            // Nothing depends on it: the service writes its own when it starts.
            let _ = status.write(dir);
        }
    }

    /// Notes a try that failed and will fail again until somebody changes something.
    pub fn note_lasting(&mut self, at: u64, what: &str) {
        let before = self.stuck.take();
        self.stuck = Some(Stuck {
            since: before.as_ref().map_or(at, |stuck| stuck.since),
            tries: before.map_or(1, |stuck| stuck.tries.saturating_add(1)),
            what: what.to_owned(),
        });
        self.note(at, what);
    }

    /// Notes that a try came to something.
    pub fn forget_failures(&mut self) {
        self.failures.clear();
        self.stuck = None;
    }

    /// Notes a failure; the oldest gives way.
    pub fn note(&mut self, at: u64, what: &str) {
        if self.failures.len() >= FAILURES {
            self.failures.remove(0);
        }
        self.failures.push(Noted { at, what: what.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_failures_are_kept_and_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Status::read(folder.path()), None);
        let mut status = Status { state: "holding".to_owned(), ..Status::default() };
        (0..9).for_each(|at| status.note(at, "no route"));
        assert_eq!(status.failures.first().map(|noted| noted.at), Some(4));
        (20..23).for_each(|at| status.note_lasting(at, "revoked"));
        let stuck = Stuck { since: 20, tries: 3, what: "revoked".to_owned() };
        assert_eq!(status.stuck, Some(stuck), "it counts from the first on");
        assert_eq!(status.failures.len(), FAILURES);
        status.write(folder.path()).expect("written");
        assert_eq!(Status::read(folder.path()), Some(status.clone()));
        status.forget_failures();
        assert_eq!((status.failures.len(), status.stuck), (0, None));
    }
}
