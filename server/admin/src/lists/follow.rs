//! The task that fetches lists when they are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use muster_policy::identity::CaId;
use muster_policy::time::UnixTime;
use muster_store::act::By;
use muster_store::record::ForeignCa;
use tokio_util::sync::CancellationToken;

use crate::Api;

/// Lists fetched at a time: one whose address does not answer holds up few others.
const AT_ONCE: usize = 8;
/// The pause after the first failure; each next one is twice as long, up to the usual interval.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Shortest time between two fetches, and how often the ledger is asked which lists there are.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// A list that is fetched.
struct Due {
    ca: CaId,
    url: String,
    known: ForeignCa,
}

/// Fetches the own lists of CAs when they are due, until `stop`.
pub async fn fetch_lists(api: Arc<Api>, stop: CancellationToken) {
    let mut next: HashMap<CaId, UnixTime> = HashMap::new();
    loop {
        let due = due(&api, &mut next).await;
        let fetches = due.into_iter().map(|due| {
            let api = Arc::clone(&api);
            async move {
                let by = By::system(api.now());
                let known = match crate::lists::fetch(&api, due.ca, &due.url, by).await {
                    Ok(taken) => taken.ca,
                    Err(_) => due.known,
                };
                let failures = api.lists().last(due.ca).map_or(0, |last| last.failures);
                (due.ca, api.now().plus(pause(&known, failures, api.now())))
            }
        });
        let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(AT_ONCE);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                done = fetches.next() => match done {
                    Some((ca, at)) => drop(next.insert(ca, at)),
                    None => break,
                },
            }
        }
        let soonest = next.values().min().copied();
        let now = api.now();
        let wait = soonest.map_or(LOOK_INTERVAL, |at| at.since(now)).clamp(SHORTEST_WAIT, LOOK_INTERVAL);
        tokio::select! {
            () = stop.cancelled() => return,
            () = api.lists().changed.notified() => next.clear(),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The lists that are due now; of those seen for the first time, when they are.
async fn due(api: &Api, next: &mut HashMap<CaId, UnixTime>) -> Vec<Due> {
    let account = api.registrar().account();
    let found = api.read(move |reader| {
        let cas = reader.cas(account)?;
        cas.into_iter().map(|ca| Ok((ca.id, reader.foreign_ca(ca.id)?))).collect::<Result<Vec<_>, _>>()
    });
    // What can't be read is in the log; it is asked again.
    let found = found.await.unwrap_or_default();
    let now = api.now();
    let mut due = Vec::new();
    next.retain(|ca, _| found.iter().any(|(id, known)| id == ca && known.settings.url.is_some()));
    for (ca, known) in found {
        let Some(url) = known.settings.url.clone() else { continue };
        let at = *next.entry(ca).or_insert_with(|| first(api, ca, &known, now));
        if at <= now {
            due.push(Due { ca, url, known });
        }
    }
    due
}

/// When a list is due that this task did not fetch yet.
fn first(api: &Api, ca: CaId, known: &ForeignCa, now: UnixTime) -> UnixTime {
    let failures = api.lists().last(ca).map_or(0, |last| last.failures);
    match &known.list {
        Some(list) => list.taken_at.plus(pause(known, failures, list.taken_at)),
        None => now,
    }
}

/// How long to wait after a fetch: less than until the list ends, and never the same twice, so that many servers
/// do not come at once.
fn pause(known: &ForeignCa, failures: u32, now: UnixTime) -> Duration {
    let every = Duration::from_secs(u64::from(known.settings.every_s)).max(LOOK_INTERVAL);
    let before_end = known.list.as_ref().map_or(every, |list| list.next_update.since(now) / 2);
    let usual = every.min(before_end.max(LOOK_INTERVAL));
    let wanted = match failures {
        0 => usual,
        failures => usual.min(FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(DOUBLINGS_MAX))),
    };
    // Without random numbers the whole of it.
    let part = muster_enroll::random::<1>().map_or(0, |[octet]| u32::from(octet));
    wanted - wanted / JITTER_PART * part / 256
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
    use muster_store::record::{ForeignList, ListSettings, ListSource};

    use super::*;

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
            within(pause(&long, failures, NOW), most);
        }
        within(pause(&known(3_600, 1_000), 0, NOW), 500);
        within(pause(&known(3_600, 10), 0, NOW), 60);
        within(pause(&known(1, 1_000_000), 0, NOW), 60);
    }
}
