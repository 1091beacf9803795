//! `muster-sim edge`.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::args::{EdgeArgs, host_and_port};
use super::{conclude, limits};
use crate::cost::Watched;
use crate::device::certified;
use crate::edge::{EdgeRun, Endpoint, Manner, Mode, Protocol, compare_to_bare};
use crate::identities::Directory;
use crate::results::Results;
use crate::tls;
use crate::view::View;
use crate::workers;

pub(super) async fn run(args: EdgeArgs, stop: CancellationToken) -> anyhow::Result<bool> {
    let run = &args.run;
    run.check_shard()?;
    let mqtt = args.target.protocol == Protocol::Mqtt;
    anyhow::ensure!(args.mode != Mode::RoundTrip || mqtt, "--mode round-trip needs an mqtts:// target");
    let endpoint = endpoint(&args).await?;
    let directory = Directory::open(&args.identities)?;
    let enrolled = directory.enrolled();
    anyhow::ensure!(
        !enrolled.is_empty(),
        "{} holds no enrolled device; run `muster-sim fleet` first",
        args.identities.display()
    );
    let wanted = args.devices.map_or(enrolled.len(), |devices| devices as usize);
    let bare = match args.bare {
        Some(rounds) if rounds > 0 => {
            let number = enrolled.first().copied().unwrap_or_default();
            let (pair, intermediates) = directory.pair(number)?.context("an enrolled device")?;
            let identity = certified(&pair, &intermediates)?;
            let roots = tls::roots(&args.ca)?;
            Some(compare_to_bare(&endpoint, &roots, &directory.device(number), &identity, rounds).await?)
        }
        _ => None,
    };
    let view = View::new(None, run.quiet, run.json_lines.as_deref())?;
    let (mut results, view) = if args.workers > 1 {
        workers::run(args.workers, view, stop.clone()).await?
    } else {
        let devices =
            enrolled.into_iter().take(wanted).filter(|number| number % run.shards == run.shard).collect();
        let results = Results::new("edge", &run.label, &args.target.to_string(), args.mode.series());
        let edge = EdgeRun {
            endpoint,
            directory,
            devices,
            mode: args.mode,
            arrival: run.arrival,
            shard: (run.shard, run.shards),
            seed: run.seed,
            span: args.span,
            every: args.every,
            topic: args.topic.clone(),
            most_at_once: run.most_at_once.unwrap_or_else(limits::connections),
            watched: Watched::new(&run.pids)?,
            start_at: run.start_at()?,
        };
        edge.run(results, view, stop.clone()).await?
    };
    view.end();
    if bare.is_some() {
        results.costs.bare = bare;
    }
    let nothing = results.series.get(args.mode.series()).is_none_or(|series| series.hdr.count() == 0);
    let held = conclude(results, run)?;
    anyhow::ensure!(!nothing, "no device was let in");
    Ok(held)
}

async fn endpoint(args: &EdgeArgs) -> anyhow::Result<Endpoint> {
    let target = &args.target;
    let manner = Manner { groups: args.groups, alpn_mqtt: args.alpn_mqtt, timeout: args.timeout };
    let place = (target.host.as_str(), target.port);
    Endpoint::find(place, args.address, tls::roots(&args.ca)?, target.protocol.clone(), manner).await
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: write https://HOST[:PORT][/PATH] or mqtts://HOST[:PORT]");
        if let Some(rest) = text.strip_prefix("https://") {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (host, port) = host_and_port(authority, HTTPS_PORT).ok_or_else(wrong)?;
            if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(wrong());
            }
            return Ok(Self { host, port, protocol: Protocol::Https { path: format!("/{path}") } });
        }
        let rest = text.strip_prefix("mqtts://").ok_or_else(wrong)?;
        let (host, port) = host_and_port(rest.trim_end_matches('/'), MQTTS_PORT).ok_or_else(wrong)?;
        Ok(Self { host, port, protocol: Protocol::Mqtt })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.protocol {
            Protocol::Https { path } => write!(f, "https://{}:{}{path}", self.host, self.port),
            Protocol::Mqtt => write!(f, "mqtts://{}:{}", self.host, self.port),
        }
    }
}

/// Where our edge listens.
const HTTPS_PORT: u16 = 9443;
const MQTTS_PORT: u16 = 8883;
/// What a connect and an answer may take.
pub(super) const TIMEOUT: &str = "30s";

impl super::args::RunArgs {
    /// Refuses a shard that is none.
    pub(super) fn check_shard(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.shards > 0 && self.shard < self.shards,
            "--shard counts from 0 to one less than --shards"
        );
        Ok(())
    }

    /// When to start.
    pub(super) fn start_at(&self) -> anyhow::Result<Option<Duration>> {
        self.start_at.map(Duration::try_from_secs_f64).transpose().context("--start-at is no time")
    }
}
