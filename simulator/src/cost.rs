//! What a run costs in CPU and memory, on both sides, and what the cryptography alone would.
//!
//! CPU time, not rates: on a shared machine a rate measures the neighbours. The bound is measured in the same
//! run with the library that the simulator uses (aws-lc-rs): the least that any server must do for a full mTLS 1.3
//! handshake over X25519 with P-256 and the issuing CA as anchor.

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
    /// CPU of the server, all its processes.
    pub(crate) server_cpu_ms: Option<f64>,
    /// What both are divided by: full handshakes whose client certificate the server verified.
    pub(crate) verifications: u64,
    /// The bound of one verification.
    pub(crate) bound: Option<Bound>,
    /// CPU per full handshake of a bare tokio-rustls client, and of this one, one after the other in this run.
    pub(crate) bare: Option<Bare>,
    /// Memory of the simulator while it held connections idle.
    pub(crate) idle: Option<Idle>,
}

/// Milliseconds of CPU.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Bound {
    pub(crate) sign_ms: f64,
    pub(crate) verify_ms: f64,
    pub(crate) agree_ms: f64,
    /// Agree, sign, and verify twice.
    pub(crate) handshake_ms: f64,
    /// Verify and sign: what issuing a certificate takes.
    pub(crate) issue_ms: f64,
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

impl Costs {
    /// Adds another shard's. All shards see one server, so its CPU is the largest that one saw.
    pub(crate) fn add(&mut self, other: &Self) {
        self.client_cpu_ms += other.client_cpu_ms;
        self.server_cpu_ms = match (self.server_cpu_ms, other.server_cpu_ms) {
            (Some(own), Some(others)) => Some(own.max(others)),
            (own, others) => own.or(others),
        };
        self.verifications += other.verifications;
        self.bound = self.bound.or(other.bound);
        self.bare = self.bare.or(other.bare);
        self.idle = match (self.idle, other.idle) {
            (Some(own), Some(others)) => {
                Some(Idle { connections: own.connections + others.connections, kib: own.kib + others.kib })
            }
            (own, others) => own.or(others),
        };
    }

    /// Of the server, per verification.
    pub(crate) fn server_ms(&self) -> Option<f64> {
        Some(self.server_cpu_ms? / self.some_verifications()?)
    }

    /// Of the simulator, per verification.
    pub(crate) fn client_ms(&self) -> Option<f64> {
        Some(self.client_cpu_ms / self.some_verifications()?)
    }

    /// How many bounds the server took.
    pub(crate) fn server_bounds(&self) -> Option<f64> {
        Some(self.server_ms()? / self.bound?.handshake_ms)
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

    fn some_verifications(&self) -> Option<f64> {
        (self.verifications > 0).then_some(self.verifications as f64)
    }
}

/// Measures the bound; takes some tenths of a second of CPU.
///
/// # Errors
/// When the system gives no random numbers or no CPU clock.
pub(crate) fn bound() -> anyhow::Result<Bound> {
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
pub(crate) struct Watched(Vec<ClockId>);

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
        Ok(Some(Self(clocks)))
    }

    /// What they have used so far.
    pub(crate) fn cpu_ms(&self) -> f64 {
        self.0.iter().map(|clock| cpu(*clock).unwrap_or_default().as_secs_f64() * 1e3).sum()
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
    fn a_process_that_is_not_there_is_refused() {
        assert!(Watched::new(&[4_000_000]).is_err());
        assert!(Watched::new(&[std::process::id()]).is_ok_and(|watched| watched.is_some()));
        assert!(resident_kib() > 0);
    }
}
