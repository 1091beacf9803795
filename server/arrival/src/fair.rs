//! Slots that sources have their shares of: so many at once, and who is next when there are more.
//!
//! Sources take turns and each has a share, so who comes with a crowd from one address waits behind that crowd and
//! nobody else does. When every slot is taken, a source that has at least two fewer than the greediest one gets one of
//! those: the one that was held for longest. So a few addresses, whether they stall or keep the processor busy, never
//! make a lone client wait.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The slots.
pub struct FairSlots {
    most: usize,
    /// Of one source.
    share: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sources: HashMap<IpAddr, Source>,
    /// Every source that holds slots: how many, since which, and who. The last is the greediest; of equals it is the
    /// one that has had one for longest.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
    /// Sources with some that wait and could have a slot, in turn.
    turns: VecDeque<IpAddr>,
    busy: usize,
    granted: u64,
}

#[derive(Default)]
struct Source {
    /// In the order in which they were granted.
    held: VecDeque<Held>,
    /// In the order in which they came. Those that gave up are passed over.
    waiting: VecDeque<oneshot::Sender<FairSlot>>,
    is_in_turn: bool,
}

/// Dropped, it tells who has the slot that it has it no more.
struct Held {
    number: u64,
    _ends: oneshot::Sender<()>,
}

/// A slot, until it is dropped or taken away.
pub struct FairSlot {
    all: Arc<FairSlots>,
    source: IpAddr,
    number: u64,
    ended: oneshot::Receiver<()>,
}

/// Why a source has no slot at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// The source has its share already.
    ShareTaken,
    /// All are taken, and nobody has so many more that this one could have one of them.
    AllTaken,
}

impl FairSlots {
    /// So many at once, and so many of one source; zero counts as one.
    pub fn new(most: usize, share: usize) -> Self {
        Self { most: most.max(1), share: share.max(1), table: Mutex::default() }
    }

    /// Waits for a slot. Who stops waiting is passed over. `None` never comes while these are there.
    pub async fn slot(self: &Arc<Self>, source: IpAddr) -> Option<FairSlot> {
        let waiting = match self.admit(source) {
            Ok(slot) => return Some(slot),
            Err(waiting) => waiting,
        };
        waiting.await.ok()
    }

    /// A slot at once.
    ///
    /// # Errors
    /// [`NoSlot`].
    pub fn slot_now(self: &Arc<Self>, source: IpAddr) -> Result<FairSlot, NoSlot> {
        let mut table = self.table();
        if table.has_one_for(source, self.most, self.share) {
            return Ok(self.grant(&mut table, source));
        }
        Err(if table.held(source) < self.share { NoSlot::AllTaken } else { NoSlot::ShareTaken })
    }

    /// Whether this source would get another without one being taken away.
    pub fn has_room_for(&self, source: IpAddr) -> bool {
        let table = self.table();
        table.busy < self.most && table.held(source) < self.share
    }

    fn admit(self: &Arc<Self>, source: IpAddr) -> Result<FairSlot, oneshot::Receiver<FairSlot>> {
        let mut table = self.table();
        let entry = table.sources.entry(source).or_default();
        while entry.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            entry.waiting.pop_front();
        }
        if entry.waiting.is_empty() && table.has_one_for(source, self.most, self.share) {
            return Ok(self.grant(&mut table, source));
        }
        let (sender, receiver) = oneshot::channel();
        table.sources.entry(source).or_default().waiting.push_back(sender);
        table.queue(source, self.share);
        Err(receiver)
    }

    fn grant(self: &Arc<Self>, table: &mut Table, source: IpAddr) -> FairSlot {
        table.granted += 1;
        table.busy += 1;
        let (number, (ends, ended)) = (table.granted, oneshot::channel());
        table.rerank(source, |held| held.push_back(Held { number, _ends: ends }));
        FairSlot { all: Arc::clone(self), source, number, ended }
    }

    /// Gives free slots to those that wait. What comes back was for some that gave up meanwhile.
    fn serve(self: &Arc<Self>, table: &mut Table) -> Vec<FairSlot> {
        let mut returned = Vec::new();
        while table.busy < self.most {
            let Some(source) = table.turns.pop_front() else { break };
            let Some(entry) = table.sources.get_mut(&source) else { continue };
            entry.is_in_turn = false;
            while let Some(sender) = entry.waiting.pop_front() {
                if !sender.is_closed() {
                    let slot = self.grant(table, source);
                    returned.extend(sender.send(slot).err());
                    break;
                }
            }
            table.queue(source, self.share);
        }
        returned
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn held(&self, source: IpAddr) -> usize {
        self.sources.get(&source).map_or(0, |entry| entry.held.len())
    }

    /// Whether there is a slot for a source, if need be by taking one away.
    fn has_one_for(&mut self, source: IpAddr, most: usize, share: usize) -> bool {
        self.held(source) < share && (self.busy < most || self.make_room_for(source))
    }

    /// Takes a slot from the greediest source, if this one has at least two fewer.
    fn make_room_for(&mut self, source: IpAddr) -> bool {
        let Some((most, _, greediest)) = self.ranks.last().copied() else { return false };
        let takes = most > self.held(source) + 1;
        if takes {
            self.rerank(greediest, |held| drop(held.pop_front()));
            self.busy -= 1;
        }
        takes
    }

    /// Changes what a source holds.
    fn rerank(&mut self, source: IpAddr, change: impl FnOnce(&mut VecDeque<Held>)) {
        let entry = self.sources.entry(source).or_default();
        let rank =
            |held: &VecDeque<Held>| held.front().map(|oldest| (held.len(), Reverse(oldest.number), source));
        if let Some(before) = rank(&entry.held) {
            self.ranks.remove(&before);
        }
        change(&mut entry.held);
        self.ranks.extend(rank(&entry.held));
    }

    /// Puts a source in turn if some of it wait and may have a slot, and forgets it if there is nothing of it.
    fn queue(&mut self, source: IpAddr, share: usize) {
        let Some(entry) = self.sources.get_mut(&source) else { return };
        if entry.waiting.is_empty() {
            if entry.held.is_empty() {
                self.sources.remove(&source);
            }
        } else if !entry.is_in_turn && entry.held.len() < share {
            entry.is_in_turn = true;
            self.turns.push_back(source);
        }
    }
}

impl FairSlot {
    /// Until it is taken away.
    pub async fn taken(&mut self) {
        let _ = (&mut self.ended).await;
    }
}

impl Drop for FairSlot {
    fn drop(&mut self) {
        let all = Arc::clone(&self.all);
        let mut table = all.table();
        let mut was_held = false;
        table.rerank(self.source, |held| {
            let place = held.iter().position(|held| held.number == self.number);
            was_held = place.and_then(|place| held.remove(place)).is_some();
        });
        if was_held {
            table.busy -= 1;
        }
        table.queue(self.source, all.share);
        let returned = all.serve(&mut table);
        drop(table);
        // Each gives its own back in turn, which needs the table.
        drop(returned);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));

    fn slots(most: usize, share: usize) -> Arc<FairSlots> {
        Arc::new(FairSlots::new(most, share))
    }

    fn now(all: &Arc<FairSlots>, source: IpAddr) -> Option<FairSlot> {
        all.slot(source).now_or_never().flatten()
    }

    fn is_taken(slot: &mut FairSlot) -> bool {
        slot.taken().now_or_never().is_some()
    }

    fn is_empty(all: &FairSlots) -> bool {
        let table = all.table();
        table.busy == 0 && table.sources.is_empty() && table.ranks.is_empty() && table.turns.is_empty()
    }

    #[tokio::test]
    async fn a_source_has_its_share_and_its_next_waits_for_it() {
        let all = slots(4, 2);
        let (first, second) = (now(&all, A).expect("free"), now(&all, A).expect("free"));
        let mut third = Box::pin(all.slot(A));
        assert!((&mut third).now_or_never().is_none() && !all.has_room_for(A));
        assert!(all.has_room_for(B) && now(&all, B).is_some());
        drop(first);
        let third = (&mut third).now_or_never().flatten().expect("its turn");
        drop((second, third));
        assert!(is_empty(&all));
    }

    #[tokio::test]
    async fn who_does_not_wait_gets_one_at_once_or_none() {
        let all = slots(2, 2);
        let mut of_a = [all.slot_now(A).expect("free"), all.slot_now(A).expect("free")];
        assert_eq!(all.slot_now(A).err(), Some(NoSlot::ShareTaken));
        let of_b = all.slot_now(B).expect("one of A's");
        assert!(is_taken(&mut of_a[0]));
        assert_eq!(all.slot_now(B).err(), Some(NoSlot::AllTaken));
        drop((of_a, of_b));
        assert!(is_empty(&all));
    }

    #[tokio::test]
    async fn sources_take_turns_and_who_gave_up_is_passed_over() {
        let all = slots(2, 2);
        let held = [now(&all, A).expect("free"), now(&all, B).expect("free")];
        let mut of_a: Vec<_> = (0..3).map(|_| Box::pin(all.slot(A))).collect();
        let mut of_b = Box::pin(all.slot(B));
        for waiting in &mut of_a {
            assert!(waiting.now_or_never().is_none());
        }
        assert!((&mut of_b).now_or_never().is_none());
        drop(of_a.remove(0));
        drop(held);
        let a = (&mut of_a[0]).now_or_never().flatten().expect("the first that still waits");
        let b = (&mut of_b).now_or_never().flatten().expect("before A's next");
        assert!((&mut of_a[1]).now_or_never().is_none());
        drop((a, b, of_a, of_b));
        assert!(is_empty(&all));
    }

    #[tokio::test]
    async fn the_greediest_gives_its_oldest_to_who_has_little() {
        let all = slots(4, 3);
        let mut of_a: Vec<_> = (0..3).map(|_| now(&all, A).expect("free")).collect();
        let mut of_b = now(&all, B).expect("free");
        let mut of_c = now(&all, C).expect("one of A's");
        assert!(of_a.iter_mut().map(is_taken).eq([true, false, false]));
        assert_eq!(all.table().busy, 4);
        assert!(!all.has_room_for(C));
        // Two, one and one: nobody has two fewer than another.
        assert!(now(&all, B).is_none() && now(&all, C).is_none());
        assert!(!is_taken(&mut of_b) && !is_taken(&mut of_c));
        // What was taken away is not given back once more.
        drop(of_a.remove(0));
        assert_eq!(all.table().busy, 4);
        drop((of_a, of_b, of_c));
        assert!(is_empty(&all));
    }

    #[tokio::test]
    async fn of_equally_greedy_sources_the_one_that_stalls_for_longer_gives() {
        let all = slots(4, 2);
        let mut stalls = [now(&all, A).expect("free"), now(&all, A).expect("free")];
        let mut fresh = [now(&all, B).expect("free"), now(&all, B).expect("free")];
        let slot = now(&all, C).expect("one of A's");
        assert!(is_taken(&mut stalls[0]) && !fresh.iter_mut().any(is_taken));
        drop((stalls, fresh, slot));
        assert!(is_empty(&all));
    }

    #[tokio::test]
    async fn a_slot_that_was_granted_to_one_that_left_goes_on_to_the_next() {
        let all = slots(1, 1);
        let held = now(&all, A).expect("free");
        let (mut first, mut second) = (Box::pin(all.slot(B)), Box::pin(all.slot(C)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(held);
        // It has been given its slot, and has not looked.
        drop(first);
        let second = (&mut second).now_or_never().flatten().expect("the next");
        drop(second);
        assert!(is_empty(&all));
    }
}
