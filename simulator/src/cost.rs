//! What a run costs in CPU and memory, on both sides, and what the cryptography alone would.
//!
//! CPU time, not rates: on a shared machine a rate measures the neighbours. The bound is measured in the same
//! run with the library that the simulator uses (aws-lc-rs): the least that any server must do for a full mTLS 1.3
//! handshake over X25519 with P-256 and the issuing CA as anchor.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::agreement::{EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey as Verifier,
};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const BATCHES: usize = 9;
const PER_BATCH: u32 = 100;
/// About a TBSCertificate.
const MESSAGE: [u8; 400] = [7; 400];

/// CPU and memory of a run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Costs {
    /// CPU of the simulator, all shards.
    pub(crate) client_cpu_ms: f64,
    /// CPU of the server's processes, by their ids as `--pid` gave them: shards may watch one server or several.
    pub(crate) server_cpu_ms: BTreeMap<String, f64>,
    /// What both are divided by: those that went well.
    pub(crate) operations: u64,
    /// What an operation is.
    pub(crate) unit: Unit,
    /// What the server's cryptography alone takes for all of them.
    pub(crate) least_ms: Option<f64>,
    /// The primitives of that, measured in this run.
    pub(crate) bound: Option<Bound>,
    /// CPU per full handshake of a bare tokio-rustls client, and of this one, one after the other in this run.
    pub(crate) bare: Option<Bare>,
    /// Memory of the simulator while it held connections idle.
    pub(crate) idle: Option<Idle>,
}

/// What CPU is told per.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// A connection of a device whose certificate the server verified, or whose session it took up again.
    #[default]
    Verification,
    /// A request on a kept connection, with its share of the handshakes.
    Request,
    /// An enrollment or a renewal, with its handshake.
    Certificate,
}

/// Milliseconds of CPU.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Bound {
    /// One signature.
    pub sign_ms: f64,
    /// One verification.
    pub verify_ms: f64,
    /// Making a key and agreeing.
    pub agree_ms: f64,
    /// Agree, sign, and verify twice.
    pub handshake_ms: f64,
    /// Verify and sign: what issuing a certificate takes.
    pub issue_ms: f64,
}

/// Two clients against the same server.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Bare {
    pub(crate) handshakes: u64,
    pub(crate) bare_ms: f64,
    pub(crate) own_ms: f64,
}

/// Memory of idle connections.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Idle {
    pub(crate) connections: u64,
    pub(crate) kib: u64,
}

impl Unit {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Request => "request",
            Self::Certificate => "certificate",
        }
    }
}

impl Bound {
    /// A handshake in which the client shows no certificate.
    pub(crate) fn one_sided_ms(&self) -> f64 {
        self.agree_ms + self.sign_ms
    }
}

impl Costs {
    /// Adds another shard's. Every shard that watches a server sees all of its work: the longest look counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.join(other, f64::max);
    }

    /// Adds those of a later turn at the same server.
    pub(crate) fn then(&mut self, later: &Self) {
        self.join(later, |own, later| own + later);
    }

    fn join(&mut self, later: &Self, of_one_server: fn(f64, f64) -> f64) {
        self.client_cpu_ms += later.client_cpu_ms;
        for (server, ms) in &later.server_cpu_ms {
            let own = self.server_cpu_ms.entry(server.clone()).or_default();
            *own = of_one_server(*own, *ms);
        }
        if self.operations == 0 {
            self.unit = later.unit;
        }
        self.operations += later.operations;
        self.least_ms = both(self.least_ms, later.least_ms, |own, others| own + others);
        self.bound = self.bound.or(later.bound);
        self.bare = self.bare.or(later.bare);
        self.idle = both(self.idle, later.idle, |own, others| Idle {
            connections: own.connections + others.connections,
            kib: own.kib + others.kib,
        });
    }

    /// Of the server, per operation.
    pub(crate) fn server_ms(&self) -> Option<f64> {
        Some(self.server_total_ms()? / self.some_operations()?)
    }

    fn server_total_ms(&self) -> Option<f64> {
        (!self.server_cpu_ms.is_empty()).then(|| self.server_cpu_ms.values().sum())
    }

    /// Of the simulator, per operation.
    pub(crate) fn client_ms(&self) -> Option<f64> {
        Some(self.client_cpu_ms / self.some_operations()?)
    }

    /// How many times its cryptography the server took.
    pub(crate) fn server_bounds(&self) -> Option<f64> {
        Some(self.server_total_ms()? / self.least_ms.filter(|least| *least > 0.0)?)
    }

    /// KiB for one idle connection.
    pub(crate) fn idle_kib(&self) -> Option<f64> {
        let idle = self.idle.filter(|idle| idle.connections > 0)?;
        Some(idle.kib as f64 / idle.connections as f64)
    }

    /// Our client to a bare one.
    pub(crate) fn client_ratio(&self) -> Option<f64> {
        let bare = self.bare.filter(|bare| bare.bare_ms > 0.0)?;
        Some(bare.own_ms / bare.bare_ms)
    }

    fn some_operations(&self) -> Option<f64> {
        (self.operations > 0).then_some(self.operations as f64)
    }
}

fn both<T>(one: Option<T>, other: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(join(one, other)),
        (one, other) => one.or(other),
    }
}

/// Measures the bound; takes some tenths of a second of CPU.
///
/// # Errors
/// When the system gives no random numbers or no CPU clock.
pub fn bound() -> anyhow::Result<Bound> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let public = Verifier::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref().to_vec());
    let signed = key.sign(&random, &MESSAGE)?;
    let sign_ms = per_operation(|| {
        black_box(key.sign(&random, &MESSAGE)?);
        Ok(())
    })?;
    let verify_ms = per_operation(|| Ok(public.verify(&MESSAGE, signed.as_ref())?))?;
    let other = PrivateKey::generate(&X25519)?.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&X25519, other.as_ref().to_vec());
    let agree_ms = per_operation(|| {
        let own = EphemeralPrivateKey::generate(&X25519, &random)?;
        black_box(own.compute_public_key()?);
        agree_ephemeral(own, &peer, anyhow::Error::msg("no agreement"), |secret| {
            black_box(secret);
            Ok(())
        })
    })?;
    let handshake_ms = agree_ms + sign_ms + 2.0 * verify_ms;
    Ok(Bound { sign_ms, verify_ms, agree_ms, handshake_ms, issue_ms: verify_ms + sign_ms })
}

fn per_operation(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let before = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        for _ in 0..PER_BATCH {
            work()?;
        }
        let spent = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(before);
        batches.push(spent.as_secs_f64() * 1e3 / f64::from(PER_BATCH));
    }
    batches.sort_by(f64::total_cmp);
    batches.get(BATCHES / 2).copied().context("batches were measured")
}

/// CPU that this process has used.
pub(crate) fn own_cpu_ms() -> f64 {
    cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap_or_default().as_secs_f64() * 1e3
}

fn cpu(clock: ClockId) -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(clock).context("a CPU clock")?))
}

/// The processes of a server, whose CPU is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    name: String,
    clocks: Vec<ClockId>,
}

impl Watched {
    /// Watches these processes and those that are their children now.
    ///
    /// # Errors
    /// When one does not exist.
    pub(crate) fn new(pids: &[u32]) -> anyhow::Result<Option<Self>> {
        if pids.is_empty() {
            return Ok(None);
        }
        let mut clocks = Vec::new();
        for pid in pids.iter().flat_map(|pid| [vec![*pid], children(*pid)].concat()) {
            let id = Pid::from_raw(i32::try_from(pid)?);
            clocks
                .push(clock_getcpuclockid(id).with_context(|| format!("there is no process {pid} (--pid)"))?);
        }
        let name = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        Ok(Some(Self { name, clocks }))
    }

    /// What they have used so far; nothing once one of them has ended, and its CPU is gone with it.
    pub(crate) fn cpu_ms(&self) -> Option<f64> {
        self.clocks.iter().map(|clock| Some(cpu(*clock).ok()?.as_secs_f64() * 1e3)).sum()
    }

    /// What they have used since, as costs have it.
    pub(crate) fn cpu_since(&self, before_ms: Option<f64>) -> BTreeMap<String, f64> {
        let used = self.cpu_ms().zip(before_ms).map(|(now, before)| now - before);
        used.map(|used| (self.name.clone(), used)).into_iter().collect()
    }
}

/// nginx and its like do their work in children.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Resident memory of this process in KiB.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_its_parts() {
        let bound = bound().expect("a CPU clock");
        assert!(bound.sign_ms > 0.0 && bound.verify_ms > 0.0 && bound.agree_ms > 0.0);
        let sum = bound.agree_ms + bound.sign_ms + 2.0 * bound.verify_ms;
        assert!((bound.handshake_ms - sum).abs() < 1e-9);
    }

    #[test]
    fn turns_add_up_and_shards_see_one_server() {
        let turn = Costs {
            client_cpu_ms: 2.0,
            server_cpu_ms: BTreeMap::from([("7".to_owned(), 6.0)]),
            operations: 4,
            least_ms: Some(3.0),
            ..Costs::default()
        };
        let (mut turns, mut shards) = (turn.clone(), turn.clone());
        turns.then(&turn);
        assert_eq!((turns.server_ms(), turns.server_bounds()), (Some(1.5), Some(2.0)));
        shards.add(&turn);
        assert_eq!((shards.server_ms(), shards.client_ms()), (Some(0.75), Some(0.5)));
        // A third shard watched another server.
        shards.add(&Costs { server_cpu_ms: BTreeMap::from([("8".to_owned(), 3.0)]), ..turn });
        assert_eq!(shards.server_ms(), Some(0.75));
    }

    #[test]
    fn the_cpu_of_a_process_that_ended_is_not_told() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let watched = Watched::new(&[child.id()]).expect("it runs").expect("one process");
        assert!(watched.cpu_ms().is_some());
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert_eq!(watched.cpu_ms(), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_refused() {
        assert!(Watched::new(&[4_000_000]).is_err());
        assert!(Watched::new(&[std::process::id()]).is_ok_and(|watched| watched.is_some()));
        assert!(resident_kib() > 0);
    }
}
