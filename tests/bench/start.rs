//! Start, first answers and memory with many stored certificates, beside the same of an empty ledger.
//!
//! The large ledger is the small one, copied, with certificates of as many devices put in through
//! the ledger's own transactions. "First answer" is the end of a cacerts and of a renewal, which
//! reads and writes the ledger.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use muster_enroll::{Registrar, random};
use muster_policy::identity::{CertificateId, Fingerprint, KeyFingerprint, RequestKey, Serial};
use muster_policy::name::DeviceId;
use muster_policy::profile::Approval;
use muster_store::act::{BeginIssue, Begun, By, CompleteIssue, KeyState};
use muster_store::record::{Actor, Certificate};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::client::{Connection, Exchange, Identity, roots};
use crate::enroll::reenroll;
use crate::fleet::{self, Device};
use crate::server::{Server, program};
use crate::{Goals, median};

/// Writers at once; what fills a commit.
const FILLERS: usize = 1_024;
/// Goals of issue 2: 1.5 times the empty ledger's time and a second; 100 MB.
const TIME_FACTOR: f64 = 1.5;
const TIME_EXTRA_S: f64 = 1.0;
const MEMORY_MIB: f64 = 100.0;
/// Renewals before the memory is read.
const RENEWALS: usize = 500;

/// Arguments of `start`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Certificates of the large ledger.
    #[arg(long, default_value_t = 1_000_000)]
    certificates: usize,
    /// Starts of each; the median counts.
    #[arg(long, default_value_t = 5)]
    starts: usize,
}

/// Seconds until ready, until the first answers, and MiB after that and after some work.
struct Found {
    ready: f64,
    answered: f64,
    resident: f64,
    resident_later: f64,
}

/// Measures.
#[expect(clippy::print_stdout, reason = "the report of a bench")]
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Goals> {
    let home = tempfile::tempdir()?;
    let (small, large) = (home.path().join("small"), home.path().join("large"));
    fleet::found(&small).await?;
    let registrar = fleet::open(&small)?;
    let device = fleet::devices(&registrar, 1).await?.pop().context("a device")?;
    drop(registrar);
    copy(&small, &large)?;
    let begin = Instant::now();
    fill(&fleet::open(&large)?, &device.certificate, arguments.certificates, |_, model| model).await?;
    let mib = std::fs::metadata(large.join("ledger.redb"))?.len() / (1 << 20);
    println!(
        "{} certificates stored in {:.0} s, {mib} MiB",
        arguments.certificates,
        begin.elapsed().as_secs_f64()
    );

    println!("ledger     ready s  answered s  resident MiB  after {RENEWALS} renewals");
    let mut found = Vec::new();
    for (name, dir) in [("small", &small), ("large", &large)] {
        let mut starts = Vec::new();
        for _ in 0..arguments.starts {
            starts.push(start(dir, &device).await?);
        }
        let middle = |figure: fn(&Found) -> f64| median(starts.iter().map(figure).collect());
        let figures = Found {
            ready: middle(|found| found.ready),
            answered: middle(|found| found.answered),
            resident: middle(|found| found.resident),
            resident_later: middle(|found| found.resident_later),
        };
        let Found { ready, answered, resident, resident_later } = figures;
        println!("{name:<9} {ready:8.3} {answered:11.3} {resident:13.1} {resident_later:10.1}");
        found.push(figures);
    }
    let [small, large] = found.as_slice() else { anyhow::bail!("two ledgers") };
    let mut goals = Goals::Met;
    let at_most = small.answered.mul_add(TIME_FACTOR, TIME_EXTRA_S);
    goals.check("seconds to the first answers", large.answered, at_most);
    goals.check("MiB more at the first answers", large.resident - small.resident, MEMORY_MIB);
    goals.check("MiB more after renewals", large.resident_later - small.resident_later, MEMORY_MIB);
    Ok(goals)
}

async fn start(dir: &Path, device: &Device) -> anyhow::Result<Found> {
    let identity = Identity::new(device, &roots(&dir.join("ca.pem"))?)?;
    let first = reenroll(device)?;
    let begin = Instant::now();
    let server = Server::muster(Command::new(program()?), dir).await?;
    let ready = begin.elapsed().as_secs_f64();
    let mut connection = Connection::open(server.address, &identity).await?;
    connection.exchange(&Exchange::cacerts()).await?;
    connection.exchange(&first).await?;
    let answered = begin.elapsed().as_secs_f64();
    let resident = server.resident_mib()?;
    for _ in 0..RENEWALS {
        connection.exchange(&reenroll(device)?).await?;
    }
    let resident_later = server.resident_mib()?;
    server.stop().await?;
    Ok(Found { ready, answered, resident, resident_later })
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Stores certificates like the model, each of another device, and varied by its number.
pub(crate) async fn fill(
    registrar: &Arc<Registrar>,
    model: &Certificate,
    count: usize,
    varied: impl Fn(usize, Certificate) -> Certificate + Clone + Send + 'static,
) -> anyhow::Result<()> {
    let mut working = JoinSet::new();
    for filler in 0..FILLERS {
        let (registrar, model, varied) = (Arc::clone(registrar), model.clone(), varied.clone());
        working.spawn(async move {
            for number in (filler..count).step_by(FILLERS) {
                store(&registrar, varied(number, model.clone()), number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(finished) = working.join_next().await {
        finished??;
    }
    Ok(())
}

/// The device with a number.
pub(crate) fn device(number: usize) -> anyhow::Result<DeviceId> {
    Ok(format!("meter-{number:07}").parse()?)
}

/// Stores a certificate like the model, of another device.
async fn store(registrar: &Registrar, model: Certificate, number: usize) -> anyhow::Result<()> {
    let bytes = random::<32>().context("random numbers")?;
    let (clock, request) = (registrar.clock(), RequestKey::from_bytes(bytes));
    let by = By { actor: Actor::Local, at: clock.now() };
    let certificate = Certificate {
        id: CertificateId::new(clock.unix_millis(), random().context("random numbers")?),
        serial: Serial::new(by.at, random().context("random numbers")?),
        device: device(number)?,
        fingerprint: Fingerprint::from_bytes(bytes),
        key_fingerprint: KeyFingerprint::from_bytes(bytes),
        ..model
    };
    let begin = BeginIssue {
        request,
        account: certificate.account,
        certificate: certificate.id,
        serial: certificate.serial,
        ca: certificate.ca,
        device: certificate.device.clone(),
        profile: certificate.profile.clone(),
        key_fingerprint: certificate.key_fingerprint,
        key: KeyState::Made,
        token: None,
        replaces: None,
        approval: Approval::Automatic,
        waiting_max: 0,
        csr_der: Vec::new(),
        source: None,
        repeat_for: core::time::Duration::ZERO,
        by: by.clone(),
    };
    let begun = registrar.ledger().transact(begin).await?;
    anyhow::ensure!(begun == Begun::Proceed, "device {number} has a certificate already");
    let complete = CompleteIssue { request, certificate: Box::new(certificate), note: None, by };
    Ok(registrar.ledger().transact(complete).await?)
}
