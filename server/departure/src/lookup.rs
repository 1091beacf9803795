//! Look-ups of names by the system's resolver, few at a time.
//!
//! The resolver takes a thread for as long as it looks, some ten seconds and more for a name whose servers do not
//! answer, and nothing ends that. The threads are those on which the runtime does all that may not wait: were
//! there no bound, one such name would hold up everything else of the process. So a name is looked up once for
//! all who ask for it meanwhile, only so many names are at once, and whoever waits does so for a time. A look-up
//! that nobody waits for any more keeps its place until its thread is free.
//!
//! What such a late one finds is kept. A resolver whose first server is dead takes longer for each name than anybody
//! waits, and always the same time: nothing that has a name would ever be reached, if all began anew. So an answer is
//! taken for fresh for some seconds, and after that serves whoever would otherwise go without (RFC 8767): also where
//! the look-up fails at once, as without a network. The standard library's error does not tell that from a name that is
//! no more, which is then reached for a while yet.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Those of the whole process: far from all of the 512 threads that a tokio runtime has for what blocks.
pub(crate) static LOOK_UPS: LazyLock<LookUps> = LazyLock::new(|| LookUps::new(64, Duration::from_secs(5)));

/// Names whose last answer is kept.
const KEPT_MOST: usize = 1024;
/// For so long nobody asks again.
const FRESH: Duration = Duration::from_secs(10);
/// For so long an answer is better than none: the least that RFC 8767 section 5 recommends.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How long one waits for a newer answer (the "client response timer" there).
const PATIENCE_WITH_STALE: Duration = Duration::from_millis(1800);

type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;
type Answer = watch::Receiver<Option<Found>>;

/// The look-ups that run.
pub(crate) struct LookUps {
    places: Semaphore,
    /// How long one waits for an answer, and before that for a place.
    patience: Duration,
    /// A name is here exactly as long as its [`LookUp`] lives.
    running: Mutex<BTreeMap<String, Answer>>,
    /// What each name led to, and when it did.
    kept: Cache<String, (Instant, Vec<SocketAddr>)>,
}

impl LookUps {
    fn new(most: usize, patience: Duration) -> Self {
        Self {
            places: Semaphore::new(most),
            patience,
            running: Mutex::new(BTreeMap::new()),
            kept: Cache::new(KEPT_MOST),
        }
    }

    /// The addresses of a name, all with port 0.
    ///
    /// # Errors
    /// What the resolver says, or that it did not say anything in time, if it gave no answer today either.
    pub(crate) async fn addresses_of(&'static self, name: &str) -> Found {
        self.find(name, |name| (name, 0).to_socket_addrs().map(Iterator::collect)).await
    }

    async fn find<A>(&'static self, name: &str, ask: A) -> Found
    where
        A: FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        let (patience, stale) = match self.kept.get(name).map(|(at, found)| (at.elapsed(), found)) {
            Some((age, found)) if age < FRESH => return Ok(found),
            Some((age, found)) if age < STALE => (self.patience.min(PATIENCE_WITH_STALE), Some(found)),
            _ => (self.patience, None),
        };
        let found = async {
            let mut answer = match self.begun(name) {
                Some(answer) => answer,
                // Without a place there is no look-up; the semaphore is never closed.
                None => self.begin(name, self.places.acquire().await.map_err(io::Error::other)?, ask),
            };
            let found = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?;
            // It is there, as waited for.
            found.clone().unwrap_or_else(|| Ok(Vec::new()))
        };
        let late = || io::Error::new(ErrorKind::TimedOut, "the name was not looked up in time").into();
        let found = tokio::time::timeout(patience, found).await.unwrap_or_else(|_| Err(late()));
        found.or_else(|error| stale.ok_or(error))
    }

    fn begun(&self, name: &str) -> Option<Answer> {
        self.running().get(name).cloned()
    }

    /// Begins, unless somebody else did while a place was waited for.
    fn begin<A>(&'static self, name: &str, place: SemaphorePermit<'static>, ask: A) -> Answer
    where
        A: FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        let mut running = self.running();
        if let Some(answer) = running.get(name) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        running.insert(name.to_owned(), answer.clone());
        drop(running);
        let look_up = LookUp { all: self, name: name.to_owned(), tell, _place: place };
        tokio::task::spawn_blocking(move || {
            let found = ask(&look_up.name).map_err(Arc::new);
            if let Ok(found) = &found {
                look_up.all.kept.insert(look_up.name.clone(), (Instant::now(), found.clone()));
            }
            look_up.tell.send_replace(Some(found));
        });
        answer
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Answer>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that runs, or waits for its thread; it leaves also when the runtime ends before.
struct LookUp {
    all: &'static LookUps,
    name: String,
    tell: watch::Sender<Option<Found>>,
    _place: SemaphorePermit<'static>,
}

impl Drop for LookUp {
    fn drop(&mut self) {
        self.all.running().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn look_ups(most: usize, patience: Duration) -> &'static LookUps {
        Box::leak(Box::new(LookUps::new(most, patience)))
    }

    /// A resolver that answers when the other end of `until` is dropped.
    fn silent(until: Receiver<()>) -> impl FnOnce(&str) -> io::Result<Vec<SocketAddr>> + Send + 'static {
        move |_| {
            let _ = until.recv();
            Ok(Vec::new())
        }
    }

    fn quick(_: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_ask_meanwhile() {
        let (all, asked) = (look_ups(9, LONG), Arc::new(AtomicUsize::new(0)));
        let (answers, until) = sync_channel::<()>(0);
        let (until, counted) = (Arc::new(Mutex::new(until)), Arc::clone(&asked));
        let ask = move |_: &str| {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = until.lock().expect("not poisoned").recv();
            quick("")
        };
        let found = (0..20).map(|_| tokio::spawn(all.find("a.example", ask.clone()))).collect::<Vec<_>>();
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        drop(answers);
        for found in found {
            assert_eq!(found.await.expect("no panic").expect("found").len(), 1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        all.find("a.example", ask).await.expect("found");
        assert_eq!(asked.load(Ordering::Relaxed), 1, "a fresh answer is not asked for again");
    }

    /// As with a resolver whose first server is dead: no answer ever comes in time.
    #[tokio::test]
    async fn an_answer_that_comes_too_late_serves_whoever_asks_next() {
        let all = look_ups(9, Duration::from_millis(50));
        let (answer, until) = sync_channel(0);
        let ask = move |_: &str| until.recv().map_err(io::Error::other).and_then(|()| quick(""));
        all.find("a.example", ask).await.expect_err("late");
        answer.send(()).expect("it still runs");
        while !all.running().is_empty() {
            tokio::task::yield_now().await;
        }
        let (_held, until) = sync_channel(0);
        assert_eq!(all.find("a.example", silent(until)).await.expect("kept").len(), 1);
    }

    #[tokio::test]
    async fn a_stale_answer_is_better_than_none_and_worse_than_a_newer_one() {
        let all = look_ups(9, Duration::from_millis(50));
        let keep = |age| {
            let at = Instant::now().checked_sub(age).expect("a time before");
            all.kept.insert("a.example".to_owned(), (at, quick("").expect("found")));
        };
        keep(FRESH);
        let (held, until) = sync_channel(0);
        assert_eq!(all.find("a.example", silent(until)).await.expect("stale").len(), 1);
        drop(held);
        while !all.running().is_empty() {
            tokio::task::yield_now().await;
        }
        keep(FRESH);
        let newer = all.find("a.example", |_: &str| Ok(Vec::new())).await;
        assert!(newer.expect("the resolver knows better").is_empty());
    }

    /// As with a resolver that can't be reached at all.
    #[tokio::test]
    async fn a_look_up_that_fails_at_once_is_made_up_for_by_a_stale_answer_within_its_bound() {
        let all = look_ups(9, LONG);
        let fails = |_: &str| Err(io::Error::other("Temporary failure in name resolution"));
        for (name, age) in [("a.example", FRESH), ("b.example", STALE)] {
            let at = Instant::now().checked_sub(age).expect("a time before");
            all.kept.insert(name.to_owned(), (at, quick("").expect("found")));
        }
        assert_eq!(all.find("a.example", fails).await.expect("stale").len(), 1);
        assert_eq!(all.find("b.example", fails).await.expect_err("too old").kind(), ErrorKind::Other);
        all.find("c.example", fails).await.expect_err("none was kept");
    }

    /// They hold threads however long nobody has waited for them.
    #[tokio::test]
    async fn names_that_nobody_answers_for_take_no_more_than_the_places() {
        let all = look_ups(2, Duration::from_millis(50));
        let (mut held, mut begun) = (Vec::new(), 0);
        for name in ["a.example", "b.example", "c.example", "a.example"] {
            let (answers, until) = sync_channel(0);
            held.push(answers);
            let late = all.find(name, silent(until)).await.expect_err("no answer");
            assert_eq!(late.kind(), ErrorKind::TimedOut);
            begun = begun.max(all.running().len());
        }
        assert_eq!((begun, all.places.available_permits()), (2, 0));
        drop(held);
        while all.places.available_permits() < 2 {
            tokio::task::yield_now().await;
        }
        assert!(all.running().is_empty());
        assert_eq!(all.find("c.example", quick).await.expect("found").len(), 1);
    }

    #[test]
    fn a_look_up_that_ends_with_its_runtime_leaves_nothing_behind() {
        let (all, runtime) = (look_ups(2, LONG), tokio::runtime::Runtime::new().expect("a runtime"));
        let (answers, until) = sync_channel(0);
        runtime.spawn(all.find("a.example", silent(until)));
        while all.begun("a.example").is_none() {
            std::thread::yield_now();
        }
        drop(answers);
        drop(runtime);
        assert!(all.running().is_empty());
        assert_eq!(all.places.available_permits(), 2);
    }
}
