//! Issues made-up certificates into a ledger as fast as it takes them, and tells each one it was
//! promised: the writer of the kill -9 and power-cut loops.
//!
//! `writer DIR THREADS [COUNT]` prints a certificate's id after its acknowledgement, `COUNT` in all
//! or until it is killed. Every 16th has a one-time token, which a second request must not get to use. `writer verify DIR` reads such ids from standard input, reopens the ledger,
//! checks all of it, and fails when an id is missing.

#![allow(clippy::print_stdout, reason = "the ids on standard output are what it is for")]

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::fill;
use muster_policy::enrol::{OID_COMMON_NAME, San, SubjectAttribute};
use muster_policy::identity::{
    AccountId, CaId, CertificateId, Fingerprint, KeyFingerprint, RequestKey, SecretHash, Serial, TokenId,
};
use muster_policy::name::DeviceId;
use muster_policy::profile::Approval;
use muster_policy::reason::Reason;
use muster_policy::time::UnixTime;
use muster_store::act::{
    AddCa, BeginIssue, Begun, By, CompleteIssue, CreateAccount, CreateToken, IssueRefused, KeyState,
};
use muster_store::record::{
    Account, Actor, Ca, CaKind, CaRole, CaState, Certificate, CertificateStatus, How, Token,
};
use muster_store::{Error, Ledger, Options};
use serde_bytes::ByteBuf;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["verify", directory] => verify(&file(directory)),
        [directory, threads] => write(&file(directory), threads.parse()?, u64::MAX),
        [directory, threads, count] => write(&file(directory), threads.parse()?, count.parse()?),
        _ => Err("usage: writer DIR THREADS [COUNT] | writer verify DIR < ids".into()),
    }
}

fn file(directory: &str) -> PathBuf {
    Path::new(directory).join("ledger.redb")
}

/// One account and one CA.
const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

fn write(path: &Path, threads: usize, count: u64) -> Result<(), Failure> {
    let ledger = if path.exists() {
        Ledger::open(path, Options::default(), now())?
    } else {
        Ledger::create(path, Options::default())?
    };
    if ledger.reader()?.is_empty()? {
        found(&ledger)?;
    }
    let left = AtomicU64::new(count);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<(), Failure> {
                    while take() {
                        let id = issue(&ledger)?;
                        // One write of a whole line, so that lines of threads do not mix.
                        std::io::stdout().lock().write_all(format!("{id}\n").as_bytes())?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a thread panicked")?)
    })?;
    eprintln!("{:?}", ledger.stats());
    Ok(())
}

fn found(ledger: &Ledger) -> Result<(), Failure> {
    let by = By { actor: Actor::Local, at: now() };
    let account = Account {
        id: ACCOUNT,
        name: "acme".parse()?,
        trust_domain: "acme.example".parse()?,
        created_at: now(),
    };
    ledger.transact_blocking(CreateAccount { account, by: by.clone() })?;
    let der = vec![0x30; 500];
    let ca = Ca {
        id: ca(),
        account: ACCOUNT,
        title: "devices".parse()?,
        kind: CaKind::Managed,
        role: CaRole::Devices,
        state: CaState::Active,
        fingerprint: Fingerprint::from_bytes(sha256(&der)),
        certificate_der: ByteBuf::from(der),
        chain: Vec::new(),
        key_file: None,
        issuer: None,
        not_before: now(),
        not_after: now().plus(Duration::from_secs(1 << 28)),
        serial: Serial::from_bytes(&[1])?,
        subject: "CN=devices".to_owned(),
        rollover: Vec::new(),
        created_at: now(),
        upload: None,
    };
    ledger.transact_blocking(AddCa { ca, by })?;
    Ok(())
}

const fn ca() -> CaId {
    CaId::from_bytes([2; 16])
}

/// Begin and complete, for one of 65,536 devices, so that most are known after a while.
fn issue(ledger: &Ledger) -> Result<CertificateId, Failure> {
    let [first, second, dice] = random()?;
    let device: DeviceId = format!("meter-{first:02x}{second:02x}").parse()?;
    let token = if dice % 16 == 0 { Some(create_token(ledger, &device)?) } else { None };
    let begin = begin(device, token)?;
    let certificate = certificate(&begin)?;
    match ledger.transact_blocking(begin.clone())? {
        Begun::Proceed => {}
        other => return Err(format!("did not begin: {other:?}").into()),
    }
    let (request, by) = (begin.request, begin.by);
    ledger.transact_blocking(CompleteIssue { request, certificate, note: None, by })?;
    if token.is_some() {
        match ledger.transact_blocking(self::begin(begin.device, token)?) {
            Err(Error::Refused(IssueRefused::Policy(Reason::TokenUsed))) => {}
            other => return Err(format!("a token was used twice: {other:?}").into()),
        }
    }
    Ok(begin.certificate)
}

fn begin(device: DeviceId, token: Option<TokenId>) -> Result<BeginIssue, Failure> {
    Ok(BeginIssue {
        request: RequestKey::from_bytes(random()?),
        account: ACCOUNT,
        certificate: CertificateId::new(now_millis(), random()?),
        serial: Serial::new(UnixTime::from_secs(i64::try_from(now_millis() / 1000)?), random()?),
        ca: ca(),
        device,
        profile: "default".parse()?,
        key_fingerprint: KeyFingerprint::from_bytes(random()?),
        key: KeyState::Made,
        token,
        replaces: None,
        approval: Approval::Automatic,
        waiting_max: 0,
        csr_der: vec![0x30; 300],
        source: None,
        repeat_for: Duration::from_secs(3_600),
        by: By { actor: Actor::Anonymous, at: now() },
    })
}

fn create_token(ledger: &Ledger, device: &DeviceId) -> Result<TokenId, Failure> {
    let token = Token {
        id: TokenId::new(now_millis(), random()?),
        account: ACCOUNT,
        hash: SecretHash::from_bytes(random()?),
        device: Some(device.clone()),
        key: None,
        profile: None,
        uses_allowed: 1,
        uses_taken: 0,
        waiting: 0,
        expires_at: now().plus(Duration::from_secs(3_600)),
        revoked_at: None,
        created_at: now(),
        last_used_at: None,
    };
    let id = token.id;
    ledger.transact_blocking(CreateToken { token, by: By { actor: Actor::Local, at: now() } })?;
    Ok(id)
}

fn certificate(begin: &BeginIssue) -> Result<Box<Certificate>, Failure> {
    let mut der = vec![0x30; 668];
    der.extend_from_slice(&random::<32>()?);
    let not_after = now().plus(Duration::from_secs(90 * 86_400));
    let window = serde_json::json!({ "renew_at": not_after, "urgent_at": not_after });
    Ok(Box::new(Certificate {
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
        not_before: now(),
        not_after,
        renewal: serde_json::from_value(window)?,
        issued_at: now(),
        how: How::First,
        replaces: None,
        revoked: None,
        der: ByteBuf::from(der),
        client: None,
    }))
}

fn verify(path: &Path) -> Result<(), Failure> {
    let ledger = Ledger::open(path, Options::default(), now())?;
    let reader = ledger.reader()?;
    let (mut found, mut lost) = (0_u64, 0_u64);
    for line in std::io::stdin().lock().lines() {
        let id = line?.trim().parse()?;
        match reader.certificate(ACCOUNT, id)? {
            Some(certificate) if certificate.status(now()) == CertificateStatus::Active => found += 1,
            _ => {
                lost += 1;
                eprintln!("lost: {id}");
            }
        }
    }
    let intents = reader.intents()?.len();
    drop(reader);
    drop(ledger);
    let checked = Ledger::check(path)?;
    println!("found {found}, lost {lost}, open intents {intents}, stored {}", checked.certificates);
    if lost > 0 || intents > 0 { Err("the ledger does not hold what it promised".into()) } else { Ok(()) }
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut octets = [0; N];
    fill(&mut octets).map_err(|_| "no randomness")?;
    Ok(octets)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, so it owns a clock")]
fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn now() -> UnixTime {
    UnixTime::EPOCH.plus(since_epoch())
}

fn now_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}
