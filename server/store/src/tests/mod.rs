//! The rig of the ledger's tests: a temporary ledger with one account and one CA, a hand clock, and
//! short ways to write what a test does not care about.

mod documents;
mod faults;
mod files;
mod foreign;
mod issuing;
mod lists;
mod operators;
mod simulation;
mod zones;

use core::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use muster_policy::enrol::{DeviceStatus, OID_COMMON_NAME, San, SubjectAttribute};
use muster_policy::identity::{
    AccountId, CaId, CertificateId, Fingerprint, KeyFingerprint, RequestKey, SecretHash, Serial, TokenId,
};
use muster_policy::name::DeviceId;
use muster_policy::profile::Approval;
use muster_policy::time::UnixTime;
use redb::Database;
use serde_bytes::ByteBuf;
use tempfile::TempDir;

use crate::act::{
    AddCa, BeginIssue, Begun, By, CompleteIssue, CompleteRefused, CreateAccount, CreateToken, IssueRefused,
    KeyState, SetDeviceStatus,
};
use crate::record::{Account, Actor, Ca, CaKind, CaRole, CaState, Certificate, How, Token};
use crate::tables::{TableName, Tables};
use crate::{Error, Ledger, Options};

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const CA: CaId = CaId::from_bytes([2; 16]);
/// The hand clock's start.
const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const LIFETIME: Duration = Duration::from_secs(90 * 86_400);
const REPEAT_FOR: Duration = Duration::from_secs(3_600);

/// A ledger in a folder of its own, with [`ACCOUNT`] and [`CA`].
struct Rig {
    ledger: Option<Ledger>,
    folder: TempDir,
    now: UnixTime,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ledger = Ledger::create(&folder.path().join("ledger.redb"), small()).expect("a new ledger");
        let rig = Self { ledger: Some(ledger), folder, now: START };
        let account = account(ACCOUNT);
        rig.ledger().transact_blocking(CreateAccount { account, by: rig.by() }).expect("a new account");
        rig.ledger().transact_blocking(AddCa { ca: ca(CA), by: rig.by() }).expect("a new CA");
        rig
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().expect("open but while reopening")
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("ledger.redb")
    }

    fn close(&mut self) {
        self.ledger = None;
    }

    fn open(&mut self) {
        self.ledger = Some(Ledger::open(&self.path(), small(), self.now).expect("opens again"));
    }

    /// Closes, checks everything, and opens again.
    fn check(&mut self) {
        self.close();
        Ledger::check(&self.path()).expect("a sound file");
        self.open();
    }

    fn by(&self) -> By {
        By { actor: Actor::Local, at: self.now }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn token(&self, number: u8, uses_allowed: u32) -> TokenId {
        let token = Token { uses_allowed, ..token(number, self.now) };
        let id = token.id;
        self.ledger().transact_blocking(CreateToken { token, by: self.by() }).expect("a new token");
        id
    }

    fn begin(&self, begin: BeginIssue) -> Result<Begun, Error<IssueRefused>> {
        self.ledger().transact_blocking(begin)
    }

    fn complete(&self, begin: &BeginIssue) -> Result<(), Error<CompleteRefused>> {
        let certificate = Box::new(certificate(begin));
        self.ledger().transact_blocking(CompleteIssue {
            request: begin.request,
            certificate,
            note: None,
            by: self.by(),
        })
    }

    /// A whole issuance that must succeed.
    fn suspend(&self, id: &str) {
        let set = SetDeviceStatus {
            account: ACCOUNT,
            device: device(id),
            status: DeviceStatus::Suspended,
            by: self.by(),
        };
        self.ledger().transact_blocking(set).expect("suspended");
    }

    fn issue(&self, number: u64, device: &str) -> CertificateId {
        let begin = begin(number, device, self.now);
        assert_eq!(self.begin(begin.clone()).expect("begins"), Begun::Proceed);
        self.complete(&begin).expect("completes");
        begin.certificate
    }
}

/// Writes into a closed ledger behind its back.
fn edit(rig: &Rig, change: impl FnOnce(&mut Tables<'_>)) {
    let database = Database::open(rig.path()).expect("opens");
    let transaction = database.begin_write().expect("begins");
    let mut tables = Tables::new(&transaction);
    change(&mut tables);
    tables.finish().expect("writes");
    transaction.commit().expect("commits");
}

const fn small() -> Options {
    Options { cache_bytes: 1 << 20 }
}

fn device(id: &str) -> DeviceId {
    id.parse().expect("a device id")
}

fn account(id: AccountId) -> Account {
    Account {
        id,
        name: "acme".parse().expect("a title"),
        trust_domain: "acme.example".parse().expect("a trust domain"),
        created_at: START,
    }
}

fn ca(id: CaId) -> Ca {
    let der = [&[0x30; 24], &id.as_bytes()[..]].concat();
    Ca {
        id,
        account: ACCOUNT,
        title: "devices".parse().expect("a title"),
        kind: CaKind::Managed,
        role: CaRole::Devices,
        state: CaState::Active,
        fingerprint: Fingerprint::from_bytes(sha256(&der)),
        certificate_der: ByteBuf::from(der),
        chain: Vec::new(),
        key_file: None,
        issuer: None,
        not_before: START,
        not_after: UnixTime::MAX,
        serial: Serial::from_bytes(&[1]).expect("a serial"),
        subject: "CN=devices".to_owned(),
        rollover: Vec::new(),
        created_at: START,
        upload: None,
    }
}

/// A claim token with one use that ends in an hour.
fn token(number: u8, now: UnixTime) -> Token {
    Token {
        id: TokenId::new(u64::from(number), [number; 10]),
        account: ACCOUNT,
        hash: SecretHash::from_bytes([number; 32]),
        device: None,
        key: None,
        profile: None,
        uses_allowed: 1,
        uses_taken: 0,
        waiting: 0,
        expires_at: now.plus(REPEAT_FOR),
        revoked_at: None,
        created_at: now,
        last_used_at: None,
    }
}

/// The request `number`: its key, serial and ids all follow from the number.
fn begin(number: u64, id: &str, now: UnixTime) -> BeginIssue {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&number.to_be_bytes());
    let mut serial = [0; 16];
    serial[1..9].copy_from_slice(&number.to_be_bytes());
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_be_bytes());
    BeginIssue {
        request: RequestKey::from_bytes(octets),
        account: ACCOUNT,
        certificate: CertificateId::new(number, random),
        serial: Serial::new(now, serial),
        ca: CA,
        device: device(id),
        profile: "default".parse().expect("a label"),
        key_fingerprint: KeyFingerprint::from_bytes(octets),
        key: KeyState::Made,
        token: None,
        replaces: None,
        approval: Approval::Automatic,
        waiting_max: 2,
        csr_der: vec![0x30; 30],
        source: Some("192.0.2.1".to_owned()),
        repeat_for: REPEAT_FOR,
        by: By { actor: Actor::Anonymous, at: now },
    }
}

/// The certificate that carries out an intent.
fn certificate(begin: &BeginIssue) -> Certificate {
    let mut der = vec![0x30; 60];
    der.extend_from_slice(begin.serial.as_bytes());
    let now = begin.by.at;
    let window = serde_json::json!({ "renew_at": now, "urgent_at": now });
    Certificate {
        id: begin.certificate,
        account: begin.account,
        ca: begin.ca,
        serial: begin.serial,
        fingerprint: Fingerprint::from_bytes(sha256(&der)),
        key_fingerprint: begin.key_fingerprint,
        device: begin.device.clone(),
        profile: begin.profile.clone(),
        subject: vec![SubjectAttribute { oid: OID_COMMON_NAME.to_owned(), text: begin.device.to_string() }],
        sans: vec![San::Uri(format!("spiffe://acme.example/device/{}", begin.device))],
        not_before: now,
        not_after: now.plus(LIFETIME),
        renewal: serde_json::from_value(window).expect("a renewal window"),
        issued_at: now,
        how: How::First,
        replaces: begin.replaces,
        revoked: None,
        der: ByteBuf::from(der),
        client: None,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 octets")
}
