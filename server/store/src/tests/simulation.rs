//! Random lists of operations against a model that fits on a page.
//!
//! Failure is: an answer the model does not give, a file that does not pass its check after a crash,
//! a token with more certificates than uses, a request with two good certificates. What stays random
//! in a run is only the order in which threads reach the queue; the lists here use one thread.

use std::collections::BTreeMap;

use muster_policy::enrol::DeviceStatus;
use muster_policy::reason::Reason;
use muster_policy::revocation::RevocationReason;
use proptest::prelude::*;

use super::*;
use crate::act::{
    AbandonIssue, INTENT_STALE_AFTER, ReactivateCertificate, Retention, RevokeCertificate, RevokeToken,
    SetDeviceStatus, Signed, Tidy,
};

/// Uses of each of the two tokens.
const USES: [u32; 2] = [1, 3];

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Time goes on.
    Pass(u16),
    /// Request `0..6` asks, with a token or none.
    Begin {
        request: u8,
        token: Option<bool>,
    },
    /// The oldest attempt in hand is completed.
    Complete,
    /// The oldest attempt in hand is abandoned.
    Abandon,
    /// The answers in hand are lost, and the ledger is closed, checked and opened.
    Crash,
    /// The newest certificate of a request is revoked or made good.
    Revoke(u8),
    Reactivate(u8),
    /// A device of `0..2` is suspended or resumed.
    Suspend(u8),
    Resume(u8),
    /// A token is revoked.
    RevokeToken(bool),
    /// Old things are forgotten.
    Tidy,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0_u16..200).prop_map(Op::Pass),
        1 => Just(Op::Pass(5_000)),
        8 => (0_u8..6, any::<Option<bool>>()).prop_map(|(request, token)| Op::Begin { request, token }),
        6 => Just(Op::Complete),
        2 => Just(Op::Abandon),
        1 => Just(Op::Crash),
        1 => (0_u8..6).prop_map(Op::Revoke),
        1 => (0_u8..6).prop_map(Op::Reactivate),
        1 => (0_u8..2).prop_map(Op::Suspend),
        2 => (0_u8..2).prop_map(Op::Resume),
        1 => any::<bool>().prop_map(Op::RevokeToken),
        1 => Just(Op::Tidy),
    ]
}

#[derive(Clone, Debug)]
struct Issued {
    certificate: CertificateId,
    at: UnixTime,
    revoked: bool,
}

/// What the ledger should be.
#[derive(Default)]
struct Model {
    uses: [u32; 2],
    token_revoked: [bool; 2],
    suspended: [bool; 2],
    /// Request -> the attempt that has its intent.
    intents: BTreeMap<u8, BeginIssue>,
    issued: BTreeMap<u8, Issued>,
    certificates: u64,
}

struct World {
    rig: Rig,
    tokens: [TokenId; 2],
    model: Model,
    /// Attempts whose caller still lives, oldest first.
    in_hand: Vec<(u8, BeginIssue)>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let rig = Rig::new();
        let tokens = [rig.token(1, USES[0]), rig.token(2, USES[1])];
        Self { rig, tokens, model: Model::default(), in_hand: Vec::new(), next: 100 }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Pass(seconds) => self.rig.pass(Duration::from_secs(seconds.into())),
            Op::Begin { request, token } => self.begin(request, token),
            Op::Complete => self.complete(),
            Op::Abandon => self.abandon(),
            Op::Crash => {
                self.in_hand.clear();
                self.rig.check();
                let requests: Vec<u8> = self.model.intents.keys().copied().collect();
                requests.into_iter().for_each(|request| self.release(request));
            }
            Op::Revoke(request) => self.revoke(request),
            Op::Reactivate(request) => self.reactivate(request),
            Op::Suspend(number) => self.set_device(number, DeviceStatus::Suspended),
            Op::Resume(number) => self.set_device(number, DeviceStatus::Active),
            Op::RevokeToken(second) => {
                let token = self.tokens[usize::from(second)];
                let revoke = RevokeToken { account: ACCOUNT, token, by: self.rig.by() };
                self.rig.ledger().transact_blocking(revoke).expect("revoked");
                self.model.token_revoked[usize::from(second)] = true;
            }
            Op::Tidy => self.tidy(),
        }
    }

    fn begin(&mut self, request: u8, token: Option<bool>) {
        self.next += 1;
        let key = begin(request.into(), "x", START);
        let id = format!("device-{}", request % 2);
        let attempt = BeginIssue {
            request: key.request,
            key_fingerprint: key.key_fingerprint,
            token: token.map(|second| self.tokens[usize::from(second)]),
            ..begin(self.next, &id, self.rig.now)
        };
        let expected = self.expect(request, token);
        let answer = self.rig.begin(attempt.clone());
        match (expected, answer) {
            (Ok(Expected::Proceed), Ok(Begun::Proceed)) => {
                self.release(request);
                if let Some(second) = token {
                    self.model.uses[usize::from(second)] += 1;
                }
                self.model.intents.insert(request, attempt.clone());
                self.in_hand.push((request, attempt));
            }
            (Ok(Expected::InProgress), Ok(Begun::InProgress)) => {}
            (Ok(Expected::Again(id)), Ok(Begun::AlreadyIssued(certificate))) => {
                assert_eq!(certificate.id, id)
            }
            (Err(reason), Err(Error::Refused(IssueRefused::Policy(found)))) => assert_eq!(found, reason),
            (expected, answer) => panic!("expected {expected:?}, got {answer:?}"),
        }
    }

    fn expect(&self, request: u8, token: Option<bool>) -> Result<Expected, Reason> {
        let now = self.rig.now;
        if self.model.suspended[usize::from(request % 2)] {
            return Err(Reason::DeviceSuspended);
        }
        let token = token.map(usize::from);
        if token.is_some_and(|token| self.model.token_revoked[token]) {
            return Err(Reason::TokenRevoked);
        }
        let intent = self.model.intents.get(&request);
        if intent.is_some_and(|intent| intent.by.at.plus(INTENT_STALE_AFTER) >= now) {
            return Ok(Expected::InProgress);
        }
        if let Some(issued) = self.model.issued.get(&request)
            && now < issued.at.plus(REPEAT_FOR)
            && !issued.revoked
        {
            return Ok(Expected::Again(issued.certificate));
        }
        if let Some(token) = token {
            if now >= START.plus(REPEAT_FOR) {
                return Err(Reason::TokenExpired);
            }
            let freed = intent.is_some_and(|intent| intent.token == Some(self.tokens[token]));
            if self.model.uses[token] - u32::from(freed) >= USES[token] {
                return Err(Reason::TokenUsed);
            }
        }
        Ok(Expected::Proceed)
    }

    fn complete(&mut self) {
        if self.in_hand.is_empty() {
            return;
        }
        let (request, attempt) = self.in_hand.remove(0);
        let intended = self.model.intents.get(&request).map(|intent| intent.certificate);
        let suspended = self.model.suspended[usize::from(request % 2)];
        match self.rig.complete(&attempt) {
            Ok(()) => {
                assert!(intended == Some(attempt.certificate) && !suspended);
                self.model.intents.remove(&request);
                self.model.certificates += 1;
                let issued = Issued { certificate: attempt.certificate, at: attempt.by.at, revoked: false };
                self.model.issued.insert(request, issued);
            }
            Err(Error::Refused(CompleteRefused::IntentMissing)) => assert_eq!(intended, None),
            Err(Error::Refused(CompleteRefused::IntentDiffers)) => {
                assert!(intended.is_some_and(|intended| intended != attempt.certificate));
            }
            Err(Error::Refused(CompleteRefused::DeviceInactive(_))) => assert!(suspended),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn abandon(&mut self) {
        if self.in_hand.is_empty() {
            return;
        }
        let (request, attempt) = self.in_hand.remove(0);
        let abandon = AbandonIssue {
            request: attempt.request,
            certificate: attempt.certificate,
            signed: Signed::Maybe,
            reason: None,
            by: self.rig.by(),
        };
        self.rig.ledger().transact_blocking(abandon).expect("abandoned");
        if self.model.intents.get(&request).is_some_and(|intent| intent.certificate == attempt.certificate) {
            self.release(request);
        }
    }

    /// The model's intent is gone, and its use is back.
    fn release(&mut self, request: u8) {
        let token = self.model.intents.remove(&request).and_then(|intent| intent.token);
        if let Some(token) = self.tokens.iter().position(|known| Some(*known) == token) {
            self.model.uses[token] -= 1;
        }
    }

    fn revoke(&mut self, request: u8) {
        let Some(issued) = self.model.issued.get_mut(&request) else { return };
        issued.revoked = true;
        let (certificate, reason) = (issued.certificate, RevocationReason::CertificateHold);
        let revoke = RevokeCertificate { account: ACCOUNT, certificate, reason, by: self.rig.by() };
        self.rig.ledger().transact_blocking(revoke).expect("revoked");
    }

    fn reactivate(&mut self, request: u8) {
        let Some(issued) = self.model.issued.get_mut(&request) else { return };
        issued.revoked = false;
        let reactivate =
            ReactivateCertificate { account: ACCOUNT, certificate: issued.certificate, by: self.rig.by() };
        self.rig.ledger().transact_blocking(reactivate).expect("good again");
    }

    fn set_device(&mut self, number: u8, status: DeviceStatus) {
        let set = SetDeviceStatus {
            account: ACCOUNT,
            device: device(&format!("device-{number}")),
            status,
            by: self.rig.by(),
        };
        // A device that never asked is not known.
        if self.rig.ledger().transact_blocking(set).is_ok() {
            self.model.suspended[usize::from(number)] = status == DeviceStatus::Suspended;
        }
    }

    fn tidy(&mut self) {
        let tidy = Tidy { now: self.rig.now, keep: Retention::default(), step: 100 };
        self.rig.ledger().transact_blocking(tidy).expect("tidied");
        let now = self.rig.now;
        let stale = |intent: &BeginIssue| intent.by.at.plus(INTENT_STALE_AFTER) < now;
        let requests: Vec<u8> = self
            .model
            .intents
            .iter()
            .filter(|(_, intent)| stale(intent))
            .map(|(request, _)| *request)
            .collect();
        requests.into_iter().for_each(|request| self.release(request));
    }

    fn verify(&mut self) {
        self.in_hand.clear();
        for request in self.model.intents.keys().copied().collect::<Vec<_>>() {
            self.release(request);
        }
        self.rig.check();
        let reader = self.rig.ledger().reader().expect("open");
        for (number, id) in self.tokens.into_iter().enumerate() {
            let token = reader.token(ACCOUNT, id).expect("reads").expect("is there");
            assert_eq!(token.uses_taken, self.model.uses[number]);
            assert!(token.uses_taken <= USES[number]);
        }
        assert_eq!(reader.counters(ACCOUNT).expect("reads").certificates, self.model.certificates);
        for issued in self.model.issued.values() {
            let stored = reader.certificate(ACCOUNT, issued.certificate).expect("reads").expect("is there");
            assert_eq!(stored.revoked.is_some(), issued.revoked);
        }
    }
}

#[derive(Debug)]
enum Expected {
    Again(CertificateId),
    InProgress,
    Proceed,
}

fn play(ops: &[Op]) {
    let mut world = World::new();
    for op in ops {
        world.run(*op);
    }
    world.verify();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_list_of_operations_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..80)) {
        play(&ops);
    }
}
