//! Descriptors: the limit of this machine, raised as far as it goes.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one.
pub(super) fn raise() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What can't be raised stays; `connections` asks again.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many connections this process can hold.
pub(super) fn connections() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(RESERVE).max(1)
}

/// For files, pipes and the runtime.
const RESERVE: usize = 256;
