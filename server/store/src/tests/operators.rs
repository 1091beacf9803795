//! What operators do: accounts, zones, CAs, devices, tokens, revocation, tidying, refusals.

use std::collections::{BTreeMap, BTreeSet};

use muster_policy::enrol::DeviceStatus;
use muster_policy::host::{DefaultCas, HostMode, HostRule, MinTls, Protocol, WhenStale};
use muster_policy::identity::{CaId, ZoneId};
use muster_policy::profile::ProfileWritten;
use muster_policy::reason::Reason;
use muster_policy::revocation::RevocationReason;

use super::*;
use crate::act::{
    AddZone, CreateAdminToken, DecideRequest, Decision, DeviceImport, ImportDevices, Imported, ImportedRow,
    NoteRefusals, OnExisting, REFUSALS_PER_HOUR_MAX, REVOKE_MAX, ReactivateCertificate, RefusalNote,
    Rejected, RemoveHost, Retention, RevokeAdminToken, RevokeCertificate, RevokeCertificates, RevokeWhich,
    RevokedRow, SetDevice, SetDeviceStatus, SetDevicesStatus, SetHost, SetProfile, StatusRow, StoreCrl, Tidy,
};
use crate::reader::{AuditFilter, Paging};
use crate::record::{
    Action, AdminRole, AdminToken, CertificateStatus, ChangeKind, CrlState, OriginTls, Subjects, Zone,
};
use crate::transaction::Transaction;

fn rejected<T: Transaction<Refused = Rejected>>(rig: &Rig, transaction: T) -> Rejected
where
    T::Output: core::fmt::Debug,
{
    match rig.ledger().transact_blocking(transaction) {
        Err(Error::Refused(rejected)) => rejected,
        other => panic!("not refused: {other:?}"),
    }
}

fn import(id: &str) -> DeviceImport {
    DeviceImport {
        id: device(id),
        labels: BTreeMap::from([("site".to_owned(), "north".to_owned())]),
        groups: BTreeSet::from(["meters".to_owned()]),
        manufacturer_serial: None,
        note: None,
    }
}

#[test]
fn a_domain_is_a_zone_once() {
    let mut rig = Rig::new();
    let zone =
        Zone::new(ZoneId::from_bytes([1; 16]), ACCOUNT, "example.com".parse().expect("a hostname"), START);
    rig.ledger().transact_blocking(AddZone { zone: zone.clone(), by: rig.by() }).expect("added");
    let again = Zone { id: ZoneId::from_bytes([2; 16]), ..zone.clone() };
    assert_eq!(rejected(&rig, AddZone { zone: again, by: rig.by() }), Rejected::Exists("the zone"));
    let stray = Zone { account: AccountId::from_bytes([9; 16]), ..zone.clone() };
    assert_eq!(rejected(&rig, AddZone { zone: stray, by: rig.by() }), Rejected::AccountUnknown);
    let reader = rig.ledger().reader().expect("open");
    assert_eq!(reader.zone_by_name(&zone.name).expect("reads"), Some(zone.clone()));
    assert_eq!(reader.zones(ACCOUNT).expect("reads"), [zone]);
    drop(reader);
    rig.check();
}

#[test]
fn a_hostname_lies_in_a_zone_of_its_account_and_belongs_to_nobody_else() {
    let mut rig = Rig::new();
    let zone =
        Zone::new(ZoneId::from_bytes([1; 16]), ACCOUNT, "example.com".parse().expect("a hostname"), START);
    rig.ledger().transact_blocking(AddZone { zone: zone.clone(), by: rig.by() }).expect("added");
    let rule = |host: &str| HostRule {
        host: host.parse().expect("a hostname"),
        account: ACCOUNT,
        zone: zone.id,
        mode: HostMode::Require,
        protocols: BTreeSet::from([Protocol::Mqtt]),
        cas: BTreeSet::from([CA]),
        default_cas: DefaultCas::default(),
        min_tls: MinTls::Tls13,
        origins: Vec::new(),
        when_stale: WhenStale::Closed,
        forward_certificate: true,
        origin_timeout_s: 60,
    };
    let set =
        |rule: HostRule| SetHost { rule, origin_tls: OriginTls::default(), instead_of: None, by: rig.by() };
    let outside = rule("mqtt.example.org");
    assert_eq!(rejected(&rig, set(outside.clone())), Rejected::HostOutsideZone(outside.host));
    let strange_ca =
        HostRule { cas: BTreeSet::from([CaId::from_bytes([9; 16])]), ..rule("mqtt.example.com") };
    assert_eq!(rejected(&rig, set(strange_ca)), Rejected::CaUnknown);
    let wildcard = rule("*.example.com");
    let first = rig.ledger().transact_blocking(set(wildcard.clone())).expect("set");
    let changes = rig.ledger().newest_change();
    let before = *changes.borrow();
    rig.ledger().transact_blocking(set(wildcard.clone())).expect("set again");
    assert_eq!(*changes.borrow(), before, "what is set already is no change");
    let late =
        SetHost { origin_tls: OriginTls { identify: true, ..OriginTls::default() }, ..set(wildcard.clone()) };
    assert_eq!(rejected(&rig, late.clone()), Rejected::RevisionDiffers, "it is no new hostname");
    let pinned = SetHost { instead_of: Some(first.clone()), ..late };
    rig.ledger().transact_blocking(pinned.clone()).expect("set");
    assert_eq!(*changes.borrow(), before + 1, "how origins are spoken to is part of it");
    let reader = rig.ledger().reader().expect("open");
    let host = reader.host(&wildcard.host).expect("reads").expect("there");
    assert_eq!(host.origin_tls, pinned.origin_tls);
    let held: Vec<HostRule> =
        reader.hosts(ACCOUNT).expect("reads").into_iter().map(|host| host.rule).collect();
    assert_eq!(held, std::slice::from_ref(&wildcard));
    drop(reader);
    let again = SetHost { instead_of: Some(first.clone()), ..set(wildcard.clone()) };
    assert_eq!(rejected(&rig, again), Rejected::RevisionDiffers, "it was changed meanwhile");
    let remove = RemoveHost { account: ACCOUNT, host: wildcard.host, instead_of: None, by: rig.by() };
    let strangers = RemoveHost { account: AccountId::from_bytes([9; 16]), ..remove.clone() };
    assert_eq!(rejected(&rig, strangers), Rejected::HostUnknown);
    let late = RemoveHost { instead_of: Some(first), ..remove.clone() };
    assert_eq!(rejected(&rig, late), Rejected::RevisionDiffers);
    rig.ledger().transact_blocking(remove.clone()).expect("removed");
    assert_eq!(rejected(&rig, remove), Rejected::HostUnknown);
    rig.check();
}

#[test]
fn crl_numbers_grow() {
    let rig = Rig::new();
    let crl = |number| CrlState {
        number,
        this_update: START,
        next_update: START.plus(LIFETIME),
        der: ByteBuf::from(vec![1]),
    };
    rig.ledger().transact_blocking(StoreCrl { ca: CA, crl: crl(5), seen: 0, by: rig.by() }).expect("stored");
    for number in [4, 5] {
        let refused = rejected(&rig, StoreCrl { ca: CA, crl: crl(number), seen: 0, by: rig.by() });
        assert_eq!(refused, Rejected::CrlNumber { newest: 5 });
    }
    assert_eq!(rig.ledger().reader().expect("open").crl(CA).expect("reads"), Some(crl(5)));
}

#[test]
fn a_revocation_leaves_the_list_behind_until_one_is_made_after_it() {
    let mut rig = Rig::new();
    let issued = rig.issue(1, "a");
    let is_behind = || rig.ledger().reader().expect("open").crl_is_behind(CA).expect("reads");
    let store = |number, seen| {
        let der = ByteBuf::from(vec![1]);
        let crl = CrlState { number, this_update: START, next_update: START.plus(LIFETIME), der };
        rig.ledger().transact_blocking(StoreCrl { ca: CA, crl, seen, by: rig.by() }).expect("stored");
    };
    let newest = || *rig.ledger().newest_change().borrow();
    assert!(!is_behind());
    let before = newest();
    let reason = RevocationReason::KeyCompromise;
    let revoke = RevokeCertificate { account: ACCOUNT, certificate: issued, reason, by: rig.by() };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    assert!(is_behind());
    store(1, before);
    assert!(is_behind(), "that one was read before the revocation");
    store(2, newest());
    assert!(!is_behind());
    let reactivate = ReactivateCertificate { account: ACCOUNT, certificate: issued, by: rig.by() };
    rig.ledger().transact_blocking(reactivate).expect("good again");
    assert!(is_behind());
    rig.check();
}

#[test]
fn a_profile_that_contradicts_itself_is_refused() {
    let rig = Rig::new();
    let label: muster_policy::name::Label = "meters".parse().expect("a label");
    let set = |written| SetProfile { account: ACCOUNT, label: label.clone(), written, by: rig.by() };
    let wrong = ProfileWritten { lifetime_s: Some(1), ..ProfileWritten::default() };
    assert!(matches!(rejected(&rig, set(wrong)), Rejected::Profile(_)));
    let written = ProfileWritten { lifetime_s: Some(3_600), ..ProfileWritten::default() };
    rig.ledger().transact_blocking(set(written.clone())).expect("set");
    let reader = rig.ledger().reader().expect("open");
    assert_eq!(reader.profile(ACCOUNT, &label).expect("reads"), Some(written.clone()));
    assert_eq!(reader.profiles(ACCOUNT).expect("reads"), [(label, written)]);
}

#[test]
fn an_import_is_all_or_nothing_and_keeps_status() {
    let mut rig = Rig::new();
    let run = |devices, on_existing, rig: &Rig| ImportDevices {
        account: ACCOUNT,
        devices,
        on_existing,
        by: rig.by(),
    };
    let first = run(vec![import("a"), import("b")], OnExisting::Refuse, &rig);
    let imported = rig.ledger().transact_blocking(first.clone()).expect("imported");
    let rows = vec![ImportedRow::Created; 2];
    assert_eq!(imported, Imported { rows, created: 2, ..Imported::default() });
    assert_eq!(rejected(&rig, first), Rejected::Exists("a device of the import"));
    let status = DeviceStatus::Suspended;
    let suspend = SetDeviceStatus { account: ACCOUNT, device: device("a"), status, by: rig.by() };
    rig.ledger().transact_blocking(suspend).expect("set");

    let mut changed = import("a");
    changed.labels = BTreeMap::from([("floor".to_owned(), "2".to_owned())]);
    let update = run(vec![changed.clone(), import("b"), import("c")], OnExisting::Update, &rig);
    let imported = rig.ledger().transact_blocking(update).expect("imported");
    assert_eq!((imported.created, imported.updated, imported.kept), (1, 1, 1));
    let stored =
        rig.ledger().reader().expect("open").device(ACCOUNT, &device("a")).expect("reads").expect("is there");
    assert_eq!((stored.status, stored.labels.len()), (DeviceStatus::Suspended, 2));

    changed.note = Some("line\nbreak".to_owned());
    let wrong = run(vec![import("d"), changed], OnExisting::Update, &rig);
    assert!(matches!(rejected(&rig, wrong), Rejected::DeviceText { .. }));
    assert_eq!(rig.ledger().reader().expect("open").device(ACCOUNT, &device("d")).expect("reads"), None);
    let twice = run(vec![import("e"), import("e")], OnExisting::Update, &rig);
    assert!(matches!(rejected(&rig, twice), Rejected::Exists(_)));
    rig.check();
}

#[test]
fn a_manufacturer_serial_belongs_to_one_device() {
    let mut rig = Rig::new();
    let with =
        |id: &str, serial: &str| DeviceImport { manufacturer_serial: Some(serial.to_owned()), ..import(id) };
    let run = |devices, rig: &Rig| ImportDevices {
        account: ACCOUNT,
        devices,
        on_existing: OnExisting::Update,
        by: rig.by(),
    };
    rig.ledger().transact_blocking(run(vec![with("a", "s-1")], &rig)).expect("imported");
    for devices in [vec![with("b", "s-1")], vec![with("b", "s-2"), with("c", "s-2")]] {
        let refused = rejected(&rig, run(devices, &rig));
        assert!(matches!(refused, Rejected::ManufacturerSerialTaken { .. }), "{refused:?}");
    }
    rig.ledger().transact_blocking(run(vec![with("a", "s-3")], &rig)).expect("a gets another");
    rig.ledger().transact_blocking(run(vec![with("b", "s-1")], &rig)).expect("and b the first");
    let reader = rig.ledger().reader().expect("open");
    let owner = reader.device_by_manufacturer_serial(ACCOUNT, "s-1").expect("reads").expect("is there");
    assert_eq!(owner.id, device("b"));
    drop(reader);
    rig.check();
}

#[test]
fn a_retired_device_stays_retired() {
    let mut rig = Rig::new();
    rig.issue(1, "a");
    let set =
        |status, rig: &Rig| SetDeviceStatus { account: ACCOUNT, device: device("a"), status, by: rig.by() };
    for status in
        [DeviceStatus::Suspended, DeviceStatus::Active, DeviceStatus::Retired, DeviceStatus::Retired]
    {
        rig.ledger().transact_blocking(set(status, &rig)).expect("set");
    }
    let refused = rejected(&rig, set(DeviceStatus::Active, &rig));
    assert_eq!(refused, Rejected::DeviceRetired(device("a")));
    let counters = rig.ledger().reader().expect("open").counters(ACCOUNT).expect("reads");
    assert_eq!((counters.devices_active, counters.devices_retired), (0, 1));
    rig.check();
}

#[test]
fn a_device_field_can_be_set_and_taken_away() {
    let mut rig = Rig::new();
    rig.issue(1, "a");
    let nothing = SetDevice {
        account: ACCOUNT,
        device: device("a"),
        labels: None,
        groups: None,
        manufacturer_serial: None,
        note: None,
        by: rig.by(),
    };
    let set = SetDevice { manufacturer_serial: Some(Some("s".to_owned())), ..nothing.clone() };
    rig.ledger().transact_blocking(set).expect("set");
    let clear = SetDevice { manufacturer_serial: Some(None), ..nothing.clone() };
    rig.ledger().transact_blocking(clear).expect("cleared");
    let reader = rig.ledger().reader().expect("open");
    assert_eq!(reader.device_by_manufacturer_serial(ACCOUNT, "s").expect("reads"), None);
    drop(reader);
    let unknown = SetDevice { device: device("nobody"), ..nothing };
    assert_eq!(rejected(&rig, unknown), Rejected::DeviceUnknown(device("nobody")));
    rig.check();
}

#[test]
fn admin_tokens_end_when_revoked() {
    let mut rig = Rig::new();
    let token = AdminToken {
        permissions: None,
        id: TokenId::new(1, [1; 10]),
        hash: SecretHash::from_bytes([7; 32]),
        name: "ci".parse().expect("a title"),
        role: AdminRole::Reader,
        created_at: START,
        expires_at: None,
        revoked_at: None,
    };
    let create = CreateAdminToken { token: token.clone(), by: rig.by() };
    rig.ledger().transact_blocking(create.clone()).expect("created");
    assert_eq!(rejected(&rig, create), Rejected::Exists("the admin token"));
    let stored = |rig: &Rig| {
        rig.ledger()
            .reader()
            .expect("open")
            .admin_token_by_hash(token.hash)
            .expect("reads")
            .expect("is there")
    };
    assert!(stored(&rig).is_good(rig.now));
    let revoke = RevokeAdminToken { token: token.id, by: rig.by() };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    assert!(!stored(&rig).is_good(rig.now));
    rig.check();
}

#[test]
fn revoking_keeps_the_first_reason_and_can_be_taken_back() {
    let mut rig = Rig::new();
    let id = rig.issue(1, "a");
    let revoke =
        |reason, rig: &Rig| RevokeCertificate { account: ACCOUNT, certificate: id, reason, by: rig.by() };
    rig.ledger().transact_blocking(revoke(RevocationReason::KeyCompromise, &rig)).expect("revoked");
    let before = rig.ledger().reader().expect("open").newest_change().expect("reads");
    rig.pass(Duration::from_secs(5));
    let again =
        rig.ledger().transact_blocking(revoke(RevocationReason::Superseded, &rig)).expect("revoked already");
    let revocation = again.revoked.expect("is revoked");
    assert_eq!((revocation.reason, revocation.at), (RevocationReason::KeyCompromise, START));
    let reader = rig.ledger().reader().expect("open");
    assert_eq!(reader.newest_change().expect("reads"), before);
    let mut listed = Vec::new();
    reader.for_each_revoked(ACCOUNT, |entry| listed.push(entry.certificate)).expect("reads");
    assert_eq!(listed, [id]);
    drop(reader);
    rig.check();

    let reactivate = ReactivateCertificate { account: ACCOUNT, certificate: id, by: rig.by() };
    let good = rig.ledger().transact_blocking(reactivate).expect("good again");
    assert_eq!(good.status(rig.now), CertificateStatus::Active);
    assert_eq!(
        rig.ledger().reader().expect("open").counters(ACCOUNT).expect("reads").certificates_revoked,
        0
    );
    rig.check();
}

#[test]
fn changes_are_numbered_without_gaps_and_followers_are_told() {
    let rig = Rig::new();
    let mut follower = rig.ledger().newest_change();
    let before = *follower.borrow_and_update();
    let id = rig.issue(1, "a");
    assert!(follower.has_changed().expect("open"));
    let reader = rig.ledger().reader().expect("open");
    let changes = reader.changes_since(0, usize::MAX).expect("reads");
    assert!(changes.iter().map(|change| change.number).eq(1..=before + 2));
    assert_eq!(changes.last().map(|change| &change.kind), Some(&ChangeKind::CertificateIssued(id)));
    assert_eq!(reader.changes_since(before, 1).expect("reads").len(), 1);
    assert!(reader.changes_since(u64::MAX, 1).expect("reads").is_empty());
}

#[test]
fn tidying_forgets_what_is_old_and_keeps_the_audit() {
    let mut rig = Rig::new();
    for number in 0..25 {
        rig.issue(number, "a");
    }
    rig.token(1, 1);
    let waiting = BeginIssue { approval: Approval::Manual, ..begin(100, "b", rig.now) };
    rig.begin(waiting.clone()).expect("waits");
    let denied = BeginIssue { approval: Approval::Manual, ..begin(102, "b", rig.now) };
    rig.begin(denied.clone()).expect("waits");
    let decide = DecideRequest { request: denied.request, decision: Decision::Deny, by: rig.by() };
    rig.ledger().transact_blocking(decide).expect("denied");
    rig.begin(begin(101, "c", rig.now)).expect("begins, and its caller is gone");
    let keep = Retention::default();
    let tidy = |rig: &Rig| Tidy { now: rig.now, keep, step: 10 };

    let none = rig.ledger().transact_blocking(tidy(&rig)).expect("tidied");
    assert_eq!(none, crate::act::Tidied::default());
    rig.pass(keep.waiting + Duration::from_secs(1));
    let some = rig.ledger().transact_blocking(tidy(&rig)).expect("tidied");
    assert_eq!((some.requests, some.intents, some.certificates, some.more), (2, 1, 0, false));
    rig.check();
    rig.pass(LIFETIME + keep.certificates);
    let mut total = 0;
    loop {
        let tidied = rig.ledger().transact_blocking(tidy(&rig)).expect("tidied");
        total += tidied.certificates;
        if !tidied.more {
            break;
        }
    }
    assert_eq!(total, 25);
    rig.check();
    let counters = rig.ledger().reader().expect("open").counters(ACCOUNT).expect("reads");
    assert_eq!((counters.certificates, counters.tokens, counters.waiting), (0, 0, 0));
    assert_eq!(counters.devices_active, 2);
}

#[test]
fn a_flood_of_refusals_is_counted_not_stored() {
    let mut rig = Rig::new();
    let note = RefusalNote {
        at: rig.now,
        actor: Actor::Anonymous,
        subjects: Subjects::default(),
        reason: Reason::CredentialsWrong,
        details: Some("from 192.0.2.1".to_owned()),
    };
    let many = usize::try_from(REFUSALS_PER_HOUR_MAX + 7).expect("fits");
    let flood = NoteRefusals { refusals: vec![note.clone(); many], omitted: 3, now: rig.now };
    let before = length_of_audit(&rig);
    rig.ledger().transact_blocking(flood).expect("noted");
    assert_eq!(length_of_audit(&rig), before + REFUSALS_PER_HOUR_MAX);
    rig.pass(Duration::from_secs(3_600));
    rig.ledger()
        .transact_blocking(NoteRefusals { refusals: vec![note], omitted: 0, now: rig.now })
        .expect("noted");
    let page = rig
        .ledger()
        .reader()
        .expect("open")
        .audit(
            &AuditFilter { action: Some(Action::RefusalsOmitted), ..AuditFilter::default() },
            &Paging::numbered(1, 5),
        )
        .expect("reads");
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].details.as_deref(), Some("omitted 10"));
}

fn length_of_audit(rig: &Rig) -> u64 {
    rig.ledger().reader().expect("open").verify_audit().expect("reads").expect("is whole").count
}

#[test]
fn many_certificates_are_revoked_at_once_and_what_is_not_there_hinders_none() {
    let mut rig = Rig::new();
    let (first, second) = (rig.issue(1, "meter-1"), rig.issue(2, "meter-2"));
    let other = rig.issue(3, "meter-2");
    let revoke = |which, rig: &Rig| RevokeCertificates {
        account: ACCOUNT,
        which,
        reason: RevocationReason::Superseded,
        by: rig.by(),
    };
    let unknown = CertificateId::from_bytes([9; 16]);
    let some = revoke(RevokeWhich::Certificates(vec![first, unknown, second, second]), &rig);
    let rows = rig.ledger().transact_blocking(some).expect("revoked");
    assert!(matches!(
        rows.as_slice(),
        [RevokedRow::Revoked(_), RevokedRow::CertificateUnknown(id), RevokedRow::Revoked(_), RevokedRow::WasRevoked(_)]
            if *id == unknown
    ));
    let of_devices = revoke(RevokeWhich::Devices(vec![device("meter-2"), device("nobody")]), &rig);
    let rows = rig.ledger().transact_blocking(of_devices).expect("revoked");
    // The one that is revoked already is no longer among the device's good ones.
    assert!(matches!(rows.as_slice(), [RevokedRow::DeviceUnknown(id), RevokedRow::Revoked(good)]
        if *id == device("nobody") && good.id == other));
    let many = revoke(RevokeWhich::Certificates(vec![first; REVOKE_MAX + 1]), &rig);
    assert_eq!(rejected(&rig, many), Rejected::TooMany { max: REVOKE_MAX });
    rig.check();
}

#[test]
fn the_status_of_many_devices_is_set_at_once_but_for_retired_ones() {
    let mut rig = Rig::new();
    let devices = vec![import("a"), import("b"), import("c")];
    let by = rig.by();
    rig.ledger()
        .transact_blocking(ImportDevices { account: ACCOUNT, devices, on_existing: OnExisting::Keep, by })
        .expect("imported");
    let set = |ids: &[&str], status, rig: &Rig| {
        let devices = ids.iter().map(|id| device(id)).collect();
        let set = SetDevicesStatus { account: ACCOUNT, devices, status, by: rig.by() };
        rig.ledger().transact_blocking(set).expect("set")
    };
    use StatusRow::{Had, Retired, Set, Unknown};
    assert_eq!(set(&["a"], DeviceStatus::Retired, &rig), [Set]);
    let rows = set(&["a", "b", "nobody", "b", "c"], DeviceStatus::Suspended, &rig);
    assert_eq!(rows, [Retired, Set, Unknown, Had, Set]);
    rig.check();
}
