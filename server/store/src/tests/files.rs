//! Files: making, opening, migrating, copying, and finding damage.

use muster_policy::revocation::RevocationReason;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::act::{DecideRequest, Decision, RevokeCertificate};
use crate::backup::BackupError;
use crate::check::CheckError;
use crate::ledger::OpenError;
use crate::migration::{self, MIGRATIONS, Migration, MigrationError, SCHEMA_VERSION};
use crate::reader::{CertificateFilter, DeviceFilter, Paging, Total};
use crate::record::CertificateStatus;
use crate::tables::META_SCHEMA;

#[test]
fn a_ledger_is_made_once_for_its_owner_only() {
    let rig = Rig::new();
    let mode = std::fs::metadata(rig.path()).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Ledger::create(&rig.path(), small()), Err(OpenError::Exists { .. })));
}

#[test]
fn opening_says_in_words_what_is_wrong() {
    let mut rig = Rig::new();
    let open = |rig: &Rig| Ledger::open(&rig.path(), small(), START).map(drop);
    assert!(matches!(open(&rig), Err(OpenError::AlreadyOpen { .. })));
    rig.close();
    let nowhere = rig.folder.path().join("nowhere");
    assert!(matches!(Ledger::open(&nowhere, small(), START).map(drop), Err(OpenError::Missing { .. })));
    let text = rig.folder.path().join("text");
    std::fs::write(&text, "not a ledger at all").expect("writes");
    let error = Ledger::open(&text, small(), START).map(drop).expect_err("is no ledger");
    assert!(matches!(error, OpenError::Broken { .. }), "{error}");

    set_schema(&rig, SCHEMA_VERSION + 1);
    let error = open(&rig).expect_err("is newer");
    assert!(matches!(error, OpenError::NewerSchema { found, .. } if found == SCHEMA_VERSION + 1), "{error}");
}

fn set_schema(rig: &Rig, version: u32) {
    edit(rig, |tables| tables.put_meta(META_SCHEMA, &version).expect("writes"));
}

#[test]
fn a_file_of_version_1_is_migrated_when_opened() {
    let mut rig = Rig::new();
    for number in 0..1_500 {
        rig.begin(begin(number, &format!("d-{number}"), rig.now)).expect("begins");
    }
    rig.issue(9_000, "a");
    rig.token(1, 1);
    rig.close();
    // Version 1 had no counters.
    edit(&rig, |tables| {
        tables.remove(TableName::Counters, ACCOUNT.as_bytes()).expect("removes");
        tables.put_meta(META_SCHEMA, &1_u32).expect("writes");
    });
    assert_eq!(Ledger::check(&rig.path()).expect("its pages are sound").schema, 1);
    rig.open();
    let counters = rig.ledger().reader().expect("open").counters(ACCOUNT).expect("reads");
    assert_eq!((counters.certificates, counters.devices_active, counters.tokens), (1, 1_501, 1));
    rig.check();
}

#[test]
fn a_file_of_version_5_gets_what_lists_walk_when_opened() {
    let mut rig = Rig::new();
    for number in 0..1_200 {
        rig.issue(number, &format!("d-{number}"));
    }
    rig.suspend("d-7");
    let revoke = RevokeCertificate {
        account: ACCOUNT,
        certificate: begin(3, "d-3", rig.now).certificate,
        reason: RevocationReason::Unspecified,
        by: rig.by(),
    };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    rig.close();
    edit(&rig, |tables| {
        for table in [TableName::CertificateMarks, TableName::InactiveDevices] {
            for (key, _) in tables.rows(table, &[], None, usize::MAX).expect("reads") {
                tables.remove(table, &key).expect("removes");
            }
        }
        tables.put_meta(META_SCHEMA, &5_u32).expect("writes");
    });
    rig.open();
    let reader = rig.ledger().reader().expect("open");
    let page = Paging::numbered(1, 1_000);
    let active = CertificateFilter { status: Some(CertificateStatus::Active), ..Default::default() };
    let active = reader.certificates(ACCOUNT, &active, rig.now, &page).expect("reads");
    assert_eq!(active.total, Total::Exactly(1_199));
    let suspended = DeviceFilter { status: Some(DeviceStatus::Suspended), ..Default::default() };
    let suspended = reader.devices(ACCOUNT, &suspended, &page).expect("reads").items;
    assert_eq!(suspended.into_iter().map(|found| found.id).collect::<Vec<_>>(), [device("d-7")]);
    drop(reader);
    rig.check();
}

#[test]
fn a_file_of_version_8_lists_by_token_what_waits_when_opened() {
    let mut rig = Rig::new();
    let token = Token { device: Some(device("a")), ..token(1, rig.now) };
    rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
    let now = rig.now;
    let stranger = BeginIssue { approval: Approval::Manual, ..begin(1, "b", now) };
    let manual = |number| BeginIssue {
        approval: Approval::Manual,
        token: Some(token.id),
        by: By { actor: Actor::Token(device("a"), token.id), at: now },
        ..begin(number, "a", now)
    };
    rig.begin(stranger.clone()).expect("waits");
    rig.begin(manual(2)).expect("waits");
    rig.close();
    edit(&rig, |tables| {
        for (key, _) in tables.rows(TableName::TokenWaiting, &[], None, usize::MAX).expect("reads") {
            tables.remove(TableName::TokenWaiting, &key).expect("removes");
        }
        tables.put_meta(META_SCHEMA, &8_u32).expect("writes");
    });
    rig.open();
    rig.check();
    assert!(matches!(rig.begin(manual(3)), Ok(Begun::Waiting { .. })), "it takes its own one's place");
    let reader = rig.ledger().reader().expect("open");
    assert!(reader.request(manual(2).request).expect("reads").is_none());
    assert!(reader.request(stranger.request).expect("reads").is_some());
    drop(reader);
    rig.check();
}

#[test]
fn a_failing_migration_leaves_the_file_as_it_was() {
    let mut rig = Rig::new();
    rig.close();
    let fails = Migration {
        from: SCHEMA_VERSION,
        apply: |tables| {
            tables.remove(TableName::Accounts, ACCOUNT.as_bytes())?;
            Err(crate::Fault::NotOpen)
        },
    };
    let steps = [MIGRATIONS, &[fails]].concat();
    let database = Database::open(rig.path()).expect("opens");
    assert!(matches!(migration::migrate(&database, &steps), Err(MigrationError::Fault(_))));
    drop(database);
    set_schema(&rig, 0);
    let database = Database::open(rig.path()).expect("opens");
    assert!(matches!(migration::migrate(&database, MIGRATIONS), Err(MigrationError::TooOld(0))));
    drop(database);
    set_schema(&rig, SCHEMA_VERSION);
    rig.open();
    assert!(rig.ledger().reader().expect("open").account(ACCOUNT).expect("reads").is_some());
}

#[test]
fn a_ledger_at_rest_opens_at_once_after_a_crash() {
    let rig = Rig::new();
    let copy = rig.folder.path().join("crashed.redb");
    // What a crash leaves: the file as it is while the ledger is open.
    let repairs = || {
        std::fs::copy(rig.path(), &copy).expect("copies");
        let repaired = std::rc::Rc::new(std::cell::Cell::new(false));
        let flag = std::rc::Rc::clone(&repaired);
        drop(Database::builder().set_repair_callback(move |_| flag.set(true)).open(&copy).expect("opens"));
        repaired.get()
    };
    while rig.ledger().stats().rests == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!repairs());
    rig.issue(1, "a");
    assert!(repairs());
    while rig.ledger().stats().rests == 1 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!repairs());
    Ledger::check(&copy).expect("is sound");
}

#[test]
fn a_backup_is_one_moment_while_others_write() {
    let rig = Rig::new();
    let copy = rig.folder.path().join("copy.redb");
    for number in 0..50 {
        rig.issue(number, "a");
    }
    std::thread::scope(|scope| {
        let (rig, copy) = (&rig, &copy);
        let writers: Vec<_> = (1..4)
            .map(|part| {
                scope.spawn(move || {
                    for number in 0..50 {
                        rig.issue(part * 1_000 + number, "b");
                    }
                })
            })
            .collect();
        rig.ledger().backup_to(copy).expect("copied");
        for writer in writers {
            writer.join().expect("writes");
        }
    });
    let checked = Ledger::check(&copy).expect("a sound copy");
    assert!((50..=200).contains(&checked.certificates));
    assert_eq!(std::fs::metadata(&copy).expect("is there").permissions().mode() & 0o777, 0o600);
    assert!(matches!(rig.ledger().backup_to(&copy), Err(BackupError::Exists(_))));
    let restored = Ledger::open(&copy, small(), rig.now).expect("a ledger like any other");
    let page = Paging::numbered(1, 10);
    let reader = restored.reader().expect("open");
    assert_eq!(
        reader.certificates(ACCOUNT, &Default::default(), rig.now, &page).expect("reads").items.len(),
        10
    );
    let left: Vec<_> = std::fs::read_dir(rig.folder.path()).expect("reads").collect();
    assert_eq!(left.len(), 2, "nothing but the ledger and the copy: {left:?}");
}

#[test]
fn a_backup_that_cannot_be_written_leaves_nothing() {
    let rig = Rig::new();
    let nowhere = rig.folder.path().join("no-folder").join("copy.redb");
    assert!(matches!(rig.ledger().backup_to(&nowhere), Err(BackupError::Copy { .. })));
}

#[test]
fn a_truncated_file_is_refused() {
    let mut rig = Rig::new();
    for number in 0..200 {
        rig.issue(number, "a");
    }
    rig.close();
    let bytes = std::fs::read(rig.path()).expect("reads");
    for length in [0, 1, 100, 4_096, bytes.len() / 2, bytes.len() - 4_096] {
        std::fs::write(rig.path(), &bytes[..length]).expect("writes");
        Ledger::check(&rig.path()).expect_err("is cut short");
    }
    std::fs::write(rig.path(), &bytes).expect("writes");
    Ledger::check(&rig.path()).expect("is whole again");
}

#[test]
fn a_changed_byte_in_a_record_is_found() {
    let mut rig = Rig::new();
    for number in 0..50 {
        rig.issue(number, "needle");
    }
    rig.close();
    let bytes = std::fs::read(rig.path()).expect("reads");
    // One place in each page that holds live or dead copies: at least the live ones must be found.
    let places: Vec<_> = bytes.windows(6).enumerate().filter(|(_, part)| *part == b"needle").collect();
    assert!(!places.is_empty());
    let mut spoilt = bytes.clone();
    for (place, _) in places {
        spoilt[place] = b'N';
    }
    std::fs::write(rig.path(), &spoilt).expect("writes");
    let error = Ledger::check(&rig.path()).expect_err("is damaged");
    assert!(matches!(error, CheckError::Open(OpenError::Broken { .. })), "{error}");
}

#[test]
fn every_index_and_counter_that_disagrees_is_found() {
    let mut rig = Rig::new();
    rig.issue(1, "a");
    rig.suspend("a");
    let by = By { actor: Actor::Token(device("b"), rig.token(1, 1)), at: rig.now };
    for number in [2, 3] {
        let waits = BeginIssue { approval: Approval::Manual, by: by.clone(), ..begin(number, "b", rig.now) };
        rig.begin(waits).expect("waits");
    }
    let request = begin(3, "b", rig.now).request;
    let deny = DecideRequest { request, decision: Decision::Deny, by: rig.by() };
    rig.ledger().transact_blocking(deny).expect("denied");
    rig.close();
    let sound = std::fs::read(rig.path()).expect("reads");
    for table in [
        TableName::CertificateMarks,
        TableName::InactiveDevices,
        TableName::Serials,
        TableName::DeviceCertificates,
        TableName::Expiry,
        TableName::TokenHashes,
        TableName::TokenExpiry,
        TableName::TokenWaiting,
        TableName::RequestAges,
        TableName::Waiting,
        TableName::Counters,
        TableName::Changes,
        TableName::Audit,
        TableName::Certificates,
    ] {
        edit(&rig, |tables| {
            let rows = tables.rows(table, &[], None, 1).expect("reads");
            tables.remove(table, &rows[0].0).expect("removes");
        });
        Ledger::check(&rig.path()).map(drop).expect_err(table.as_str());
        std::fs::write(rig.path(), &sound).expect("writes");
        edit(&rig, |tables| tables.put_raw(table, &[0xff; 40], b"stray").expect("writes"));
        Ledger::check(&rig.path()).map(drop).expect_err(table.as_str());
        std::fs::write(rig.path(), &sound).expect("writes");
    }
    Ledger::check(&rig.path()).expect("is sound");
}

#[test]
fn a_changed_audit_entry_is_named() {
    let mut rig = Rig::new();
    for number in 0..5 {
        rig.issue(number, "a");
    }
    rig.close();
    edit(&rig, |tables| {
        let key = crate::keys::number(4);
        let mut row = tables.get_raw(TableName::Audit, &key).expect("reads").expect("is there");
        let last = row.len() - 3;
        row[last] ^= 1;
        tables.put_raw(TableName::Audit, &key, &row).expect("writes");
    });
    match Ledger::check(&rig.path()) {
        Err(CheckError::Audit(found)) => assert_eq!(found.number, 4),
        other => panic!("not found: {other:?}"),
    }
}
