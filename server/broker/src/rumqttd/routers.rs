//! The router, its end, and the one after it.
//!
//! rumqttd's router keeps a log for each filter and an entry for each topic that was ever named, and frees none. It has
//! no way to stop either: its thread waits for itself. So names are counted, each owner has a share of them, and when
//! all are used up a new router takes its place; the old one is ended by a panic of its thread, which is the only
//! end that it has. Its clients are cut and come again. A router that died by itself is replaced in the same way.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet};
use rumqttd::{Router, RouterConfig};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Duration, timeout};

use super::places::Whose;
use crate::wire::Code;

/// Topics that are named in the life of one router; a filter weighs as much as several.
const NAMES_MAX: usize = 128 * 1024;
/// How many of them one owner may name.
const NAMES_PER_OWNER: usize = 800;
/// Clients at one time; the router reserves room for each.
const LINKS_MAX: usize = 20_000;
/// Clients that are taken at once: each takes a thread for that time.
const DIALS_MAX: usize = 64;
/// Links that it takes to end a router.
const LINKS_TO_END: usize = 2;
/// What a filter's log keeps for subscribers that are behind, and twice that with what it fills.
const SEGMENT_BYTES: usize = 64 * 1024;
/// Messages handed to one client at one go.
const OUTGOING_MAX: u64 = 200;
/// How long the router has to take a client, or to end.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(10);
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// The two ends of a link.
type Ends = (LinkTx, LinkRx);

/// Makes a link, with the router's channel inside, whose type can't be named.
type Dial = Box<dyn Fn(&str) -> Option<Ends> + Send + Sync>;

/// How to reach a router.
struct Door {
    dial: Dial,
    /// Held by all who dial, and alone by who ends the router: who dials one that dies waits for ever.
    dialing: RwLock<()>,
}

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The router keeps an entry for it.
    Topic,
    /// The router keeps a log for it, some 7 KiB and up to twice [`SEGMENT_BYTES`].
    Filter,
}

impl Named {
    const fn weight(self) -> usize {
        match self {
            Self::Topic => 1,
            Self::Filter => 8,
        }
    }
}

/// The router of now.
pub(super) struct Routers {
    current: Mutex<Generation>,
    slots: Arc<Mutex<Slots>>,
    dials: Semaphore,
}

struct Generation {
    number: u64,
    door: Arc<Door>,
    names: HashSet<Box<str>>,
    /// What all names weigh.
    weight: usize,
    named_by: HashMap<Whose, usize>,
}

/// Names for links. They are used again, for the router remembers each for ever.
#[derive(Debug, Default)]
struct Slots {
    free: Vec<usize>,
    used: usize,
}

#[derive(Debug)]
struct Slot {
    slots: Arc<Mutex<Slots>>,
    number: usize,
}

/// A client of the router.
#[derive(Debug)]
pub(super) struct Link {
    tx: Tx,
    pub(super) rx: LinkRx,
    /// The number of its router.
    router: u64,
    slot: Slot,
}

struct Tx(LinkTx);

impl core::fmt::Debug for Tx {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("LinkTx")
    }
}

impl core::fmt::Debug for Routers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Routers").field("router", &lock(&self.current).number).finish_non_exhaustive()
    }
}

impl Routers {
    pub(super) fn start() -> Self {
        let dials = Semaphore::new(DIALS_MAX);
        Self { current: Mutex::new(Generation::new(0)), slots: Arc::default(), dials }
    }

    /// A new client of the router; none when it takes no more.
    pub(super) async fn link(self: &Arc<Self>) -> Option<Link> {
        // A router that takes no client is dead: the one after it gets a try.
        for _ in 0..2 {
            let slot = Slot::take(&self.slots)?;
            let dial = self.dials.acquire().await.ok()?;
            let (router, door) = {
                let current = lock(&self.current);
                (current.number, Arc::clone(&current.door))
            };
            let name = format!("link-{}", slot.number);
            if let Some(Some((tx, rx))) = aside(move || door.dial(&name)).await {
                return Some(Link { tx: Tx(tx), rx, router, slot });
            }
            drop(dial);
            self.replace(router).await;
        }
        None
    }

    /// Counts a name that is to be told to the router.
    ///
    /// # Errors
    /// The code of the refusal when the owner, or all together, named too many.
    pub(super) fn admit(
        self: &Arc<Self>,
        link: &Link,
        whose: &Whose,
        named: Named,
        name: &str,
    ) -> Result<(), Code> {
        let mut current = lock(&self.current);
        if current.number != link.router {
            return Err(Code::SERVER_BUSY);
        }
        if current.names.contains(name) {
            return Ok(());
        }
        let own = current.named_by.get(whose).copied().unwrap_or(0).saturating_add(named.weight());
        let all = current.weight.saturating_add(named.weight());
        if own > NAMES_PER_OWNER {
            return Err(Code::QUOTA_EXCEEDED);
        }
        if all > NAMES_MAX {
            let routers = Arc::clone(self);
            let router = link.router;
            tokio::spawn(async move { routers.replace(router).await });
            return Err(Code::QUOTA_EXCEEDED);
        }
        current.names.insert(name.into());
        current.named_by.insert(whose.clone(), own);
        current.weight = all;
        Ok(())
    }

    /// Puts another router in the place of this one, unless that was done, and ends it.
    async fn replace(self: &Arc<Self>, router: u64) {
        let routers = Arc::clone(self);
        let replaced = aside(move || {
            let door = {
                let mut current = lock(&routers.current);
                if current.number != router {
                    return;
                }
                tracing::warn!(router, "the rumqttd router is full or dead: a new one takes its place");
                let next = Generation::new(router.wrapping_add(1));
                core::mem::replace(&mut *current, next).door
            };
            door.end();
        });
        if replaced.await.is_none() {
            tracing::error!("no new rumqttd router could be started");
        }
    }
}

/// Runs what waits for a router in a thread of its own: of the runtime's threads none may be lost, if the router dies.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let work = move || {
        // Nobody waiting any more is no fault.
        let _ = done.send(work());
    };
    std::thread::Builder::new().name("rumqttd-aside".to_owned()).spawn(work).ok()?;
    timeout(ASIDE_TIMEOUT, result).await.ok()?.ok()
}

impl Generation {
    fn new(number: u64) -> Self {
        let config = RouterConfig {
            max_connections: LINKS_MAX.saturating_add(LINKS_TO_END),
            max_outgoing_packet_count: OUTGOING_MAX,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: 1,
            // A message whose topic no filter matches costs its sender the connection: this one matches all.
            initialized_filters: Some(vec!["#".to_owned()]),
            ..RouterConfig::default()
        };
        let channel = Router::new(0, config).spawn();
        let dial = move |name: &str| {
            let link = LinkBuilder::new(name, channel.clone()).clean_session(true);
            link.build().ok().map(|(tx, rx, _)| (tx, rx))
        };
        let door = Arc::new(Door { dial: Box::new(dial), dialing: RwLock::default() });
        Self { number, door, names: HashSet::new(), weight: 0, named_by: HashMap::new() }
    }
}

impl Door {
    fn dial(&self, name: &str) -> Option<Ends> {
        let _dialing = self.dialing.read().unwrap_or_else(PoisonError::into_inner);
        (self.dial)(name)
    }

    /// Ends the router: its thread panics when a link that has left says that it is ready.
    fn end(&self) {
        let _alone = self.dialing.write().unwrap_or_else(PoisonError::into_inner);
        let (Some((_tx, mut witness)), Some((mut tx, rx))) = ((self.dial)("witness"), (self.dial)("end"))
        else {
            return;
        };
        tx.buffer().push_back(goodbye());
        // It is not come to any more: what sends it is what matters.
        if tx.try_unsubscribe("end").is_err() || rx.ready().is_err() {
            return;
        }
        let deadline = Instant::now() + END_TIMEOUT;
        while witness.recv_deadline(deadline).is_ok() {}
        if Instant::now() >= deadline {
            tracing::error!("a rumqttd router does not end");
        }
    }
}

fn goodbye() -> Packet {
    Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None)
}

impl Link {
    /// Hands a packet to the router. Whoever is ahead of it by a thousand packets waits here, with the thread:
    /// the router waits for nobody, so that it is not for long.
    ///
    /// # Errors
    /// When the router is dead.
    pub(super) async fn send(&mut self, packet: Packet) -> Result<(), Code> {
        self.tx.0.send(packet).await.map(drop).map_err(|_| Code::SERVER_BUSY)
    }

    /// Leaves the router. Nothing may be sent afterwards.
    pub(super) async fn leave(mut self) {
        // A router that is dead needs no goodbye.
        let _ = self.send(goodbye()).await;
        // The name is free once the router has been told, and no sooner.
        drop(self.slot);
    }
}

impl Slot {
    fn take(slots: &Arc<Mutex<Slots>>) -> Option<Self> {
        let mut state = lock(slots);
        let number = match state.free.pop() {
            Some(number) => number,
            None if state.used < LINKS_MAX => {
                state.used = state.used.saturating_add(1);
                state.used
            }
            None => return None,
        };
        Some(Self { slots: Arc::clone(slots), number })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.slots).free.push(self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use muster_policy::identity::AccountId;

    use super::*;
    use crate::gate::Owner;

    fn whose(device: &str) -> Whose {
        (AccountId::from_bytes([1; 16]), Owner::Device(device.into()))
    }

    /// More than are taken at once: the rest wait for their turn, and each gets a link of its own.
    #[tokio::test]
    async fn a_crowd_is_taken_in_turns() {
        let routers = Arc::new(Routers::start());
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..4 * DIALS_MAX {
            let routers = Arc::clone(&routers);
            crowd.spawn(async move { routers.link().await });
        }
        let links = crowd.join_all().await;
        let names: HashSet<_> = links.iter().flatten().map(|link| link.slot.number).collect();
        assert_eq!((links.len(), names.len()), (4 * DIALS_MAX, 4 * DIALS_MAX));
    }

    #[tokio::test]
    async fn a_dead_router_is_replaced() {
        let routers = Arc::new(Routers::start());
        let mut old = routers.link().await.expect("a link");
        let door = Arc::clone(&lock(&routers.current).door);
        aside(move || door.end()).await.expect("it ends");
        assert!(
            timeout(Duration::from_secs(20), async { while old.rx.next().await.is_ok() {} }).await.is_ok()
        );
        let new = routers.link().await.expect("the next router takes it");
        assert_eq!(routers.admit(&old, &whose("a"), Named::Topic, "x"), Err(Code::SERVER_BUSY));
        assert_eq!(routers.admit(&new, &whose("a"), Named::Topic, "x"), Ok(()));
        new.leave().await;
    }

    #[tokio::test]
    async fn names_have_a_bound_for_each_owner_and_for_the_router() {
        let routers = Arc::new(Routers::start());
        let mut link = routers.link().await.expect("a link");
        let mut named = 0;
        for owner in 0.. {
            let owner = whose(&format!("d{owner}"));
            let mut admitted = 0;
            while routers.admit(&link, &owner, Named::Filter, &format!("n{named}")).is_ok() {
                (admitted, named) = (admitted + 1, named + 1);
            }
            if admitted < NAMES_PER_OWNER / 8 {
                break;
            }
            let again = routers.admit(&link, &owner, Named::Filter, "n0");
            assert_eq!(again, Ok(()), "what is named already costs nothing");
        }
        assert_eq!(named, NAMES_MAX / 8);
        // It is replaced, and its clients learn so.
        assert!(
            timeout(Duration::from_secs(20), async { while link.rx.next().await.is_ok() {} }).await.is_ok()
        );
        assert!(routers.link().await.is_some());
    }
}
