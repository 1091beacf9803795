//! Zones with what hangs on them: client certificates, hostnames associated with CAs.

use muster_policy::host::{HostMode, HostPattern};
use muster_policy::identity::{CaId, ZoneId};

use super::*;
use crate::act::{
    AddZone, EditZone, Rejected, RemoveZone, Retention, RevokeCertificate, SetAssociation, Tidy,
};
use crate::reader::Paging;
use crate::record::{AssociationScope, ClientRequest, RevocationReason, Zone};

const ZONE: ZoneId = ZoneId::from_bytes([1; 16]);
const BROUGHT: CaId = CaId::from_bytes([8; 16]);

fn with_zone() -> Rig {
    let rig = Rig::new();
    let zone = Zone::new(ZONE, ACCOUNT, "example.com".parse().expect("a hostname"), START);
    rig.ledger().transact_blocking(AddZone { zone, by: rig.by() }).expect("added");
    rig
}

fn names(texts: &[&str]) -> Vec<HostPattern> {
    texts.iter().map(|text| text.parse().expect("a hostname")).collect()
}

fn associate(rig: &Rig, ca: Option<CaId>, hosts: &[&str]) -> Result<Vec<HostPattern>, Error<Rejected>> {
    let scope = AssociationScope::Zone { account: ACCOUNT, zone: ZONE };
    let set = SetAssociation { scope, ca, hosts: names(hosts), instead_of: None, by: rig.by() };
    rig.ledger().transact_blocking(set)
}

#[test]
fn client_certificates_of_a_zone_are_listed_counted_and_forgotten_with_it() {
    let mut rig = with_zone();
    for number in 1..=3 {
        let begin = begin(number, "a", rig.now);
        rig.begin(begin.clone()).expect("begins");
        let mut certificate = certificate(&begin);
        let client =
            ClientRequest { zone: ZONE, csr: "csr".to_owned(), subject: Vec::new(), validity_days: 1 };
        certificate.client = Some(Box::new(client));
        let complete = CompleteIssue {
            request: begin.request,
            certificate: Box::new(certificate),
            note: None,
            by: begin.by.clone(),
        };
        rig.ledger().transact_blocking(complete).expect("stored");
    }
    let zone = |rig: &Rig| rig.ledger().reader().expect("open").zone(ZONE).expect("reads").expect("a zone");
    let held = zone(&rig);
    assert_eq!(held.client_certificates, 3);
    let paging = Paging::From { offset: 1, limit: 10 };
    let page = rig.ledger().reader().expect("open").client_certificates(&held, None, &paging).expect("reads");
    assert_eq!((page.items.len(), page.total.count()), (2, 3));
    let revoke = RevokeCertificate {
        account: ACCOUNT,
        certificate: begin(2, "a", rig.now).certificate,
        reason: RevocationReason::Unspecified,
        by: rig.by(),
    };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    for (revoked, expected) in [(Some(true), 1), (Some(false), 2), (None, 3)] {
        let all = Paging::From { offset: 0, limit: 10 };
        let reader = rig.ledger().reader().expect("open");
        let page = reader.client_certificates(&held, revoked, &all).expect("reads");
        assert_eq!(
            (page.items.len(), page.total.count()),
            (expected, u64::try_from(expected).expect("fits"))
        );
    }
    rig.check();
    let keep = Retention::default();
    rig.pass(LIFETIME + keep.certificates + Duration::from_secs(1));
    rig.ledger().transact_blocking(Tidy { now: rig.now, keep, step: 10 }).expect("tidied");
    assert_eq!(zone(&rig).client_certificates, 0);
    rig.check();
}

#[test]
fn a_refused_association_changes_nothing() {
    let mut rig = with_zone();
    associate(&rig, None, &["a.example.com"]).expect("set");
    let before = rig.ledger().reader().expect("open").newest_change().expect("reads");
    for (ca, hosts) in
        [(None, &["b.example.com", "b.example.org"]), (Some(BROUGHT), &["a.example.com", "b.example.com"])]
    {
        assert!(matches!(associate(&rig, ca, hosts), Err(Error::Refused(_))));
    }
    let reader = rig.ledger().reader().expect("open");
    assert_eq!(reader.newest_change().expect("reads"), before);
    let hosts = reader.hosts(ACCOUNT).expect("reads");
    assert_eq!((hosts.len(), hosts[0].rule.mode), (1, HostMode::Require));
    drop(reader);
    rig.check();
}

#[test]
fn a_zone_is_removed_when_no_hostname_lies_in_it() {
    let mut rig = with_zone();
    associate(&rig, None, &["a.example.com"]).expect("set");
    let remove = |rig: &Rig| {
        let by = rig.by();
        rig.ledger().transact_blocking(RemoveZone { account: ACCOUNT, zone: ZONE, by })
    };
    let named = Rejected::ZoneInUse("a.example.com".to_owned());
    assert!(matches!(remove(&rig), Err(Error::Refused(rejected)) if rejected == named));
    associate(&rig, None, &[]).expect("set");
    let edit = EditZone {
        account: AccountId::from_bytes([9; 16]),
        zone: ZONE,
        paused: Some(true),
        kind: None,
        vanity_name_servers: None,
        by: rig.by(),
    };
    assert!(matches!(rig.ledger().transact_blocking(edit), Err(Error::Refused(Rejected::ZoneUnknown))));
    remove(&rig).expect("removed");
    rig.check();
    let zone = Zone::new(ZONE, ACCOUNT, "example.com".parse().expect("a hostname"), START);
    rig.ledger().transact_blocking(AddZone { zone, by: rig.by() }).expect("its name is free again");
}
