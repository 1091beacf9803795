//! The task that fetches lists when they are due.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::act::By;
use muster_store::record::{ForeignCa, ListFetch};
use tokio_util::sync::CancellationToken;

use crate::Api;

/// Lists fetched at a time: one whose address does not answer holds up few others.
const AT_ONCE: usize = 8;
/// The pause after the first failure; each next one is twice as long, up to the usual interval.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Shortest time between two fetches, and how often the ledger is asked which lists there are.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// A list that is fetched.
struct FetchedList {
    ca: CaId,
    url: String,
    known: ForeignCa,
    next_at: UnixTime,
}

/// Fetches the own lists of CAs when they are due, until `stop`.
pub async fn fetch_lists(api: Arc<Api>, stop: CancellationToken) {
    loop {
        let lists = fetched(&api).await;
        let now = api.now();
        let (due, later): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| list.next_at <= now);
        let soonest = later.iter().map(|list| list.next_at).min();
        let wait = match due.is_empty() {
            // What was fetched is due again at a time that is known afterwards.
            false => SHORTEST_WAIT,
            true => soonest.map_or(LOOK_INTERVAL, |at| at.since(now)).clamp(SHORTEST_WAIT, LOOK_INTERVAL),
        };
        let fetches = futures_util::stream::iter(due).for_each_concurrent(AT_ONCE, |list| {
            let api = Arc::clone(&api);
            async move {
                let (point, by) = (list.known.settings.point.clone(), By::system(api.now()));
                // How it went is noted and in the log.
                let _ = crate::lists::fetch(&api, (list.ca, &list.known), &list.url, point, by).await;
            }
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = fetches => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = api.lists().changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The lists that are fetched, and when each is due.
async fn fetched(api: &Api) -> Vec<FetchedList> {
    let account = api.registrar().account();
    let found = api.read(move |reader| {
        let cas = reader.cas(account)?;
        cas.into_iter().map(|ca| Ok((ca.id, reader.foreign_ca(ca.id)?))).collect::<Result<Vec<_>, _>>()
    });
    // What can't be read is in the log; it is asked again.
    let found = found.await.unwrap_or_default();
    let now = api.now();
    let due = found.into_iter().filter_map(|(ca, known)| {
        let url = known.settings.url.clone()?;
        let next_at = next_at(ca, &known, api.lists().last(ca, &known).as_ref(), now);
        Some(FetchedList { ca, url, known, next_at })
    });
    due.collect()
}

/// When the list of a CA is fetched next; `last` is the last fetch.
pub(crate) fn next_at(ca: CaId, known: &ForeignCa, last: Option<&ListFetch>, now: UnixTime) -> UnixTime {
    let times = [known.list.as_ref().map(|list| list.taken_at), last.map(|last| last.at)];
    // What a clock wrote that went ahead would put it off for long.
    match times.into_iter().flatten().filter(|at| *at <= now).max() {
        Some(at) => at.plus(pause(ca, known, last.map_or(0, |last| last.failures), at)),
        None => now,
    }
}

/// How long to wait after a fetch: less than until the list ends, and of each CA and fetch another part of it, so
/// that many servers do not come at once, while one that starts again comes to the same.
fn pause(ca: CaId, known: &ForeignCa, failures: u32, at: UnixTime) -> Duration {
    let every = Duration::from_secs(u64::from(known.settings.every_s)).max(LOOK_INTERVAL);
    let before_end = known.list.as_ref().map_or(every, |list| list.next_update.since(at) / 2);
    let usual = every.min(before_end.max(LOOK_INTERVAL));
    let wanted = match failures {
        0 => usual,
        failures => usual.min(FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(DOUBLINGS_MAX))),
    };
    let mut hasher = DefaultHasher::new();
    (ca, at).hash(&mut hasher);
    let [part, ..] = hasher.finish().to_le_bytes();
    wanted - wanted / JITTER_PART * u32::from(part) / 256
}

/// As often as that the pause doubles; then it is longer than any interval.
const DOUBLINGS_MAX: u32 = 16;
/// A pause is shorter by up to one part in so many.
const JITTER_PART: u32 = 5;
/// Clocks that stand still in tests must not make it spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use muster_policy::identity::Fingerprint;
    use muster_store::record::{Fetched, ForeignList, ListSettings, ListSource};

    use super::*;

    const CA: CaId = CaId::from_bytes([1; 16]);
    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn known(every_s: u32, ends_in_s: u64) -> ForeignCa {
        let list = ForeignList {
            number: Default::default(),
            this_update: NOW,
            next_update: NOW.plus(Duration::from_secs(ends_in_s)),
            fingerprint: Fingerprint::from_bytes([0; 32]),
            entries: 0,
            source: ListSource::Fetched,
            taken_at: NOW,
        };
        let settings = ListSettings { every_s, ..ListSettings::default() };
        ForeignCa { settings, list: Some(list), ..ForeignCa::default() }
    }

    #[test]
    fn pauses_grow_with_failures_and_end_before_the_list_does() {
        let within = |pause: Duration, most: u64| {
            let most = Duration::from_secs(most);
            assert!(pause <= most && pause >= most * 4 / 5, "{pause:?} of {most:?}");
        };
        let long = known(3_600, 1_000_000);
        for (failures, most) in [(0, 3_600), (1, 30), (2, 60), (4, 240), (9, 3_600), (u32::MAX, 3_600)] {
            within(pause(CA, &long, failures, NOW), most);
        }
        within(pause(CA, &known(3_600, 1_000), 0, NOW), 500);
        within(pause(CA, &known(3_600, 10), 0, NOW), 60);
        within(pause(CA, &known(1, 1_000_000), 0, NOW), 60);
    }

    #[test]
    fn the_next_fetch_follows_from_the_last_one_whichever_process_made_it() {
        let hourly = known(3_600, 1_000_000);
        let at = |span: u64| NOW.plus(Duration::from_secs(span));
        let fetch = |span, outcome, failures| ListFetch { at: at(span), outcome, message: None, failures };
        let next = |last: Option<&ListFetch>, now| next_at(CA, &hourly, last, now);
        // Never fetched, and its list taken from an upload: an hour after that.
        assert!((at(2_880)..=at(3_600)).contains(&next(None, at(10))));
        assert_eq!(next_at(CA, &ForeignCa::default(), None, at(10)), at(10));
        let unchanged = fetch(3_000, Fetched::Unchanged, 0);
        assert!((at(5_880)..=at(6_600)).contains(&next(Some(&unchanged), at(3_010))));
        assert_eq!(next(Some(&unchanged), at(3_010)), next(Some(&unchanged), at(9_000)), "it stays due");
        let failed = fetch(3_000, Fetched::Failed, 1);
        assert!((at(3_024)..=at(3_030)).contains(&next(Some(&failed), at(3_010))));
        // A clock that went ahead, and is right again.
        let ahead = fetch(9_000_000, Fetched::Unchanged, 0);
        assert!(next(Some(&ahead), at(10)) <= at(3_600));
        assert_eq!(next(Some(&ahead), NOW.minus(Duration::from_secs(1))), NOW.minus(Duration::from_secs(1)));
    }
}
