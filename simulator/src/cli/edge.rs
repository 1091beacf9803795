//! `muster-sim edge`: one target, or several that take turns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::args::EdgeArgs;
use super::place::Target;
use super::{Usage, asked_rightly, conclude, limits, taking_turns};
use crate::cost::{Bare, Watched};
use crate::device::certified;
use crate::edge::{EdgeRun, Endpoint, HANDSHAKE, Manner, Mode, Protocol, compare_to_bare, note_resumption};
use crate::identities::Directory;
use crate::results::Results;
use crate::tls;
use crate::view::View;
use crate::workers;

/// A target with what belongs to it.
pub(super) struct Party {
    /// Empty for the only one.
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) endpoint: Endpoint,
    pub(super) watched: Option<Watched>,
    pub(super) bare: Option<Bare>,
}

/// The devices of this run.
pub(super) struct Comers {
    pub(super) directory: Arc<Directory>,
    pub(super) devices: Vec<u32>,
}

pub(super) async fn run(args: EdgeArgs, stop: CancellationToken) -> anyhow::Result<bool> {
    args.run.check_shard()?;
    check_names(&args)?;
    let comers = Comers::of(&args)?;
    let mut parties = Vec::new();
    for named in &args.targets {
        parties.push(Party::new(&args, named.name.as_deref(), &named.value, &comers).await?);
    }
    match <[Party; 1]>::try_from(parties) {
        Ok([party]) => alone(&args, party, &comers, stop).await,
        Err(parties) => taking_turns::run(&args, parties, comers, stop).await,
    }
}

async fn alone(
    args: &EdgeArgs,
    party: Party,
    comers: &Comers,
    stop: CancellationToken,
) -> anyhow::Result<bool> {
    let run = &args.run;
    let view = View::new(None, run.output.quiet, run.output.json_lines.as_deref())?;
    let (mut results, view) = if args.workers > 1 {
        workers::run(args.workers, view, stop.clone()).await?
    } else {
        let results = Results::new("edge", &run.label, &party.target.to_string(), args.mode.series());
        let devices = comers.devices.clone();
        let edge =
            EdgeRun { start_at: run.start_at()?, ..edge_run(args, &party, comers, devices, args.span) };
        edge.run(results, view, stop).await?
    };
    view.end();
    results.costs.bare = party.bare.or(results.costs.bare);
    if args.mode == Mode::Resume {
        note_resumption(&mut results);
    }
    let count = |name: &str| results.series.get(name).map_or(0, |series| series.hdr.count());
    let (let_in, done) = (count(HANDSHAKE), count(&results.main_series));
    let held = conclude(results, run)?;
    anyhow::ensure!(let_in > 0, "no device was let in");
    anyhow::ensure!(done > 0, "devices were let in, and nothing they asked was answered");
    Ok(held)
}

/// A run at one target.
pub(super) fn edge_run(
    args: &EdgeArgs,
    party: &Party,
    comers: &Comers,
    devices: Vec<u32>,
    span: Duration,
) -> EdgeRun {
    let run = &args.run;
    EdgeRun {
        endpoint: party.endpoint.clone(),
        directory: Arc::clone(&comers.directory),
        devices,
        mode: args.mode,
        arrival: run.arrival,
        shard: (run.shard, run.shards),
        seed: run.seed,
        span,
        every: args.every,
        topic: args.topic.clone(),
        most_at_once: run.most_at_once.unwrap_or_else(limits::connections),
        watched: party.watched.clone(),
        start_at: None,
        phase: None,
    }
}

impl Party {
    async fn new(
        args: &EdgeArgs,
        name: Option<&str>,
        target: &Target,
        comers: &Comers,
    ) -> anyhow::Result<Self> {
        let mqtt = target.protocol == Protocol::Mqtt;
        asked_rightly(args.mode != Mode::RoundTrip || mqtt, || "--mode round-trip needs an mqtts:// target")?;
        let address = args.addresses.iter().find(|address| address.name.as_deref() == name);
        let manner = Manner { groups: args.groups, alpn_mqtt: args.alpn_mqtt, timeout: args.timeout };
        let place = (target.host.as_str(), target.port);
        let (roots, protocol) = (tls::roots(&args.ca)?, target.protocol.clone());
        let endpoint =
            Endpoint::find(place, address.map(|address| address.value), roots, protocol, manner).await?;
        let pids = args.run.pids.iter().filter(|pid| pid.name.as_deref() == name);
        let watched = Watched::new(&pids.map(|pid| pid.value).collect::<Vec<_>>())?;
        let bare = match args.bare {
            Some(rounds) if rounds > 0 => {
                let directory = &comers.directory;
                let number = comers.devices.first().copied().context("a device for --bare")?;
                let (pair, intermediates) = directory.pair(number)?.context("an enrolled device")?;
                let identity = certified(&pair, &intermediates)?;
                let (roots, device) = (tls::roots(&args.ca)?, directory.device(number));
                Some(compare_to_bare(&endpoint, &roots, &device, &identity, rounds).await?)
            }
            _ => None,
        };
        Ok(Self {
            name: name.unwrap_or_default().to_owned(),
            target: target.clone(),
            endpoint,
            watched,
            bare,
        })
    }
}

impl Comers {
    fn of(args: &EdgeArgs) -> anyhow::Result<Self> {
        let run = &args.run;
        let directory = Directory::open(&args.identities)?;
        let enrolled = directory.enrolled();
        anyhow::ensure!(
            !enrolled.is_empty(),
            "{} holds no enrolled device; run `muster-sim fleet` first",
            args.identities.display()
        );
        let wanted = args.devices.map_or(enrolled.len(), |devices| devices as usize);
        let of_shard = |number: &u32| number % run.shards == run.shard;
        let devices = enrolled.into_iter().take(wanted).filter(of_shard).collect();
        Ok(Self { directory: Arc::new(directory), devices })
    }
}

/// Each of several targets needs a name of its own, and what is for one has to name one that is there.
fn check_names(args: &EdgeArgs) -> anyhow::Result<()> {
    let mut names = BTreeSet::new();
    for target in &args.targets {
        let name = target.name.as_deref();
        asked_rightly(args.targets.len() == 1 || name.is_some(), || {
            format!("--target {}: of several targets each needs a name: NAME={0}", target.value)
        })?;
        asked_rightly(names.insert(name), || {
            format!("--target {}: the name is there twice", name.unwrap_or_default())
        })?;
    }
    let mut addressed = BTreeSet::new();
    for name in args.addresses.iter().map(|address| address.name.as_deref()) {
        asked_rightly(addressed.insert(name), || {
            format!("--address {}: given twice", name.unwrap_or("without a name"))
        })?;
    }
    let addresses = args.addresses.iter().map(|address| ("--address", address.name.as_deref()));
    for (option, name) in addresses.chain(args.run.pids.iter().map(|pid| ("--pid", pid.name.as_deref()))) {
        let known = || names.iter().flatten().copied().collect::<Vec<_>>().join(", ");
        asked_rightly(names.contains(&name), || {
            format!(
                "{option} {}: no --target has this name; there are: {}",
                name.unwrap_or("without a name"),
                known()
            )
        })?;
    }
    Ok(())
}

/// What a connect and an answer may take.
pub(super) const TIMEOUT: &str = "30s";

impl super::args::RunArgs {
    /// Refuses a shard that is none.
    pub(super) fn check_shard(&self) -> anyhow::Result<()> {
        asked_rightly(
            self.shards > 0 && self.shard < self.shards,
            || "--shard counts from 0 to one less than --shards",
        )?;
        Ok(())
    }

    /// When to start.
    pub(super) fn start_at(&self) -> anyhow::Result<Option<Duration>> {
        let start_at = self.start_at.map(Duration::try_from_secs_f64).transpose();
        start_at.map_err(|_| Usage("--start-at is no time".to_owned()).into())
    }
}
