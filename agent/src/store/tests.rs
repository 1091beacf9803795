//! The store across crashes: whatever was on the disk between two steps, the old content or the new one is
//! found, and a damaged file is met once, set aside, and never a panic.

use std::os::unix::fs::PermissionsExt as _;

use muster_proto::enrollment::Window;
use muster_proto::time::UnixTime;
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::*;

fn content(generation: u32) -> Content {
    let at = |seconds| UnixTime::from_secs(seconds);
    let pair = KeptPair {
        generation,
        chain: vec![0x30; 900],
        anchor: vec![0x31; 500],
        window: Window::new(at(10), at(20), at(30)).expect("in order"),
        saved_at: at(5),
    };
    let marker = u8::try_from(generation).expect("small");
    Content { key: Key::new(Zeroizing::new(vec![marker; 138])), record: Some(Kept::Pair(pair)) }
}

fn opened() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("agent")).expect("opens");
    (folder, store)
}

fn whole(store: &Store, slot: Slot) -> Content {
    match store.take_stock(slot).expect("readable") {
        Found::Whole(content) => content,
        found => panic!("{found:?}"),
    }
}

#[test]
fn what_is_put_is_found_with_its_key() {
    let (_folder, store) = opened();
    assert_eq!(store.take_stock(Slot::A).expect("readable"), Found::Empty);
    store.put_key(Slot::A, content(1).key).expect("put");
    assert_eq!(whole(&store, Slot::A), Content { key: content(1).key, record: None });
    let request = Kept::Request { csr: vec![1, 2, 3], saved_at: UnixTime::from_secs(9) };
    let put = store.put_record(Slot::A, request.clone()).expect("put");
    assert_eq!(put, Content { key: content(1).key, record: Some(request) });
    assert_eq!(whole(&store, Slot::A), put);
    store.put(Slot::B, &content(2)).expect("put");
    store.clear(Slot::A).expect("cleared");
    assert_eq!(store.take_stock(Slot::A).expect("readable"), Found::Empty);
    assert_eq!(whole(&store, Slot::B), content(2));
    store.clear(Slot::A).expect("clearing twice is clearing once");
    assert!(matches!(
        store.put_record(Slot::A, Kept::Request { csr: vec![], saved_at: UnixTime::default() }),
        Err(StoreError::NoKey(_))
    ));
}

#[test]
fn a_crash_at_any_point_of_a_write_leaves_the_old_or_the_new() {
    let (_folder, store) = opened();
    let path = path_of(store.dir(), Slot::A);
    let temporary = path.with_file_name(files::temporary("a"));
    let new = slot::encode(&content(2)).expect("written");
    store.put(Slot::A, &content(1)).expect("put");
    // Before the rename: any part of the new content may be in the temporary file.
    for written in 0..=new.len() {
        std::fs::write(&temporary, &new[..written]).expect("written");
        assert_eq!(whole(&store, Slot::A), content(1), "after {written} bytes");
    }
    // The rename is one step; whether the folder was synced after it decides only which of the two is found.
    std::fs::rename(&temporary, &path).expect("renamed");
    assert_eq!(whole(&store, Slot::A), content(2));
    // What a crash left is in nobody's way.
    std::fs::write(&temporary, b"rest").expect("written");
    store.put(Slot::A, &content(3)).expect("put");
    assert_eq!(whole(&store, Slot::A), content(3));
    assert!(!temporary.exists());
}

#[test]
fn a_damaged_slot_is_set_aside_once() {
    let good = slot::encode(&content(1)).expect("written");
    let truncated = (0..good.len()).step_by(7).map(|len| good[..len].to_vec());
    let changed = (0..good.len()).step_by(11).map(|at| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x40;
        bytes
    });
    let extended = [[good.as_slice(), b"x"].concat(), vec![0; 70 << 10], b"MUSTER-SLOT-2\n".to_vec()];
    let (_folder, store) = opened();
    let path = path_of(store.dir(), Slot::B);
    for bytes in truncated.chain(changed).chain(extended) {
        std::fs::write(&path, &bytes).expect("written");
        let found = store.take_stock(Slot::B).expect("readable");
        assert!(matches!(found, Found::Damaged(_)), "{} bytes: {found:?}", bytes.len());
        assert_eq!(store.take_stock(Slot::B).expect("readable"), Found::Empty);
        assert_eq!(std::fs::read(path.with_extension("damaged")).expect("kept"), bytes);
    }
}

#[test]
fn a_right_digest_over_nonsense_is_damage_too() {
    let mut file = b"MUSTER-SLOT-1\n".to_vec();
    file.extend_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"nonsense").as_ref());
    file.extend_from_slice(b"nonsense");
    assert_eq!(slot::decode(&file), Err(Damage::Form));
}

#[test]
fn one_agent_at_a_time_has_a_folder() {
    let (folder, store) = opened();
    let dir = folder.path().join("agent");
    assert!(is_locked(&dir));
    let error = Store::open(&dir).map(drop).expect_err("locked");
    assert!(matches!(error, StoreError::Locked(_)));
    assert!(error.to_string().contains("another muster-agent"), "{error}");
    drop(store);
    assert!(!is_locked(&dir));
    // Whoever looks whether it is locked must not keep an agent from starting.
    let looking = File::open(dir.join(LOCK)).expect("there");
    looking.lock_shared().expect("free");
    let started = std::thread::spawn({
        let dir = dir.clone();
        move || Store::open(&dir).map(drop)
    });
    std::thread::sleep(LOCK_PAUSE);
    drop(looking);
    started.join().expect("no panic").expect("it looks again");
    Store::open(&dir).expect("free again");
}

#[test]
fn only_the_owner_can_read_anything() {
    let (_folder, store) = opened();
    store.put(Slot::A, &content(1)).expect("put");
    store.show(&shown(1)).expect("shown");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let dir = store.dir();
    for folder in [dir.to_owned(), dir.join(SLOTS), dir.join(CURRENT)] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
    for file in [dir.join(LOCK), path_of(dir, Slot::A), dir.join(CURRENT).join("key.pem")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// An identity whose certificate and key both tell its number.
fn shown(number: u8) -> Identity {
    let key = rcgen::KeyPair::generate().expect("a key");
    Identity {
        generation: number.into(),
        device: "meter-1".to_owned(),
        chain: vec![vec![number; 40].into()],
        key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        not_after: std::time::UNIX_EPOCH,
        anchors: vec![vec![9; 40].into()],
    }
}

#[test]
fn the_link_shows_one_whole_identity_and_its_swap_leaves_no_other_key() {
    let (_folder, store) = opened();
    let read = |name: &str| std::fs::read_to_string(store.dir().join(CURRENT).join(name)).expect("there");
    let first = shown(1);
    store.show(&first).expect("shown");
    let before = (read("cert.pem"), read("key.pem"));
    let target = || std::fs::read_link(store.dir().join(CURRENT)).expect("a link");
    let linked = target();
    store.show(&first).expect("shown again");
    assert_eq!(linked, target(), "nothing to do");
    // A crash before the swap leaves a whole folder, or a part of one, that nothing points to.
    std::fs::create_dir(store.dir().join("identities/.new")).expect("made");
    std::fs::write(store.dir().join("identities/.new/cert.pem"), "part").expect("written");
    assert_eq!((read("cert.pem"), read("key.pem")), before);
    store.show(&shown(2)).expect("shown");
    assert_ne!(read("cert.pem"), before.0);
    assert_ne!(read("key.pem"), before.1);
    assert_eq!(read("ca.pem").matches("BEGIN CERTIFICATE").count(), 1);
    let left = std::fs::read_dir(store.dir().join("identities")).expect("there").count();
    assert_eq!(left, 1, "the key of the first one is gone");
}
