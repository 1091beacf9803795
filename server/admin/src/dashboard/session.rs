//! Who is logged in: sessions in memory, found by the hash of a random cookie.
//!
//! A session stands for an admin token, which is looked up again at every request: revoking the token
//! ends its sessions at once. A restart of the server ends all of them.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_enroll::{NoRandom, hash_secret, new_secret};
use muster_policy::identity::SecretHash;
use muster_policy::time::UnixTime;
use zeroize::Zeroizing;

/// A session that nobody used for so long has ended.
const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// Longest life of a session, however busy: a working day.
const LIFE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// Most sessions at once; the one that was idle longest makes room. Only right tokens open any.
const SESSIONS_MAX: usize = 1_000;

/// What a person is told on the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flash {
    Done(String),
    Failed(String),
}

/// Who asks within a session: pages that renew themselves would keep it open for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    ByPage,
    ByPerson,
}

/// What a request learns of its session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) key: SecretHash,
    /// Under which hash the admin token is stored.
    pub(crate) token: SecretHash,
    /// What every form of the session carries.
    pub(crate) csrf: Zeroizing<String>,
    pub(crate) flash: Option<Flash>,
}

struct Kept {
    session: Session,
    opened_at: UnixTime,
    used_at: UnixTime,
}

impl Kept {
    fn is_over(&self, now: UnixTime) -> bool {
        self.opened_at.plus(LIFE_MAX) <= now || self.used_at.plus(IDLE_MAX) <= now
    }
}

/// The open sessions.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<SecretHash, Kept>>);

impl Sessions {
    /// Opens a session for a token that was checked; returns the value of its cookie.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(crate) fn open(&self, token: SecretHash, now: UnixTime) -> Result<Zeroizing<String>, NoRandom> {
        let (cookie, csrf) = (new_secret("")?, new_secret("")?);
        let key = hash_secret(&cookie);
        let session = Session { key, token, csrf, flash: None };
        let mut kept = self.kept();
        kept.retain(|_, kept| !kept.is_over(now));
        while kept.len() >= SESSIONS_MAX {
            let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.used_at).map(|(key, _)| *key) else {
                break;
            };
            kept.remove(&oldest);
        }
        kept.insert(key, Kept { session, opened_at: now, used_at: now });
        Ok(cookie)
    }

    /// The session of a cookie, which counts as used now when a person asks.
    pub(crate) fn find(&self, cookie: &str, now: UnixTime, by: Use) -> Option<Session> {
        let key = hash_secret(cookie);
        let mut kept = self.kept();
        if kept.get(&key)?.is_over(now) {
            kept.remove(&key);
            return None;
        }
        let found = kept.get_mut(&key)?;
        if by == Use::ByPerson {
            found.used_at = now;
        }
        Some(found.session.clone())
    }

    /// Whether a session is open still.
    pub(crate) fn is_open(&self, key: SecretHash, now: UnixTime) -> bool {
        self.kept().get(&key).is_some_and(|kept| !kept.is_over(now))
    }

    pub(crate) fn close(&self, key: SecretHash) {
        self.kept().remove(&key);
    }

    /// Sets what the next page tells, or takes it away once it was told.
    pub(crate) fn set_flash(&self, key: SecretHash, flash: Option<Flash>) {
        if let Some(kept) = self.kept().get_mut(&key) {
            kept.session.flash = flash;
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<SecretHash, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: SecretHash = SecretHash::from_bytes([7; 32]);

    fn at(seconds: u64) -> UnixTime {
        UnixTime::EPOCH.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_ends_when_idle_and_at_the_end_of_the_day() {
        let sessions = Sessions::default();
        let cookie = sessions.open(TOKEN, at(0)).expect("random numbers");
        assert!(sessions.find(&cookie, at(29 * 60), Use::ByPerson).is_some());
        assert!(sessions.find(&cookie, at(60 * 60), Use::ByPerson).is_none(), "idle for 31 minutes");
        let cookie = sessions.open(TOKEN, at(0)).expect("random numbers");
        let busy = (1..).map(|step| at(step * 1_000)).take_while(|now| *now < at(12 * 3_600));
        for now in busy {
            assert!(sessions.find(&cookie, now, Use::ByPerson).is_some(), "{now}");
        }
        assert!(sessions.find(&cookie, at(12 * 3_600), Use::ByPerson).is_none(), "the day is over");
    }

    #[test]
    fn a_page_that_renews_itself_keeps_no_session_open() {
        let sessions = Sessions::default();
        let cookie = sessions.open(TOKEN, at(0)).expect("random numbers");
        let key = hash_secret(&cookie);
        assert!(
            sessions.find(&cookie, at(29 * 60), Use::ByPage).is_some() && sessions.is_open(key, at(29 * 60))
        );
        assert!(!sessions.is_open(key, at(31 * 60)));
        assert!(sessions.find(&cookie, at(31 * 60), Use::ByPage).is_none());
    }

    #[test]
    fn only_so_many_are_kept_and_the_idlest_goes() {
        let sessions = Sessions::default();
        let first = sessions.open(TOKEN, at(0)).expect("random numbers");
        let second = sessions.open(TOKEN, at(1)).expect("random numbers");
        assert!(sessions.find(&first, at(2), Use::ByPerson).is_some());
        for _ in 2..=SESSIONS_MAX {
            sessions.open(TOKEN, at(3)).expect("random numbers");
        }
        assert!(
            sessions.find(&second, at(4), Use::ByPerson).is_none()
                && sessions.find(&first, at(4), Use::ByPerson).is_some()
        );
    }

    #[test]
    fn a_cookie_of_nobody_finds_nothing() {
        let sessions = Sessions::default();
        let cookie = sessions.open(TOKEN, at(0)).expect("random numbers");
        assert!(sessions.find("x", at(1), Use::ByPerson).is_none());
        sessions.close(hash_secret(&cookie));
        assert!(sessions.find(&cookie, at(1), Use::ByPerson).is_none(), "closed");
    }
}
