//! The invariants of issuing: one record a request, one certificate a use, nothing lost, nothing used
//! up by a failure.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_policy::enrol::DeviceStatus;
use muster_policy::reason::Reason;
use muster_policy::revocation::RevocationReason;

use super::*;
use crate::act::{
    AbandonIssue, CreateToken, DecideRequest, Decision, INTENT_STALE_AFTER, Rejected, RevokeCertificate,
    RevokeToken, SetCaState, SetDeviceStatus, Signed,
};
use crate::reader::Paging;
use crate::record::Action;

fn policy<T: core::fmt::Debug>(result: Result<T, Error<IssueRefused>>) -> Reason {
    match result {
        Err(Error::Refused(IssueRefused::Policy(reason))) => reason,
        other => panic!("not refused by policy: {other:?}"),
    }
}

fn uses(rig: &Rig, token: TokenId) -> u32 {
    rig.ledger().reader().expect("open").token(ACCOUNT, token).expect("reads").expect("is there").uses_taken
}

#[test]
fn a_certificate_is_found_by_id_serial_and_device() {
    let mut rig = Rig::new();
    let id = rig.issue(1, "meter-1");
    let reader = rig.ledger().reader().expect("open");
    let begin = begin(1, "meter-1", START);
    let stored = reader.certificate(ACCOUNT, id).expect("reads").expect("is there");
    assert_eq!(stored, certificate(&begin));
    assert_eq!(reader.certificate_by_serial(CA, begin.serial).expect("reads"), Some(stored.clone()));
    let of_device = reader.certificates_of_device(ACCOUNT, &device("meter-1"), 10).expect("reads");
    assert_eq!(of_device, [stored]);
    assert!(reader.certificates_of_device(ACCOUNT, &device("meter-"), 10).expect("reads").is_empty());
    drop(reader);
    rig.check();
}

/// Readers between two commits share a snapshot, which must not outlast them.
#[test]
fn a_reader_sees_what_was_answered_before_it_and_nothing_after() {
    let rig = Rig::new();
    let known = |reader: &crate::Reader| reader.device(ACCOUNT, &device("a")).expect("reads").is_some();
    let (before, beside) = (rig.ledger().reader().expect("open"), rig.ledger().reader().expect("open"));
    assert!(!known(&before));
    rig.begin(begin(1, "a", rig.now)).expect("begins");
    let after = rig.ledger().reader().expect("open");
    assert!(known(&after) && !known(&before) && !known(&beside));
}

#[test]
fn the_same_request_gets_the_same_certificate_inside_its_window() {
    let mut rig = Rig::new();
    let token = rig.token(1, 1);
    let first = BeginIssue { token: Some(token), ..begin(1, "a", rig.now) };
    assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
    rig.complete(&first).expect("completes");
    // Another certificate id and serial, as a second attempt would choose; the token is used up.
    let fresh = begin(2, "a", rig.now);
    let again = BeginIssue { certificate: fresh.certificate, serial: fresh.serial, ..first.clone() };
    let expected = Begun::AlreadyIssued(Box::new(certificate(&first)));
    assert_eq!(rig.begin(again.clone()).expect("is answered"), expected);

    let once = BeginIssue { repeat_for: Duration::ZERO, token: None, ..begin(3, "a", rig.now) };
    assert_eq!(rig.begin(BeginIssue { request: first.request, ..once }).expect("anew"), Begun::Proceed);
    rig.check();
    rig.pass(REPEAT_FOR);
    let late = BeginIssue { token: None, by: rig.by(), ..again };
    assert_eq!(rig.begin(late).expect("begins anew"), Begun::Proceed);
}

#[test]
fn a_used_up_token_carries_the_same_request_again_if_it_is_bound_to_its_key() {
    let mut rig = Rig::new();
    let expires_at = rig.now.plus(REPEAT_FOR + REPEAT_FOR + REPEAT_FOR);
    let first = begin(1, "a", rig.now);
    let bound = Token {
        device: Some(first.device.clone()),
        key: Some(first.key_fingerprint),
        expires_at,
        ..token(1, rig.now)
    };
    let unbound = Token { device: Some(first.device.clone()), expires_at, ..token(2, rig.now) };
    for token in [&bound, &unbound] {
        let create = CreateToken { token: token.clone(), by: rig.by() };
        rig.ledger().transact_blocking(create).expect("a new token");
    }
    let fresh = |rig: &Rig, number, token: &Token| BeginIssue {
        token: Some(token.id),
        by: rig.by(),
        ..begin(number, "a", rig.now)
    };
    let other = fresh(&rig, 2, &unbound);
    let first = BeginIssue { token: Some(bound.id), ..first };
    for begin in [&first, &other] {
        assert_eq!(rig.begin(begin.clone()).expect("begins"), Begun::Proceed);
        rig.complete(begin).expect("completes");
    }
    rig.pass(REPEAT_FOR);
    let late = BeginIssue { request: other.request, ..fresh(&rig, 3, &unbound) };
    assert_eq!(policy(rig.begin(late)), Reason::TokenUsed, "whoever has this token may have any key");

    let again = |rig: &Rig, number| BeginIssue {
        request: first.request,
        key_fingerprint: first.key_fingerprint,
        ..fresh(rig, number, &bound)
    };
    let late = again(&rig, 4);
    assert_eq!(rig.begin(late.clone()).expect("begins anew"), Begun::Proceed);
    rig.complete(&late).expect("completes");
    assert_eq!(uses(&rig, bound.id), 1, "it is the same use");
    rig.check();
    // Another request by the same key has no answer from before.
    let new = BeginIssue { key_fingerprint: first.key_fingerprint, ..fresh(&rig, 5, &bound) };
    assert_eq!(policy(rig.begin(new)), Reason::TokenUsed);

    let certificate = late.certificate;
    let reason = RevocationReason::KeyCompromise;
    let revoke = RevokeCertificate { account: ACCOUNT, certificate, reason, by: rig.by() };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    let refused = again(&rig, 6);
    assert_eq!(policy(rig.begin(refused)), Reason::TokenUsed, "the right to it was taken away");
    rig.pass(REPEAT_FOR + REPEAT_FOR);
    let refused = again(&rig, 7);
    assert_eq!(policy(rig.begin(refused)), Reason::TokenExpired);
}

#[test]
fn a_revoked_certificate_answers_no_repetition() {
    let rig = Rig::new();
    let id = rig.issue(1, "a");
    let revoke = RevokeCertificate {
        account: ACCOUNT,
        certificate: id,
        reason: RevocationReason::KeyCompromise,
        by: rig.by(),
    };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    let fresh = begin(2, "a", rig.now);
    let again = BeginIssue { request: begin(1, "a", rig.now).request, ..fresh };
    assert_eq!(rig.begin(again).expect("begins anew"), Begun::Proceed);
}

#[test]
fn a_request_is_worked_on_once_at_a_time() {
    let mut rig = Rig::new();
    let first = begin(1, "a", rig.now);
    assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
    assert_eq!(rig.begin(first.clone()).expect("is told"), Begun::InProgress);
    // Its caller never came back; a later attempt takes over, and the first can't complete any more.
    rig.pass(INTENT_STALE_AFTER + Duration::from_secs(1));
    let fresh = begin(2, "a", rig.now);
    let second = BeginIssue { request: first.request, ..fresh };
    assert_eq!(rig.begin(second.clone()).expect("takes over"), Begun::Proceed);
    assert!(matches!(rig.complete(&first), Err(Error::Refused(CompleteRefused::IntentDiffers))));
    rig.complete(&second).expect("completes");
    rig.check();
}

#[test]
fn a_stale_intent_gives_its_use_to_the_one_that_takes_over() {
    let mut rig = Rig::new();
    let token = rig.token(1, 1);
    let first = BeginIssue { token: Some(token), ..begin(1, "a", rig.now) };
    assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
    rig.pass(INTENT_STALE_AFTER + Duration::from_secs(1));
    let second = BeginIssue { request: first.request, token: Some(token), ..begin(2, "a", rig.now) };
    assert_eq!(rig.begin(second).expect("takes over"), Begun::Proceed);
    assert_eq!(uses(&rig, token), 1);
}

#[test]
fn many_threads_with_one_token_of_one_use_get_one_certificate() {
    const THREADS: u64 = 64;
    let mut rig = Rig::new();
    let token = rig.token(1, 1);
    let issued = AtomicU64::new(0);
    let start = Barrier::new(64);
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (rig, issued, start) = (&rig, &issued, &start);
            scope.spawn(move || {
                let begin = BeginIssue { token: Some(token), ..begin(number, "a", rig.now) };
                start.wait();
                match rig.begin(begin.clone()) {
                    Ok(Begun::Proceed) => {
                        rig.complete(&begin).expect("the one that began completes");
                        issued.fetch_add(1, Ordering::Relaxed);
                    }
                    other => assert_eq!(policy(other), Reason::TokenUsed),
                }
            });
        }
    });
    assert_eq!(issued.into_inner(), 1);
    assert_eq!(uses(&rig, token), 1);
    rig.check();
}

#[test]
fn an_abandoned_request_uses_up_nothing() {
    let mut rig = Rig::new();
    let token = rig.token(1, 1);
    let first = BeginIssue { token: Some(token), ..begin(1, "a", rig.now) };
    for signed in [Signed::No, Signed::Maybe] {
        assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
        assert_eq!(uses(&rig, token), 1);
        let abandon = AbandonIssue {
            request: first.request,
            certificate: first.certificate,
            signed,
            reason: Some(Reason::CaUnavailable),
            by: rig.by(),
        };
        // The second time there is nothing to abandon.
        rig.ledger().transact_blocking(abandon.clone()).expect("abandoned");
        rig.ledger().transact_blocking(abandon).expect("changes nothing");
        assert_eq!(uses(&rig, token), 0);
    }
    let entries = rig
        .ledger()
        .reader()
        .expect("open")
        .audit(&crate::reader::AuditFilter::default(), &Paging::numbered(1, 1))
        .expect("reads");
    assert_eq!(entries.items[0].action, Action::IssueAbandoned);
    assert_eq!(entries.items[0].subjects.serial, Some(first.serial));
    rig.check();
}

#[test]
fn a_crash_between_intent_and_certificate_uses_up_nothing() {
    let mut rig = Rig::new();
    let token = rig.token(1, 1);
    let first = BeginIssue { token: Some(token), ..begin(1, "a", rig.now) };
    assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
    rig.check();
    assert_eq!(uses(&rig, token), 0);
    assert!(rig.ledger().reader().expect("open").intents().expect("reads").is_empty());
    assert!(matches!(rig.complete(&first), Err(Error::Refused(CompleteRefused::IntentMissing))));
    let page = rig
        .ledger()
        .reader()
        .expect("open")
        .audit(&crate::reader::AuditFilter::default(), &Paging::numbered(1, 1))
        .expect("reads");
    assert_eq!(page.items[0].action, Action::IssueInterrupted);
    assert_eq!(page.items[0].subjects.serial, Some(first.serial));
}

#[test]
fn a_certificate_other_than_the_intended_one_is_not_stored() {
    let rig = Rig::new();
    let first = begin(1, "a", rig.now);
    assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
    let other = begin(2, "a", rig.now);
    for wrong in [
        BeginIssue { serial: other.serial, ..first.clone() },
        BeginIssue { certificate: other.certificate, ..first.clone() },
        BeginIssue { device: device("b"), ..first.clone() },
        BeginIssue { key_fingerprint: other.key_fingerprint, ..first.clone() },
        BeginIssue { ca: CaId::from_bytes([9; 16]), ..first.clone() },
    ] {
        assert!(matches!(rig.complete(&wrong), Err(Error::Refused(CompleteRefused::IntentDiffers))));
    }
}

#[test]
fn a_serial_is_used_once() {
    let rig = Rig::new();
    rig.issue(1, "a");
    let again = BeginIssue { serial: begin(1, "a", rig.now).serial, ..begin(2, "a", rig.now) };
    assert!(matches!(rig.begin(again), Err(Error::Refused(IssueRefused::SerialTaken))));
    // Two that began with the same serial: the second to complete is refused.
    let one = begin(3, "a", rig.now);
    let two = BeginIssue { serial: one.serial, ..begin(4, "a", rig.now) };
    assert_eq!(rig.begin(one.clone()).expect("begins"), Begun::Proceed);
    assert_eq!(rig.begin(two.clone()).expect("begins"), Begun::Proceed);
    rig.complete(&one).expect("completes");
    assert!(matches!(rig.complete(&two), Err(Error::Refused(CompleteRefused::SerialTaken))));
}

#[test]
fn every_term_of_a_token_is_checked_again() {
    let rig = Rig::new();
    let id = rig.token(1, 1);
    let base = BeginIssue { token: Some(id), ..begin(1, "a", rig.now) };
    let late = By { at: rig.now.plus(REPEAT_FOR), ..rig.by() };
    assert_eq!(policy(rig.begin(BeginIssue { by: late, ..base.clone() })), Reason::TokenExpired);
    let unknown = Some(TokenId::new(0, [9; 10]));
    assert_eq!(policy(rig.begin(BeginIssue { token: unknown, ..base.clone() })), Reason::CredentialsWrong);

    let bound = Token {
        device: Some(device("a")),
        key: Some(base.key_fingerprint),
        profile: Some(base.profile.clone()),
        ..token(2, rig.now)
    };
    let by = rig.by();
    rig.ledger().transact_blocking(CreateToken { token: bound.clone(), by }).expect("a new token");
    let base = BeginIssue { token: Some(bound.id), ..base };
    let other_device = BeginIssue { device: device("b"), ..base.clone() };
    assert_eq!(policy(rig.begin(other_device)), Reason::CredentialsWrong);
    let other_key = BeginIssue { key_fingerprint: begin(2, "a", rig.now).key_fingerprint, ..base.clone() };
    assert_eq!(policy(rig.begin(other_key)), Reason::TokenKeyMismatch);
    let other_profile = BeginIssue { profile: "other".parse().expect("a label"), ..base.clone() };
    assert_eq!(policy(rig.begin(other_profile)), Reason::ProfileForbidden);

    let revoke = RevokeToken { account: ACCOUNT, token: bound.id, by: rig.by() };
    rig.ledger().transact_blocking(revoke.clone()).expect("revoked");
    rig.ledger().transact_blocking(revoke).expect("revoked already");
    assert_eq!(policy(rig.begin(base)), Reason::TokenRevoked);
}

#[test]
fn device_ca_and_renewed_certificate_are_checked_again() {
    let rig = Rig::new();
    let held = rig.issue(1, "a");
    let renewal = BeginIssue { replaces: Some(held), ..begin(2, "a", rig.now) };
    let stranger = BeginIssue { device: device("b"), ..renewal.clone() };
    assert_eq!(policy(rig.begin(stranger)), Reason::CertificateUnknown);
    let unknown = BeginIssue { replaces: Some(CertificateId::new(9, [9; 10])), ..renewal.clone() };
    assert_eq!(policy(rig.begin(unknown)), Reason::CertificateUnknown);
    let reason = RevocationReason::Superseded;
    let revoke = RevokeCertificate { account: ACCOUNT, certificate: held, reason, by: rig.by() };
    rig.ledger().transact_blocking(revoke).expect("revoked");
    assert_eq!(policy(rig.begin(renewal)), Reason::CertificateRevoked);

    let next = begin(3, "a", rig.now);
    let other_ca = BeginIssue { ca: CaId::from_bytes([9; 16]), ..next.clone() };
    assert_eq!(policy(rig.begin(other_ca)), Reason::CaUnavailable);
    let retire = SetCaState { ca: CA, state: CaState::Retiring, rollover: None, by: rig.by() };
    rig.ledger().transact_blocking(retire).expect("set");
    assert_eq!(policy(rig.begin(next.clone())), Reason::CaUnavailable);

    for (status, reason) in
        [(DeviceStatus::Suspended, Reason::DeviceSuspended), (DeviceStatus::Retired, Reason::DeviceRetired)]
    {
        let set = SetDeviceStatus { account: ACCOUNT, device: device("a"), status, by: rig.by() };
        rig.ledger().transact_blocking(set).expect("set");
        assert_eq!(policy(rig.begin(next.clone())), reason);
    }
}

#[test]
fn a_device_suspended_while_signing_gets_no_certificate() {
    let rig = Rig::new();
    let first = begin(1, "a", rig.now);
    assert_eq!(rig.begin(first.clone()).expect("begins"), Begun::Proceed);
    let status = DeviceStatus::Suspended;
    let set = SetDeviceStatus { account: ACCOUNT, device: device("a"), status, by: rig.by() };
    rig.ledger().transact_blocking(set).expect("set");
    let refused = rig.complete(&first);
    assert!(matches!(refused, Err(Error::Refused(CompleteRefused::DeviceInactive(_)))), "{refused:?}");
}

#[test]
fn a_request_waits_for_a_person_and_is_issued_once_approved() {
    let mut rig = Rig::new();
    let first = BeginIssue { approval: Approval::Manual, ..begin(1, "a", rig.now) };
    let since = rig.now;
    assert_eq!(rig.begin(first.clone()).expect("waits"), Begun::Waiting { since });
    rig.pass(Duration::from_secs(60));
    let poll = BeginIssue { by: rig.by(), ..first.clone() };
    assert_eq!(rig.begin(poll.clone()).expect("still waits"), Begun::Waiting { since });
    let reader = rig.ledger().reader().expect("open");
    let waiting = reader.waiting(ACCOUNT, &Paging::numbered(1, 10)).expect("reads").items;
    assert_eq!((waiting.len(), &waiting[0].csr_der), (1, &ByteBuf::from(first.csr_der.clone())));
    drop(reader);
    rig.check();

    let decide = DecideRequest { request: first.request, decision: Decision::Approve, by: rig.by() };
    rig.ledger().transact_blocking(decide.clone()).expect("approved");
    let twice = rig.ledger().transact_blocking(decide);
    assert!(matches!(twice, Err(Error::Refused(Rejected::RequestNotWaiting))));
    assert_eq!(rig.begin(poll.clone()).expect("begins"), Begun::Proceed);
    rig.complete(&poll).expect("completes");
    let request = rig.ledger().reader().expect("open").request(first.request).expect("reads");
    assert_eq!(request, None);
    let again = rig.begin(poll.clone()).expect("is answered");
    assert_eq!(again, Begun::AlreadyIssued(Box::new(certificate(&poll))));
    rig.check();
}

#[test]
fn a_denied_request_stays_denied() {
    let rig = Rig::new();
    let first = BeginIssue { approval: Approval::Manual, ..begin(1, "a", rig.now) };
    rig.begin(first.clone()).expect("waits");
    let decide = DecideRequest { request: first.request, decision: Decision::Deny, by: rig.by() };
    rig.ledger().transact_blocking(decide).expect("denied");
    assert_eq!(policy(rig.begin(first)), Reason::ApprovalDenied);
}

#[test]
fn no_more_requests_wait_than_a_person_is_to_judge() {
    let mut rig = Rig::new();
    let now = rig.now;
    let manual = |number, id| BeginIssue { approval: Approval::Manual, ..begin(number, id, now) };
    rig.begin(manual(1, "a")).expect("waits");
    rig.begin(manual(2, "b")).expect("waits");
    assert_eq!(policy(rig.begin(manual(3, "c"))), Reason::ApprovalQueueFull);
    // The places that are taken stay theirs, and a decision frees one.
    assert!(matches!(rig.begin(manual(1, "a")), Ok(Begun::Waiting { .. })));
    let request = manual(1, "a").request;
    let decide = DecideRequest { request, decision: Decision::Deny, by: rig.by() };
    rig.ledger().transact_blocking(decide).expect("denied");
    rig.begin(manual(3, "c")).expect("waits");
    rig.check();
}

#[test]
fn a_token_has_as_many_requests_wait_as_it_has_uses() {
    let mut rig = Rig::new();
    let token = token(1, rig.now);
    rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
    let by = By { actor: Actor::Token(device("a"), token.id), at: rig.now };
    let manual = |number| BeginIssue {
        approval: Approval::Manual,
        token: Some(token.id),
        by: by.clone(),
        ..begin(number, "a", rig.now)
    };
    rig.begin(manual(1)).expect("waits");
    assert_eq!(policy(rig.begin(manual(2))), Reason::ApprovalQueueFull, "it has one use");
    rig.begin(BeginIssue { approval: Approval::Manual, ..begin(3, "b", rig.now) })
        .expect("others have their place");
    assert!(matches!(rig.begin(manual(1)), Ok(Begun::Waiting { .. })));
    let decide = DecideRequest { request: manual(1).request, decision: Decision::Deny, by: rig.by() };
    rig.ledger().transact_blocking(decide).expect("denied");
    assert!(matches!(rig.begin(manual(2)), Ok(Begun::Waiting { .. })), "a decision frees its place");
    rig.check();
}

#[test]
fn what_a_person_approved_outlives_its_token() {
    let mut rig = Rig::new();
    let token = token(1, rig.now);
    rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
    let manual = |number, rig: &Rig| BeginIssue {
        approval: Approval::Manual,
        token: Some(token.id),
        by: rig.by(),
        ..begin(number, "a", rig.now)
    };
    rig.begin(manual(1, &rig)).expect("waits");
    rig.pass(REPEAT_FOR + Duration::from_secs(1));
    let decide =
        DecideRequest { request: manual(1, &rig).request, decision: Decision::Approve, by: rig.by() };
    rig.ledger().transact_blocking(decide).expect("approved");
    assert_eq!(policy(rig.begin(manual(2, &rig))), Reason::TokenExpired, "nobody approved this one");
    let poll = BeginIssue { by: rig.by(), ..manual(1, &rig) };
    assert_eq!(rig.begin(poll.clone()).expect("begins"), Begun::Proceed);
    rig.complete(&poll).expect("completes");
    rig.check();
}

#[test]
fn whatever_is_in_the_way_is_said_before_a_key_is_made_and_nothing_is_stored() {
    let mut rig = Rig::new();
    let made = |number, token: Token| {
        rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
        BeginIssue { token: Some(token.id), key: KeyState::ToBeMade, ..begin(number, "a", rig.now) }
    };
    let good = made(1, token(1, rig.now));
    let ended = made(2, Token { expires_at: rig.now, ..token(2, rig.now) });
    let first = begin(3, "a", rig.now);
    let bound = made(3, Token { key: Some(first.key_fingerprint), ..token(3, rig.now) });
    assert_eq!(rig.begin(good.clone()).expect("may have one"), Begun::MakeKey);
    assert_eq!(policy(rig.begin(ended)), Reason::TokenExpired);
    assert_eq!(policy(rig.begin(bound)), Reason::TokenKeyMismatch, "the key to come is not the bound one");
    assert_eq!(uses(&rig, good.token.expect("one")), 0);
    let key = begin(4, "a", rig.now).key_fingerprint;
    let with_key = BeginIssue { key_fingerprint: key, key: KeyState::Made, ..good.clone() };
    assert_eq!(rig.begin(with_key.clone()).expect("begins"), Begun::Proceed);
    assert_eq!(rig.begin(good.clone()).expect("waits for its twin"), Begun::InProgress);
    rig.complete(&with_key).expect("completes");
    let again = BeginIssue { repeat_for: Duration::ZERO, ..good };
    assert_eq!(policy(rig.begin(again)), Reason::TokenUsed);

    let waits = BeginIssue { approval: Approval::Manual, key: KeyState::ToBeMade, ..begin(5, "b", rig.now) };
    assert!(matches!(rig.begin(waits.clone()), Ok(Begun::Waiting { .. })));
    assert!(matches!(rig.begin(waits.clone()), Ok(Begun::Waiting { .. })));
    let decide = DecideRequest { request: waits.request, decision: Decision::Approve, by: rig.by() };
    assert_eq!(
        rig.ledger().transact_blocking(decide).expect("approved").key_fingerprint,
        waits.key_fingerprint
    );
    assert_eq!(rig.begin(waits).expect("may have one"), Begun::MakeKey);
    rig.check();
}

#[test]
fn a_token_bound_to_a_key_asks_again_where_a_person_has_to_agree() {
    let mut rig = Rig::new();
    let first = begin(1, "a", rig.now);
    let token = Token {
        device: Some(first.device.clone()),
        key: Some(first.key_fingerprint),
        expires_at: rig.now.plus(REPEAT_FOR * 3),
        ..token(1, rig.now)
    };
    rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
    let ask = |rig: &Rig, number| BeginIssue {
        request: first.request,
        key_fingerprint: first.key_fingerprint,
        approval: Approval::Manual,
        token: Some(token.id),
        by: By { actor: Actor::Token(device("a"), token.id), at: rig.now },
        ..begin(number, "a", rig.now)
    };
    for number in [1, 2] {
        assert!(matches!(rig.begin(ask(&rig, number)), Ok(Begun::Waiting { .. })), "{number}");
        let decide = DecideRequest { request: first.request, decision: Decision::Approve, by: rig.by() };
        rig.ledger().transact_blocking(decide).expect("approved");
        let poll = ask(&rig, number);
        assert_eq!(rig.begin(poll.clone()).expect("begins"), Begun::Proceed, "{number}");
        rig.complete(&poll).expect("completes");
        assert_eq!(uses(&rig, token.id), 1, "it is the same use");
        rig.check();
        rig.pass(REPEAT_FOR);
    }
}

#[test]
fn a_device_that_lost_its_key_asks_with_another_and_the_newest_request_waits() {
    let mut rig = Rig::new();
    let token = Token { device: Some(device("a")), ..token(1, rig.now) };
    rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
    let by = By { actor: Actor::Token(device("a"), token.id), at: rig.now };
    let now = rig.now;
    let manual = |number| BeginIssue {
        approval: Approval::Manual,
        token: Some(token.id),
        by: by.clone(),
        ..begin(number, "a", now)
    };
    let stranger = BeginIssue { approval: Approval::Manual, ..begin(3, "b", rig.now) };
    rig.begin(stranger.clone()).expect("waits");
    for number in [1, 2] {
        // The queue is full at the second; it takes the place of the first, and nobody else's.
        assert!(matches!(rig.begin(manual(number)), Ok(Begun::Waiting { .. })), "{number}");
        rig.check();
    }
    let reader = rig.ledger().reader().expect("open");
    let waiting =
        reader.waiting(ACCOUNT, &Paging::From { offset: 0, after: None, limit: 10 }).expect("reads").items;
    let mut keys: Vec<_> = waiting.iter().map(|waiting| waiting.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, [manual(2).request, stranger.request]);
}

#[test]
fn a_request_that_takes_its_tokens_place_reads_nobody_elses() {
    let mut rig = Rig::new();
    let token = Token { device: Some(device("a")), ..token(1, rig.now) };
    rig.ledger().transact_blocking(CreateToken { token: token.clone(), by: rig.by() }).expect("made");
    let manual = |rig: &Rig, number, id: &str| BeginIssue {
        approval: Approval::Manual,
        waiting_max: 10_000,
        ..begin(number, id, rig.now)
    };
    let own = |rig: &Rig, number| BeginIssue {
        token: Some(token.id),
        by: By { actor: Actor::Token(device("a"), token.id), at: rig.now },
        ..manual(rig, number, "a")
    };
    let others: Vec<_> = (100..1_100).map(|number| manual(&rig, number, "b")).collect();
    for other in &others {
        rig.begin(other.clone()).expect("waits");
    }
    rig.pass(Duration::from_secs(1));
    rig.begin(own(&rig, 1)).expect("waits");
    rig.close();
    // Whoever reads a request that is not the token's own fails on it, however many there are.
    edit(&rig, |tables| {
        for other in &others {
            tables.put_raw(TableName::Requests, other.request.as_bytes(), b"not a request").expect("writes");
        }
    });
    rig.open();
    assert!(matches!(rig.begin(own(&rig, 2)), Ok(Begun::Waiting { .. })));
    assert!(matches!(rig.begin(own(&rig, 3)), Ok(Begun::Waiting { .. })));
    let reader = rig.ledger().reader().expect("open");
    assert!(reader.request(own(&rig, 2).request).expect("reads").is_none(), "the third has its place");
    assert!(reader.request(own(&rig, 3).request).expect("reads").is_some());
}
