//! Zones with what hangs on them: client certificates, hostnames associated with CAs.

use muster_policy::host::{HostMode, HostPattern};
use muster_policy::identity::{CaId, ZoneId};
use muster_policy::revocation::RevocationReason;

use super::*;
use crate::act::{
    AddOutboundLeaf, AddZone, EditZone, PullWish, Rejected, RemoveOutboundLeaf, RemoveZone, Retention,
    RevokeCertificate, SetAssociation, SetOriginPulls, Tidy,
};
use crate::reader::Paging;
use crate::record::{AssociationScope, ChangeKind, ClientRequest, OriginPull, OutboundLeaf, ShownTo, Zone};

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
    let paging = Paging::From { offset: 1, after: None, limit: 10 };
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
        let all = Paging::From { offset: 0, after: None, limit: 10 };
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
        shows_certificate: None,
        vanity_name_servers: None,
        by: rig.by(),
    };
    assert!(matches!(rig.ledger().transact_blocking(edit), Err(Error::Refused(Rejected::ZoneUnknown))));
    remove(&rig).expect("removed");
    rig.check();
    let zone = Zone::new(ZONE, ACCOUNT, "example.com".parse().expect("a hostname"), START);
    rig.ledger().transact_blocking(AddZone { zone, by: rig.by() }).expect("its name is free again");
}

#[test]
fn a_zone_that_is_added_inside_another_takes_no_hostname_from_it() {
    let mut rig = with_zone();
    associate(&rig, None, &["a.sub.example.com"]).expect("set");
    let inner = ZoneId::from_bytes([2; 16]);
    let zone = Zone::new(inner, ACCOUNT, "sub.example.com".parse().expect("a hostname"), START);
    rig.ledger().transact_blocking(AddZone { zone, by: rig.by() }).expect("added");
    associate(&rig, None, &["a.sub.example.com"]).expect("what is read can be written");
    let set = |rig: &Rig, hosts: &[&str]| {
        let scope = AssociationScope::Zone { account: ACCOUNT, zone: inner };
        let set = SetAssociation { scope, ca: None, hosts: names(hosts), instead_of: None, by: rig.by() };
        rig.ledger().transact_blocking(set)
    };
    let outside = set(&rig, &["a.sub.example.com"]);
    assert!(matches!(outside, Err(Error::Refused(Rejected::HostOutsideZone(_)))), "{outside:?}");
    set(&rig, &["b.sub.example.com"]).expect("the nearest zone has what is new");
    associate(&rig, None, &["a.sub.example.com", "c.example.com"]).expect("the other has its own");
    associate(&rig, None, &["b.sub.example.com"]).expect_err("and no other");
    rig.check();
}

fn add_leaf(rig: &Rig, number: u8, shown_to: ShownTo) -> Result<CaId, Error<Rejected>> {
    let id = CaId::from_bytes([number; 16]);
    let leaf = OutboundLeaf {
        id,
        account: ACCOUNT,
        name: None,
        pem: "PEM".to_owned(),
        // Two of them are of one certificate.
        fingerprint: Fingerprint::from_bytes([number / 2; 32]),
        key_file: Some(format!("{id}.key")),
        uploaded_at: rig.now,
        shown_to: Some(shown_to),
    };
    rig.ledger().transact_blocking(AddOutboundLeaf { leaf, by: rig.by() }).map(|()| id)
}

fn pull(rig: &Rig, wishes: &[(&str, PullWish)]) -> Result<Vec<Option<OriginPull>>, Error<Rejected>> {
    let wishes =
        wishes.iter().map(|(host, wish)| (host.parse().expect("a hostname"), wish.clone())).collect();
    rig.ledger().transact_blocking(SetOriginPulls { account: ACCOUNT, zone: ZONE, wishes, by: rig.by() })
}

#[test]
fn what_origins_are_shown_is_set_for_all_hostnames_or_none_and_goes_with_the_zone() {
    let mut rig = with_zone();
    let rejected = |outcome: Result<_, Error<Rejected>>| match outcome {
        Err(Error::Refused(rejected)) => rejected,
        other => panic!("not refused: {other:?}"),
    };
    let of_hosts = add_leaf(&rig, 20, ShownTo::Hostnames(ZONE)).expect("added");
    let of_zone = add_leaf(&rig, 21, ShownTo::Zone(ZONE)).expect("one certificate at two levels");
    let twice = add_leaf(&rig, 21, ShownTo::Hostnames(ZONE)).map(drop);
    assert!(matches!(twice, Err(Error::Refused(Rejected::CertificateExists(id))) if id == of_hosts));
    let stray = add_leaf(&rig, 30, ShownTo::Zone(ZoneId::from_bytes([7; 16]))).map(drop);
    assert!(matches!(stray, Err(Error::Refused(Rejected::ZoneUnknown))));

    let shown = |leaf, enabled| PullWish::Shown { leaf, enabled };
    let good = ("a.example.com", shown(Some(of_hosts), true));
    for (wrong, says) in [
        (
            ("a.example.org", shown(Some(of_hosts), true)),
            Rejected::HostOutsideZone("a.example.org".parse().expect("a name")),
        ),
        (("b.example.com", shown(Some(of_zone), true)), Rejected::CertificateUnknown),
        (("b.example.com", shown(None, true)), Rejected::CertificateUnknown),
    ] {
        assert_eq!(rejected(pull(&rig, &[good.clone(), wrong])), says);
    }
    let held = |rig: &Rig| rig.ledger().reader().expect("open").origin_pulls(ZONE).expect("reads");
    assert_eq!(held(&rig), [], "all or none");

    let first = pull(&rig, &[good, ("*.example.com", shown(Some(of_hosts), false))]).expect("set");
    let [Some(a), Some(wildcard)] = first.as_slice() else { panic!("{first:?}") };
    assert!(a.enabled && !wildcard.enabled);
    rig.pass(Duration::from_secs(5));
    let newest = *rig.ledger().newest_change().borrow();
    let off = pull(&rig, &[("a.example.com", shown(None, false)), ("*.example.com", shown(None, false))]);
    let off = off.expect("set");
    assert_eq!(off[0], Some(OriginPull { enabled: false, changed_at: rig.now, ..a.clone() }));
    assert_eq!(off[1].as_ref(), Some(wildcard), "what is set already is no change");
    let changes = rig.ledger().reader().expect("open").changes_since(newest, 10).expect("reads");
    let kinds: Vec<ChangeKind> = changes.into_iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::OriginPullSet("a.example.com".parse().expect("a name"))]);

    let remove = |rig: &Rig, id| {
        let remove = RemoveOutboundLeaf { account: ACCOUNT, id, by: rig.by() };
        rig.ledger().transact_blocking(remove)
    };
    let used = remove(&rig, of_hosts);
    assert!(
        matches!(used, Err(Error::Refused(Rejected::CaInUse(names))) if names == "*.example.com, a.example.com")
    );
    assert_eq!(pull(&rig, &[("a.example.com", PullWish::Nothing)]).expect("set"), [None]);
    rig.check();
    let by = rig.by();
    let gone =
        rig.ledger().transact_blocking(RemoveZone { account: ACCOUNT, zone: ZONE, by }).expect("removed");
    assert_eq!(gone.iter().map(|leaf| leaf.id).collect::<Vec<_>>(), [of_hosts, of_zone]);
    assert_eq!(held(&rig), []);
    rig.check();
}

/// The hostnames of the zone are told again when theirs is another one, and only then.
#[test]
fn a_certificate_of_a_zone_that_shows_it_is_a_change_of_the_zone() {
    let rig = with_zone();
    let set = |enabled| {
        let edit = EditZone {
            account: ACCOUNT,
            zone: ZONE,
            paused: None,
            kind: None,
            shows_certificate: Some(enabled),
            vanity_name_servers: None,
            by: rig.by(),
        };
        assert_eq!(rig.ledger().transact_blocking(edit).expect("set").shows_certificate, enabled);
    };
    let changes_of_zone = |since| {
        let changes = rig.ledger().reader().expect("open").changes_since(since, 10).expect("reads");
        changes.iter().filter(|change| change.kind == ChangeKind::ZoneSet(ZONE)).count()
    };
    let newest = || *rig.ledger().newest_change().borrow();
    let before = newest();
    add_leaf(&rig, 20, ShownTo::Zone(ZONE)).expect("added");
    assert_eq!(changes_of_zone(before), 0);
    set(true);
    let before = newest();
    add_leaf(&rig, 22, ShownTo::Hostnames(ZONE)).expect("added");
    assert_eq!(changes_of_zone(before), 0);
    let leaf = add_leaf(&rig, 24, ShownTo::Zone(ZONE)).expect("added");
    assert_eq!(changes_of_zone(before), 1);
    let remove = RemoveOutboundLeaf { account: ACCOUNT, id: leaf, by: rig.by() };
    rig.ledger().transact_blocking(remove).expect("removed");
    assert_eq!(changes_of_zone(before), 2);
}
