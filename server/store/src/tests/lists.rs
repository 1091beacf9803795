//! Paged lists: stable order, filters, cursors, and pages past the end.

use super::*;
use crate::act::RevokeCertificate;
use crate::reader::page::{List, Order, Reach};
use crate::reader::{AuditFilter, CertificateFilter, Cursor, DeviceFilter, Paging, TokenFilter, Total};
use crate::record::{CertificateStatus, TokenState};
use crate::tables::TableName;
use muster_policy::revocation::RevocationReason;

const ALL: Paging = Paging::From { offset: 0, after: None, limit: 1_000 };

fn rig_with_certificates(count: u64) -> Rig {
    let rig = Rig::new();
    for number in 0..count {
        rig.issue(number, if number % 3 == 0 { "a" } else { "b" });
    }
    rig
}

#[test]
fn certificates_come_newest_first_in_pages_that_fit_together() {
    let rig = rig_with_certificates(25);
    let reader = rig.ledger().reader().expect("open");
    let list = |paging: &Paging| {
        reader.certificates(ACCOUNT, &CertificateFilter::default(), rig.now, paging).expect("reads")
    };
    let whole: Vec<_> = list(&ALL).items.into_iter().map(|certificate| certificate.id).collect();
    assert_eq!(whole.len(), 25);
    assert!(whole.is_sorted_by(|newer, older| newer > older));

    let mut pages = Vec::new();
    for page in 1..=4 {
        let page = list(&Paging::numbered(page, 10));
        assert_eq!(page.total, Total::Exactly(25));
        pages.extend(page.items.into_iter().map(|certificate| certificate.id));
    }
    assert_eq!(pages, whole);
    assert!(list(&Paging::numbered(u32::MAX, 10)).items.is_empty());

    let mut cursor = None;
    let mut walked = Vec::new();
    loop {
        let page = list(&Paging::After { cursor, limit: 5 });
        walked.extend(page.items.iter().map(|certificate| certificate.id));
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().expect("a cursor survives its text"));
    }
    assert_eq!(walked, whole);
}

#[test]
fn a_page_goes_on_behind_a_known_item_whatever_came_or_went_before_it() {
    let rig = rig_with_certificates(20);
    let filtered = CertificateFilter { ca: Some(CA), ..CertificateFilter::default() };
    for (filter, added) in [(CertificateFilter::default(), 100), (filtered, 200)] {
        let list = |paging: &Paging| {
            let reader = rig.ledger().reader().expect("open");
            reader.certificates(ACCOUNT, &filter, rig.now, paging).expect("reads")
        };
        let whole = list(&ALL);
        let first = list(&Paging::numbered(1, 10));
        rig.issue(added, "new");
        let second = list(&Paging::From { offset: 10, after: first.last, limit: 10 });
        assert_eq!(second.items, whole.items[10..20]);
        assert!(second.total.count() > whole.total.count() || filter.ca.is_some(), "{:?}", second.total);
        let end = list(&Paging::From { offset: 20, after: list(&ALL).last, limit: 10 });
        assert!(end.items.is_empty() && end.next.is_none(), "{end:?}");
    }
}

#[test]
fn certificates_are_filtered_by_status_device_and_ca() {
    let rig = rig_with_certificates(12);
    let revoked = begin(4, "b", START).certificate;
    let reason = RevocationReason::Unspecified;
    let revoke = RevokeCertificate { account: ACCOUNT, certificate: revoked, reason, by: rig.by() };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    let reader = rig.ledger().reader().expect("open");
    let count = |filter: CertificateFilter, now| {
        let page = reader.certificates(ACCOUNT, &filter, now, &ALL).expect("reads");
        assert_eq!(page.total, Total::Exactly(u64::try_from(page.items.len()).expect("fits")));
        page.items.len()
    };
    let status = |status| CertificateFilter { status: Some(status), ..CertificateFilter::default() };
    let by_device = |id| CertificateFilter { device: Some(device(id)), ..CertificateFilter::default() };
    assert_eq!(count(status(CertificateStatus::Active), rig.now), 11);
    assert_eq!(count(status(CertificateStatus::Revoked), rig.now), 1);
    assert_eq!(count(status(CertificateStatus::Expired), rig.now), 0);
    let later = rig.now.plus(LIFETIME + Duration::from_secs(1));
    assert_eq!(count(status(CertificateStatus::Expired), later), 11);
    assert_eq!(count(by_device("a"), rig.now), 4);
    assert_eq!(count(by_device("nobody"), rig.now), 0);
    let both = CertificateFilter { status: Some(CertificateStatus::Revoked), ..by_device("a") };
    assert_eq!(count(both, rig.now), 0);
    let other = CertificateFilter { ca: Some(CaId::from_bytes([9; 16])), ..CertificateFilter::default() };
    assert_eq!(count(other, rig.now), 0);
}

#[test]
fn a_filtered_list_goes_on_from_its_cursor() {
    let rig = rig_with_certificates(20);
    let reader = rig.ledger().reader().expect("open");
    let filter = CertificateFilter { ca: Some(CA), ..CertificateFilter::default() };
    let mut cursor = None;
    let mut walked = Vec::new();
    loop {
        let page = reader
            .certificates(ACCOUNT, &filter, rig.now, &Paging::After { cursor, limit: 6 })
            .expect("reads");
        walked.extend(page.items.iter().map(|certificate| certificate.id));
        let Some(next) = page.next else { break };
        cursor = Some(next);
    }
    walked.dedup();
    assert_eq!(walked.len(), 20);
}

#[test]
fn devices_are_listed_by_id_and_found_by_prefix() {
    let rig = Rig::new();
    for (number, id) in ["b-2", "a-1", "b-1", "B-1"].into_iter().enumerate() {
        rig.issue(u64::try_from(number).expect("fits"), id);
    }
    let reader = rig.ledger().reader().expect("open");
    let ids = |filter: DeviceFilter| -> Vec<String> {
        let page = reader.devices(ACCOUNT, &filter, &ALL).expect("reads");
        page.items.into_iter().map(|device| device.id.to_string()).collect()
    };
    assert_eq!(ids(DeviceFilter::default()), ["B-1", "a-1", "b-1", "b-2"]);
    let prefix = DeviceFilter { prefix: Some("b-".to_owned()), ..DeviceFilter::default() };
    assert_eq!(ids(prefix), ["b-1", "b-2"]);
    let suspended = DeviceFilter { status: Some(DeviceStatus::Suspended), ..DeviceFilter::default() };
    assert!(ids(suspended).is_empty());
}

#[test]
fn devices_are_filtered_by_status_with_exact_lengths_and_through_cursors() {
    let rig = Rig::new();
    for number in 0..20 {
        let id = format!("d-{number:02}");
        rig.issue(number, &id);
        if number % 4 == 0 {
            rig.suspend(&id);
        }
    }
    let resume = SetDeviceStatus {
        account: ACCOUNT,
        device: device("d-04"),
        status: DeviceStatus::Active,
        by: rig.by(),
    };
    rig.ledger().transact_blocking(resume).expect("resumed");
    let reader = rig.ledger().reader().expect("open");
    for (status, expected) in
        [(DeviceStatus::Active, 16), (DeviceStatus::Suspended, 4), (DeviceStatus::Retired, 0)]
    {
        let filter = DeviceFilter { status: Some(status), ..DeviceFilter::default() };
        let page = |paging| reader.devices(ACCOUNT, &filter, &paging).expect("reads");
        let (mut cursor, mut walked) = (None, Vec::new());
        loop {
            let page = page(Paging::After { cursor, limit: 3 });
            assert_eq!(page.total, Total::Exactly(expected));
            walked.extend(page.items);
            let Some(next) = page.next else { break };
            cursor = Some(next);
        }
        assert!(walked.iter().all(|device| device.status == status));
        assert!(walked.is_sorted_by(|before, after| before.id < after.id));
        assert_eq!(u64::try_from(walked.len()).expect("fits"), expected);
        let last = page(Paging::numbered(2, 3));
        assert_eq!(last.items, walked.get(3..6).or_else(|| walked.get(3..)).unwrap_or_default());
    }
    let group = DeviceFilter {
        status: Some(DeviceStatus::Suspended),
        group: Some("none".to_owned()),
        prefix: Some("d-".to_owned()),
    };
    assert_eq!(reader.devices(ACCOUNT, &group, &ALL).expect("reads").total, Total::Exactly(0));
}

/// Whatever the page: what is past its end is counted by its own index, what is revoked by a counter.
#[test]
fn how_many_are_active_or_expired_is_known_without_looking_at_them() {
    let mut rig = Rig::new();
    for number in 0..4 {
        rig.issue(number, "old");
    }
    rig.pass(LIFETIME + Duration::from_secs(1));
    for number in 4..10 {
        rig.issue(number, "new");
    }
    for number in [0, 4, 5] {
        let at = if number == 0 { START } else { rig.now };
        let certificate = begin(number, "any", at).certificate;
        let revoke = RevokeCertificate {
            account: ACCOUNT,
            certificate,
            reason: RevocationReason::Unspecified,
            by: rig.by(),
        };
        rig.ledger().transact_blocking(revoke).expect("revoked");
    }
    let reader = rig.ledger().reader().expect("open");
    for (status, expected) in
        [(CertificateStatus::Active, 4), (CertificateStatus::Expired, 3), (CertificateStatus::Revoked, 3)]
    {
        let filter = CertificateFilter { status: Some(status), ..CertificateFilter::default() };
        for page in 1..5 {
            let paging = Paging::numbered(page, 2);
            let found = reader.certificates(ACCOUNT, &filter, rig.now, &paging).expect("reads");
            assert_eq!(found.total, Total::Exactly(expected), "{status:?}, page {page}");
            let left = expected.saturating_sub(2 * (u64::from(page) - 1)).min(2);
            assert_eq!(u64::try_from(found.items.len()), Ok(left), "{status:?}, page {page}");
        }
    }
}

#[test]
fn a_list_says_when_it_did_not_count_to_the_end() {
    let rig = rig_with_certificates(30);
    let reader = rig.ledger().reader().expect("open");
    let reach = Reach { rows: 20, ahead: 3 };
    let filter = |_: &[u8], _: &[u8]| Ok(true);
    let list = List {
        table: reader.table(TableName::CertificateMarks).expect("is there"),
        prefix: ACCOUNT.as_bytes().to_vec(),
        order: Order::Descending,
        length: None,
        filter: Some((&filter, reach)),
        load: &|key: &[u8], _: &[u8]| Ok(Some(key.to_vec())),
    };
    let first = list.page(&Paging::numbered(1, 5)).expect("reads");
    assert_eq!((first.items.len(), first.total), (5, Total::AtLeast(8)));
    let on = list.page(&Paging::After { cursor: first.next, limit: 5 }).expect("reads");
    assert_eq!(on.items.len(), 5);
    let deep = list.page(&Paging::numbered(5, 5)).expect("reads");
    assert!(deep.items.is_empty() && deep.next.is_some(), "it is known not to be the end: {deep:?}");
    let end = list.page(&Paging::numbered(2, 10)).expect("reads");
    assert_eq!((end.items.len(), end.total), (10, Total::AtLeast(20)));
}

#[test]
fn tokens_are_filtered_by_state() {
    let rig = Rig::new();
    rig.token(1, 1);
    let two = rig.token(2, 1);
    rig.begin(BeginIssue { token: Some(two), ..begin(1, "a", rig.now) }).expect("begins");
    let reader = rig.ledger().reader().expect("open");
    let count = |state, now| {
        let filter = TokenFilter { state: Some(state), device: None };
        reader.tokens(ACCOUNT, &filter, now, &ALL).expect("reads").items.len()
    };
    assert_eq!((count(TokenState::Active, rig.now), count(TokenState::Used, rig.now)), (1, 1));
    assert_eq!(count(TokenState::Expired, rig.now.plus(REPEAT_FOR)), 2);
    assert_eq!(
        reader.token_by_hash(SecretHash::from_bytes([2; 32])).expect("reads").map(|t| t.id),
        Some(two)
    );
}

#[test]
fn a_cursor_of_another_list_leads_nowhere_else() {
    let rig = rig_with_certificates(3);
    let reader = rig.ledger().reader().expect("open");
    let cursor: Cursor = "ff".repeat(32).parse().expect("hex");
    let paging = Paging::After { cursor: Some(cursor), limit: 10 };
    let page = reader.certificates(ACCOUNT, &CertificateFilter::default(), rig.now, &paging).expect("reads");
    assert!(page.items.iter().all(|certificate| certificate.account == ACCOUNT));
    for wrong in ["", "x", &"00".repeat(200)] {
        assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
    }
}

#[test]
fn the_audit_is_listed_newest_first() {
    let rig = rig_with_certificates(3);
    let reader = rig.ledger().reader().expect("open");
    let page = reader.audit(&AuditFilter::default(), &ALL).expect("reads");
    assert!(page.items.is_sorted_by(|newer, older| newer.number > older.number));
    assert_eq!(page.total, Total::Exactly(5));
    let mine = AuditFilter { account: Some(ACCOUNT), ..AuditFilter::default() };
    assert_eq!(reader.audit(&mine, &ALL).expect("reads").items.len(), 5);
    let of_a = AuditFilter { device: Some("a".parse().expect("an id")), ..AuditFilter::default() };
    let found = reader.audit(&of_a, &ALL).expect("reads").items;
    assert!(!found.is_empty() && found.iter().all(|entry| entry.subjects.device == of_a.device));
}
