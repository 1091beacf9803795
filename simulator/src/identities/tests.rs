//! The directory, with power cuts.

use proptest::prelude::*;

use super::*;
use muster_proto::enrollment::Window;
use muster_proto::time::UnixTime;

fn pair(number: u32, slot: Slot, generation: u32) -> StoredPair {
    let at = UnixTime::from_secs;
    StoredPair {
        number,
        slot,
        generation,
        window: Window::new(at(10), at(20), at(30)).expect("in order"),
        saved_at: at(5),
        scalar: [7; 32],
        chain: 0,
        leaf: vec![u8::try_from(number % 251).expect("small"); 500],
    }
}

fn request(number: u32) -> StoredRequest {
    StoredRequest {
        number,
        slot: Slot::A,
        saved_at: UnixTime::from_secs(5),
        scalar: [8; 32],
        csr: vec![1; 300],
    }
}

#[test]
fn a_fleet_is_there_again_and_shards_see_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    for shard in [0, 1] {
        let directory = Directory::open_to_write(folder.path(), "d-", shard).expect("opens");
        directory.put_request(request(shard)).expect("written");
        directory.put_pair(pair(shard, Slot::A, 0), b"chain").expect("written");
        directory.put_pair(pair(shard + 2, Slot::A, 0), b"other chain").expect("written");
    }
    let directory = Directory::open(folder.path()).expect("opens");
    assert_eq!(directory.enrolled(), [0, 1, 2, 3]);
    let (found, chain) = directory.pair(3).expect("readable").expect("there");
    assert_eq!((found.leaf.first(), chain.as_slice()), (Some(&3), b"other chain".as_slice()));
    assert_eq!(directory.device(12), "d-0000012");
}

#[test]
fn a_record_cut_anywhere_is_dropped_and_the_file_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shard-0000.ids");
    let directory = Directory::open_to_write(folder.path(), "d-", 0).expect("opens");
    directory.put_pair(pair(0, Slot::A, 0), b"chain").expect("written");
    let whole = std::fs::metadata(&file).expect("there").len();
    directory.put_pair(pair(1, Slot::A, 0), b"chain").expect("written");
    drop(directory);
    let bytes = std::fs::read(&file).expect("readable");
    for length in [whole + 1, whole + 8, whole + 9, whole + 300] {
        std::fs::write(&file, &bytes[..usize::try_from(length).expect("small")]).expect("writable");
        let directory = Directory::open_to_write(folder.path(), "d-", 0).expect("opens");
        assert_eq!(directory.enrolled(), [0], "{length}");
        directory.put_pair(pair(2, Slot::A, 0), b"chain").expect("written");
        drop(directory);
        assert_eq!(Directory::open(folder.path()).expect("opens").enrolled(), [0, 2], "{length}");
    }
}

#[test]
fn damage_in_the_middle_is_an_error_and_not_a_lost_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shard-0000.ids");
    let directory = Directory::open_to_write(folder.path(), "d-", 0).expect("opens");
    for number in 0..3 {
        directory.put_pair(pair(number, Slot::A, 0), b"chain").expect("written");
    }
    drop(directory);
    let mut bytes = std::fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("writable");
    let error = Directory::open(folder.path()).expect_err("damaged");
    assert!(format!("{error:#}").contains("damaged at byte"), "{error:#}");
}

#[test]
fn two_processes_do_not_write_one_shard_and_a_fleet_keeps_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Directory::open_to_write(folder.path(), "d-", 0).expect("opens");
    let error = Directory::open_to_write(folder.path(), "d-", 0).expect_err("in use");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(first);
    assert!(Directory::open_to_write(folder.path(), "other-", 0).is_err());
}

#[test]
fn the_unproven_identity_is_not_the_one_in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = Directory::open_to_write(folder.path(), "d-", 0).expect("opens");
    directory.put_pair(pair(0, Slot::A, 4), b"chain").expect("written");
    directory.put_pair(pair(0, Slot::B, 5), b"chain").expect("written");
    let in_use =
        |directory: &Directory| directory.pair(0).expect("readable").map(|(pair, _)| pair.generation);
    assert_eq!(in_use(&directory), Some(4));
    directory.retire(0, Slot::A).expect("written");
    assert_eq!(in_use(&directory), Some(5));
    drop(directory);
    assert_eq!(in_use(&Directory::open(folder.path()).expect("opens")), Some(5));
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(number in 0_u32..1_000_000, generation: u32, leaf in proptest::collection::vec(any::<u8>(), 1..900), sequence: u64) {
        let payload = Payload::Pair(StoredPair { generation, leaf, ..pair(number, Slot::B, 0) });
        let bytes = frame(&payload, sequence).expect("fits");
        let read = read_frame(&bytes).expect("a record");
        prop_assert_eq!((read.payload, read.sequence), (payload, sequence));
    }

    #[test]
    fn any_bytes_are_a_record_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_frame(&bytes);
    }
}
