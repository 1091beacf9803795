//! Revocations of what CAs issued elsewhere: lists that follow one another, names, and both at once.

use muster_policy::host::WhenStale;
use muster_policy::identity::{Fingerprint, Serial};
use muster_policy::revocation::RevocationReason;
use redb::Database;

use super::*;
use crate::act::{
    FOREIGN_NAMES_MAX, ListTaken, Named, NoteFetch, ReinstateNamed, Rejected, RemoveCa, RevokeNamed,
    SetCaState, SetListSettings, TakeList,
};
use crate::reader::Paging;
use crate::record::{
    ChangeKind, Fetched, ForeignCa, ForeignList, ForeignListDer, ForeignName, ForeignRevoked, ListFetch,
    ListSettings, ListSource, Revocation,
};
use crate::tables::{META_SCHEMA, TableName, Tables};
use crate::transaction::Transaction;

const ELSEWHERE: CaId = CaId::from_bytes([3; 16]);

fn rig() -> Rig {
    let rig = Rig::new();
    let byo = Ca { kind: CaKind::Byo, role: CaRole::VerifyOnly, ..ca(ELSEWHERE) };
    rig.ledger().transact_blocking(AddCa { ca: byo, by: rig.by() }).expect("a CA");
    rig
}

fn serial(number: u32) -> Serial {
    Serial::from_bytes(&(number + 1).to_be_bytes()).expect("a serial")
}

fn name(number: u32) -> ForeignName {
    ForeignName::Serial(serial(number))
}

fn said(rig: &Rig, reason: RevocationReason) -> Revocation {
    Revocation { at: rig.now, reason }
}

fn list(rig: &Rig, number: u8, serials: impl IntoIterator<Item = u32>) -> TakeList {
    let mut revoked: Vec<_> =
        serials.into_iter().map(|one| (serial(one), said(rig, RevocationReason::KeyCompromise))).collect();
    revoked.sort_by_key(|(serial, _)| *serial);
    let der = format!("{number} {revoked:?}").into_bytes();
    let list = ForeignList {
        number: vec![number].into(),
        this_update: rig.now,
        next_update: rig.now.plus(Duration::from_secs(86_400)),
        fingerprint: Fingerprint::from_bytes(sha256(&der)),
        entries: u64::try_from(revoked.len()).expect("few"),
        source: ListSource::Uploaded,
        taken_at: rig.now,
    };
    TakeList { account: ACCOUNT, ca: ELSEWHERE, list, der: ForeignListDer(der.into()), revoked, by: rig.by() }
}

fn take(rig: &Rig, list: TakeList) -> ListTaken {
    rig.ledger().transact_blocking(list).expect("taken")
}

fn rejected<T: Transaction<Refused = Rejected>>(rig: &Rig, transaction: T) -> Rejected
where
    T::Output: core::fmt::Debug,
{
    match rig.ledger().transact_blocking(transaction) {
        Err(Error::Refused(rejected)) => rejected,
        other => panic!("not refused: {other:?}"),
    }
}

fn revoke(rig: &Rig, name: ForeignName) -> RevokeNamed {
    let reason = RevocationReason::CertificateHold;
    RevokeNamed { account: ACCOUNT, ca: ELSEWHERE, name, reason, by: rig.by() }
}

fn reinstate(rig: &Rig, name: ForeignName) -> ReinstateNamed {
    ReinstateNamed { account: ACCOUNT, ca: ELSEWHERE, name, by: rig.by() }
}

fn entry(rig: &Rig, name: ForeignName) -> Option<ForeignRevoked> {
    rig.ledger().reader().expect("open").foreign_revoked(ELSEWHERE, name).expect("reads")
}

fn newest(rig: &Rig) -> ChangeKind {
    let newest = *rig.ledger().newest_change().borrow();
    let changes = rig.ledger().reader().expect("open").changes_since(newest - 1, 1).expect("reads");
    changes[0].kind.clone()
}

#[test]
fn each_list_takes_the_place_of_the_one_before() {
    let mut rig = rig();
    let taken = take(&rig, list(&rig, 1, [1, 2]));
    assert_eq!((taken.revoked, taken.reinstated, taken.ca.revoked), (2, 0, 2));
    assert_eq!(newest(&rig), ChangeKind::ForeignListTaken(ELSEWHERE, Some(vec![name(1), name(2)])));
    rig.pass(Duration::from_secs(60));
    let taken = take(&rig, list(&rig, 2, [2, 3]));
    assert_eq!((taken.revoked, taken.reinstated, taken.ca.revoked), (1, 1, 2));
    assert_eq!(newest(&rig), ChangeKind::ForeignListTaken(ELSEWHERE, Some(vec![name(1), name(3)])));
    assert!(entry(&rig, name(1)).is_none() && entry(&rig, name(3)).is_some());
    // The same again is no change; what is older or alters a number is refused.
    let before = *rig.ledger().newest_change().borrow();
    assert_eq!(take(&rig, list(&rig, 2, [2, 3])).revoked, 0);
    let back = Rejected::ListNumber { newest: "0x02".to_owned() };
    assert_eq!(rejected(&rig, list(&rig, 1, [])), back);
    assert_eq!(rejected(&rig, list(&rig, 2, [])), back);
    let mut older = list(&rig, 9, []);
    older.list.this_update = rig.now.minus(Duration::from_secs(1));
    assert_eq!(rejected(&rig, older), Rejected::ListOlder { newest: rig.now });
    assert_eq!(*rig.ledger().newest_change().borrow(), before);
    // Numbers are numbers, however long.
    let mut long = list(&rig, 3, [3]);
    long.list.number = vec![1, 0].into();
    assert_eq!(take(&rig, long).reinstated, 1);
    rig.check();
    assert!(entry(&rig, name(3)).is_some(), "durable");
}

#[test]
fn a_long_list_is_told_as_a_whole() {
    let mut rig = rig();
    let many = u32::try_from(FOREIGN_NAMES_MAX).expect("small") + 1;
    assert_eq!(take(&rig, list(&rig, 1, 0..many)).revoked, u64::from(many));
    assert_eq!(newest(&rig), ChangeKind::ForeignListTaken(ELSEWHERE, None));
    let reader = rig.ledger().reader().expect("open");
    let page = reader.foreign_revoked_of(ELSEWHERE, &Paging::numbered(2, 100)).expect("reads");
    assert_eq!((page.items.len(), page.total.count()), (1, u64::from(many)));
    drop(reader);
    rig.check();
}

#[test]
fn what_an_operator_said_goes_on_beside_the_list() {
    let mut rig = rig();
    take(&rig, list(&rig, 1, [1]));
    rig.pass(Duration::from_secs(1));
    for number in [1, 2] {
        rig.ledger().transact_blocking(revoke(&rig, name(number))).expect("revoked");
    }
    let both = entry(&rig, name(1)).expect("revoked");
    assert_eq!(
        both.revocation().map(|said| said.reason),
        Some(RevocationReason::KeyCompromise),
        "said first"
    );
    rig.pass(Duration::from_secs(1));
    let Named::Foreign(again) = rig.ledger().transact_blocking(revoke(&rig, name(2))).expect("is") else {
        panic!("issued elsewhere")
    };
    assert_eq!(
        again.by_operator.map(|said| said.at),
        Some(rig.now.minus(Duration::from_secs(1))),
        "the first"
    );
    let taken = take(&rig, list(&rig, 2, []));
    assert_eq!((taken.reinstated, taken.ca.revoked, taken.ca.by_operator), (0, 2, 2));
    take(&rig, list(&rig, 3, [2]));
    rig.ledger().transact_blocking(reinstate(&rig, name(2))).expect("taken back");
    assert!(entry(&rig, name(2)).is_some_and(|entry| entry.by_operator.is_none()), "listed still");
    assert_eq!(rejected(&rig, reinstate(&rig, name(2))), Rejected::ListedByCa);
    assert_eq!(rejected(&rig, reinstate(&rig, name(7))), Rejected::CertificateUnknown);
    let print = ForeignName::Fingerprint(Fingerprint::from_bytes([7; 32]));
    rig.ledger().transact_blocking(revoke(&rig, print)).expect("revoked");
    assert_eq!(newest(&rig), ChangeKind::ForeignRevocationSet(ELSEWHERE, print));
    take(&rig, list(&rig, 4, []));
    assert!(entry(&rig, print).is_some(), "lists know no fingerprints");
    rig.check();
    for name in [name(1), print] {
        rig.ledger().transact_blocking(reinstate(&rig, name)).expect("taken back");
    }
    let known = rig.ledger().reader().expect("open").foreign_ca(ELSEWHERE).expect("reads");
    assert_eq!((known.revoked, known.by_operator), (0, 0));
    rig.check();
}

#[test]
fn a_name_that_was_issued_here_is_revoked_as_any() {
    let mut rig = rig();
    rig.issue(1, "a");
    let issued = begin(1, "a", rig.now);
    let named = RevokeNamed { ca: CA, ..revoke(&rig, ForeignName::Serial(issued.serial)) };
    let Named::Issued(certificate) = rig.ledger().transact_blocking(named).expect("revoked") else {
        panic!("issued here")
    };
    assert!(certificate.revoked.is_some());
    let back = ReinstateNamed { ca: CA, ..reinstate(&rig, ForeignName::Serial(issued.serial)) };
    rig.ledger().transact_blocking(back).expect("good again");
    let stored =
        rig.ledger().reader().expect("open").certificate(ACCOUNT, issued.certificate).expect("reads");
    assert!(stored.expect("is there").revoked.is_none());
    rig.check();
}

#[test]
fn an_import_comes_once_until_it_is_to_issue_again() {
    let rig = rig();
    let add = |ca| rig.ledger().transact_blocking(AddCa { ca, by: rig.by() });
    let twin = |number| Ca { id: CaId::from_bytes([number; 16]), ..ca(CA) };
    let refused = add(twin(4)).expect_err("it is there");
    assert!(matches!(refused, Error::Refused(Rejected::CertificateExists(held)) if held == CA), "{refused}");
    add(Ca { role: CaRole::Manufacturer, ..twin(5) }).expect("for another use");
    let retired = SetCaState { ca: CA, state: CaState::Retiring, rollover: None, by: rig.by() };
    rig.ledger().transact_blocking(retired).expect("retired");
    add(twin(6)).expect("it issues again");
    add(twin(7)).expect_err("once");
}

#[test]
fn lists_are_only_for_cas_that_sign_them_elsewhere() {
    let rig = rig();
    let keyed = CaId::from_bytes([4; 16]);
    let root = CaId::from_bytes([5; 16]);
    for ca in [Ca { key_file: Some("k".to_owned()), ..ca(keyed) }, Ca { role: CaRole::Root, ..ca(root) }] {
        rig.ledger().transact_blocking(AddCa { ca, by: rig.by() }).expect("a CA");
    }
    assert_eq!(rejected(&rig, TakeList { ca: keyed, ..list(&rig, 1, []) }), Rejected::ListIsOurs);
    assert_eq!(rejected(&rig, TakeList { ca: root, ..list(&rig, 1, []) }), Rejected::CaNotOfClients);
    let unknown = CaId::from_bytes([9; 16]);
    assert_eq!(rejected(&rig, RevokeNamed { ca: unknown, ..revoke(&rig, name(1)) }), Rejected::CaUnknown);
    rig.ledger().transact_blocking(RevokeNamed { ca: keyed, ..revoke(&rig, name(1)) }).expect("by name");
}

#[test]
fn a_ca_closes_with_its_list_unless_it_is_set_open() {
    let rig = rig();
    let known = |rig: &Rig| rig.ledger().reader().expect("open").foreign_ca(ELSEWHERE).expect("reads");
    assert_eq!(known(&rig).closes_at(), None, "no list is expected");
    take(&rig, list(&rig, 1, []));
    assert_eq!(known(&rig).closes_at(), Some(rig.now.plus(Duration::from_secs(86_400))));
    let settings = ListSettings { url: None, every_s: 60, when_stale: WhenStale::Open, point: None };
    let set = SetListSettings { account: ACCOUNT, ca: ELSEWHERE, settings, by: rig.by() };
    assert_eq!(rig.ledger().transact_blocking(set).expect("set").closes_at(), None);
    assert_eq!(newest(&rig), ChangeKind::ForeignListTaken(ELSEWHERE, Some(Vec::new())));
}

#[test]
fn a_ca_that_goes_takes_its_revocations_along() {
    let mut rig = rig();
    take(&rig, list(&rig, 1, [1, 2]));
    rig.ledger().transact_blocking(revoke(&rig, name(3))).expect("revoked");
    rig.ledger().transact_blocking(RemoveCa { account: ACCOUNT, ca: ELSEWHERE, by: rig.by() }).expect("gone");
    assert!(entry(&rig, name(1)).is_none() && entry(&rig, name(3)).is_none());
    rig.check();
}

#[test]
fn a_file_of_version_7_takes_lists_once_it_is_opened() {
    let mut rig = rig();
    rig.issue(1, "a");
    rig.close();
    edit(&rig, |transaction| {
        for table in [TableName::ForeignCas, TableName::ForeignLists, TableName::ForeignRevoked] {
            transaction.delete_table(table.definition()).expect("deletes");
        }
    });
    rig.open();
    take(&rig, list(&rig, 1, [1]));
    rig.check();
}

#[test]
fn how_the_last_fetch_went_is_kept_and_changes_nothing_else() {
    let mut rig = rig();
    let mut first = list(&rig, 1, [1]);
    first.list.source = ListSource::Fetched;
    let taken = take(&rig, first).ca;
    let good = ListFetch { at: rig.now, outcome: Fetched::Taken, message: None, failures: 0 };
    assert_eq!(taken.last_fetch, Some(good));
    rig.pass(Duration::from_secs(60));
    let before = *rig.ledger().newest_change().borrow();
    let message = Some("no CRL came within 30 seconds".to_owned());
    let fetch = ListFetch { at: rig.now, outcome: Fetched::Failed, message, failures: 1 };
    let note = |ca| NoteFetch { account: ACCOUNT, ca, fetch: fetch.clone() };
    rig.ledger().transact_blocking(note(ELSEWHERE)).expect("noted");
    assert_eq!(rejected(&rig, note(CaId::from_bytes([9; 16]))), Rejected::CaUnknown);
    rig.close();
    rig.open();
    let kept = rig.ledger().reader().expect("open").foreign_ca(ELSEWHERE).expect("reads");
    assert_eq!(kept, ForeignCa { last_fetch: Some(fetch), ..taken });
    assert_eq!(*rig.ledger().newest_change().borrow(), before, "no follower is told");
    // One that an operator uploads was not fetched.
    take(&rig, list(&rig, 2, []));
    let now = rig.ledger().reader().expect("open").foreign_ca(ELSEWHERE).expect("reads");
    assert_eq!(now.last_fetch, kept.last_fetch);
    rig.check();
}

#[test]
fn entries_that_disagree_with_their_numbers_are_found() {
    let mut rig = rig();
    take(&rig, list(&rig, 1, [1, 2]));
    rig.close();
    let sound = std::fs::read(rig.path()).expect("reads");
    for table in [TableName::ForeignCas, TableName::ForeignLists, TableName::ForeignRevoked] {
        let database = Database::open(rig.path()).expect("opens");
        let transaction = database.begin_write().expect("begins");
        let mut tables = Tables::new(&transaction);
        let rows = tables.rows(table, &[], None, 1).expect("reads");
        tables.remove(table, &rows[0].0).expect("removes");
        tables.finish().expect("finishes");
        transaction.commit().expect("commits");
        drop(database);
        Ledger::check(&rig.path()).map(drop).expect_err(table.as_str());
        std::fs::write(rig.path(), &sound).expect("writes");
    }
    Ledger::check(&rig.path()).expect("is sound");
}

/// Makes a closed ledger one of version 7, and changes it behind its back.
fn edit(rig: &Rig, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(rig.path()).expect("opens");
    let transaction = database.begin_write().expect("begins");
    change(&transaction);
    let mut tables = Tables::new(&transaction);
    tables.put_meta(META_SCHEMA, &7_u32).expect("writes");
    tables.finish().expect("finishes");
    transaction.commit().expect("commits");
}
