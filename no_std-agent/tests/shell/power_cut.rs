//! The power fails at every byte and every word of every write and erase of the identity store.
//!
//! A history is what a device does over several renewals: make a key, store the request, store the identity,
//! empty the slot of the one before. It is long enough that every page of both slots is filled and erased more
//! than once. For each step of each operation the flash is copied, the power fails there, and after power is back
//! the store must hold the slot's old or its new item, and the other slot's, byte by byte. Then the operation is
//! done again, and must succeed.

use muster_nostd_agent::key::{KeyReference, SlotKey};
use muster_nostd_agent::store::{IdentityStore, Item};
use muster_proto::csr::P256Point;
use muster_proto::enrollment::{Pair, Record, Slot, StoredRequest, Window};
use muster_proto::time::UnixTime;
use muster_proto::x509::Bundle;

use crate::flash::{Cut, Flash};

/// One thing that the device does to its store.
#[derive(Clone, Debug)]
enum Operation {
    Put { slot: Slot, number: u32, record: Kind },
    Empty(Slot),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Key,
    Request,
    Pair,
}

/// What is in each slot, as its encoded item.
type Content = [Option<Vec<u8>>; 2];

/// Memory for the longest item here, and a bit.
const SCRATCH: usize = 1024;

/// The leaf's length: with the rest about as long as a real item, and odd for every word size.
const CHAIN: usize = 437;

fn encoded(slot: Slot, number: u32, kind: Kind) -> Vec<u8> {
    let fill: Vec<u8> = (0..CHAIN).map(|at| (at as u32 * 7 + number * 31) as u8).collect();
    let mut point = [number as u8; 65];
    point[0] = 4;
    let key = SlotKey {
        reference: KeyReference::new(&[number as u8 + 1; 32]).expect("short"),
        point: P256Point::new(&point).expect("uncompressed"),
    };
    let at = UnixTime::from_secs(1_800_000_000 + u64::from(number));
    let record = match kind {
        Kind::Key => None,
        Kind::Request => Some(Record::Request(StoredRequest { slot, csr: &fill[..213], saved_at: at })),
        Kind::Pair => Some(Record::Pair(Pair {
            slot,
            generation: number,
            chain: Bundle::new(&fill),
            anchor: &[],
            window: Window::new(at, at, at).expect("in order"),
            saved_at: at,
        })),
    };
    let mut bytes = vec![0; SCRATCH];
    let len = Item::Key { slot, key, record }.write(&mut bytes).expect("it fits");
    bytes.truncate(len);
    bytes
}

fn index(slot: Slot) -> usize {
    usize::from(slot == Slot::B)
}

/// What a device does over `renewals` renewals, of which some need several requests, and after some of which it
/// loses power before it could empty the slot of the identity before.
fn history(renewals: u32) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut slot = Slot::A;
    for number in 0..renewals {
        for attempt in 0..=(number % 4) {
            let number = number * 10 + attempt;
            operations.push(Operation::Put { slot, number, record: Kind::Key });
            operations.push(Operation::Put { slot, number, record: Kind::Request });
        }
        operations.push(Operation::Put { slot, number: number * 10 + number % 4, record: Kind::Pair });
        if number > 0 && number % 3 != 0 {
            operations.push(Operation::Empty(slot.other()));
        }
        slot = slot.other();
    }
    operations
}

fn apply<const WORD: usize, const PAGE: usize>(flash: &mut Flash<WORD, PAGE>, operation: &Operation) -> bool {
    let region = 0..u32::try_from(flash.bytes.len()).expect("small");
    let mut scratch = [0; SCRATCH];
    let mut taken = std::mem::replace(flash, Flash::new(0));
    let mut store = IdentityStore::new(&mut taken, region, CHAIN + 200).expect("a region of the right size");
    let done = match operation {
        Operation::Put { slot, number, record } => {
            let bytes = encoded(*slot, *number, *record);
            store.put(&Item::parse(&bytes).expect("just written"), &mut scratch)
        }
        Operation::Empty(slot) => store.empty(*slot, &mut scratch),
    };
    *flash = taken;
    done.is_ok()
}

fn after(content: &Content, operation: &Operation) -> Content {
    let mut content = content.clone();
    match operation {
        Operation::Put { slot, number, record } => {
            content[index(*slot)] = Some(encoded(*slot, *number, *record));
        }
        Operation::Empty(slot) => content[index(*slot)] = None,
    }
    content
}

/// What a device finds after power is back. `None`: the power failed once more.
fn load<const WORD: usize, const PAGE: usize>(flash: &mut Flash<WORD, PAGE>) -> Option<Content> {
    let region = 0..u32::try_from(flash.bytes.len()).expect("small");
    let mut store = IdentityStore::new(flash, region, CHAIN + 200).expect("a region of the right size");
    let mut content = Content::default();
    for slot in [Slot::A, Slot::B] {
        let mut scratch = [0; SCRATCH];
        let item = store.load(slot, &mut scratch).ok()?;
        content[index(slot)] = item.map(|item| {
            let mut bytes = vec![0; SCRATCH];
            let len = item.write(&mut bytes).expect("it fits");
            bytes.truncate(len);
            bytes
        });
    }
    Some(content)
}

/// Calls `check` with the flash after each cut of a history, and what it held before and was to hold.
fn each_cut<const WORD: usize, const PAGE: usize>(
    pages: usize,
    renewals: u32,
    cut: Cut,
    mut check: impl FnMut(Flash<WORD, PAGE>, &Operation, &Content, &Content, String),
) -> usize {
    let mut flash = Flash::<WORD, PAGE>::new(pages);
    let mut content = Content::default();
    for (number, operation) in history(renewals).iter().enumerate() {
        let mut whole = flash.clone();
        whole.steps = 0;
        whole.cut_after(usize::MAX, cut);
        assert!(apply(&mut whole, operation), "{operation:?} works");
        let expected = after(&content, operation);
        for steps in 0..whole.steps {
            let mut broken = flash.clone();
            broken.cut_after(steps, cut);
            assert!(!apply(&mut broken, operation));
            broken.power_on();
            let place = format!("{WORD}-byte words, {cut:?}, operation {number} {operation:?}, step {steps}");
            check(broken, operation, &content, &expected, place);
        }
        flash = whole;
        flash.power_on();
        content = expected;
        assert_eq!(load(&mut flash), Some(content.clone()));
    }
    flash.erases
}

/// Cuts everywhere and says how often. Every page is erased several times on the way.
fn cut_everywhere<const WORD: usize, const PAGE: usize>(pages: usize, cut: Cut) -> usize {
    let mut cuts = 0;
    let erases = each_cut::<WORD, PAGE>(pages, 9, cut, |mut broken, operation, old, new, place| {
        cuts += 1;
        let found = load(&mut broken).expect("there is power");
        assert!(found == *old || found == *new, "neither old nor new: {place}");
        assert!(apply(&mut broken, operation), "cannot be done again: {place}");
        assert_eq!(load(&mut broken).as_ref(), Some(new), "{place}");
    });
    assert!(erases >= 2 * pages, "only {erases} erases of {pages} pages");
    cuts
}

/// Runs one word size in all ways to fail, with pages that hold two items and with pages that hold one; all at once.
fn word_size<const WORD: usize>() {
    // With words of one byte `Word` is the same as `Byte`.
    let cuts = [Cut::Byte, Cut::Word, Cut::TornWord].into_iter().filter(|cut| WORD > 1 || *cut != Cut::Word);
    let total: usize = std::thread::scope(|scope| {
        let mut ways = Vec::new();
        for cut in cuts {
            ways.push(scope.spawn(move || cut_everywhere::<WORD, 2048>(4, cut)));
            ways.push(scope.spawn(move || cut_everywhere::<WORD, 1024>(6, cut)));
        }
        ways.into_iter().map(|way| way.join().expect("it holds")).sum()
    });
    println!("{WORD}-byte words: {total} cuts, each left the old or the new item");
}

#[test]
fn a_cut_leaves_the_old_or_the_new_identity_with_1_byte_words() {
    word_size::<1>();
}

#[test]
fn a_cut_leaves_the_old_or_the_new_identity_with_4_byte_words() {
    word_size::<4>();
}

#[test]
fn a_cut_leaves_the_old_or_the_new_identity_with_8_byte_words() {
    word_size::<8>();
}

#[test]
fn a_cut_leaves_the_old_or_the_new_identity_with_16_byte_words() {
    word_size::<16>();
}

#[test]
fn a_cut_leaves_the_old_or_the_new_identity_with_32_byte_words() {
    word_size::<32>();
}

#[test]
fn a_second_cut_while_the_first_is_made_good_for_changes_nothing() {
    let mut cuts = 0;
    for cut in [Cut::Byte, Cut::TornWord] {
        let mut number = 0;
        each_cut::<4, 1024>(6, 5, cut, |broken, operation, old, new, place| {
            number += 1;
            if number % 37 != 0 {
                return;
            }
            // Starting is enough to make good for most; the rest happens when the operation is done again.
            let recover = |flash: &mut Flash<4, 1024>| {
                let started = load(flash);
                started.is_some() && apply(flash, operation)
            };
            let mut whole = broken.clone();
            whole.steps = 0;
            assert!(recover(&mut whole), "{place}");
            for steps in (0..whole.steps).step_by(17) {
                let mut twice = broken.clone();
                twice.cut_after(steps, cut);
                assert!(!recover(&mut twice));
                twice.power_on();
                cuts += 1;
                let found = load(&mut twice).expect("there is power");
                assert!(found == *old || found == *new, "{place}, and then step {steps}");
                assert!(apply(&mut twice, operation), "{place}, and then step {steps}");
                assert_eq!(load(&mut twice).as_ref(), Some(new), "{place}, and then step {steps}");
            }
        });
    }
    println!("{cuts} double cuts");
}

#[test]
fn an_erase_that_sequential_storage_cannot_make_good_for_never_reaches_the_other_slot() {
    let (mut cuts, mut lost) = (0, 0);
    each_cut::<4, 1024>(6, 9, Cut::ByteErasingBackwards, |mut broken, operation, old, new, place| {
        cuts += 1;
        let written = match operation {
            Operation::Put { slot, .. } | Operation::Empty(slot) => *slot,
        };
        let kept = index(written.other());
        let found = load(&mut broken).expect("there is power");
        assert_eq!(found[kept], old[kept], "the other slot changed: {place}");
        lost += usize::from(found != *old && found != *new);
        assert!(apply(&mut broken, operation), "cannot be done again: {place}");
        assert_eq!(load(&mut broken).as_ref(), Some(new), "{place}");
    });
    println!("{cuts} cuts with erases from the end, {lost} lost the slot that was being written");
}
