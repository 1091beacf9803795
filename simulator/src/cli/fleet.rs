//! `muster-sim fleet`.

use std::time::Duration;

use muster_proto::enrollment::AskWishes;
use tokio_util::sync::CancellationToken;

use super::args::{FleetArgs, RunArgs};
use super::{asked_rightly, conclude, limits};
use crate::cost::Watched;
use crate::device::{Enroller, KeyPool, Want};
use crate::fleet::{ENROLL, FleetRun, TokenSource};
use crate::identities::Directory;
use crate::results::Results;
use crate::tls::{self, Door, TlsClient};
use crate::view::View;

/// Longest wait for TCP and TLS: what the device core waits itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(args: FleetArgs, stop: CancellationToken) -> anyhow::Result<bool> {
    let run = &args.run;
    run.check_shard()?;
    let directory = Directory::open_to_write(&args.identities, &args.prefix, run.shard)?;
    let want = if args.renew { Want::Next } else { Want::First };
    let devices = shard_of(run, args.devices, |number| directory.is_enrolled(number) == args.renew);
    let tokens = token_source(&args).open(devices.len()).await?;
    let server = &args.server;
    let label = server.label.clone();
    let door = Door::find(&server.host, server.port, args.address, CONNECT_TIMEOUT).await?;
    let tls = TlsClient::new(tls::roots(&args.ca)?, args.groups, &["http/1.1"])?;
    let anchors = tls::certificates(&args.ca)?;
    let keys = KeyPool::start(devices.len()).await;
    let mut enroller = Enroller::new(
        server.host.clone(),
        server.port,
        label,
        door,
        tls,
        anchors,
        keys,
        directory,
        run.seed,
        args.patience,
    );
    if args.skip_csrattrs {
        enroller.wishes = AskWishes::Skip;
    }
    let named = run.pids.iter().find_map(|pid| pid.name.as_deref());
    asked_rightly(named.is_none(), || "--pid: here is one server, so it needs no name")?;
    let pids: Vec<u32> = run.pids.iter().map(|pid| pid.value).collect();
    let target = format!("https://{}:{}", server.host, server.port);
    let mut results = Results::new("fleet", &run.label, &target, ENROLL);
    let of_this_shard = (0..args.devices).filter(|number| number % run.shards == run.shard).count();
    results.facts.insert("devices".into(), of_this_shard as f64);
    let view = View::new(Some(devices.len() as u64), run.output.quiet, run.output.json_lines.as_deref())?;
    let fleet = FleetRun {
        enroller,
        tokens,
        devices,
        want,
        arrival: run.arrival,
        shard: (run.shard, run.shards),
        seed: run.seed,
        most_at_once: run.most_at_once.unwrap_or_else(limits::connections),
        watched: Watched::new(&pids)?,
        start_at: run.start_at()?,
    };
    let (results, view) = fleet.run(results, view, stop.clone()).await?;
    view.end();
    let failed = results.series.get(ENROLL).map_or(0, crate::results::Series::failed);
    let held = conclude(results, run)?;
    anyhow::ensure!(!stop.is_cancelled(), "stopped before all were done; the same command goes on from here");
    if failed > 0 && run.output.slos.is_empty() {
        anyhow::bail!("{failed} devices got no certificate; run the same command again to go on");
    }
    Ok(held)
}

/// Devices of this shard that are to do something.
fn shard_of(run: &RunArgs, devices: u32, wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    (0..devices).filter(|number| number % run.shards == run.shard && wanted(*number)).collect()
}

fn token_source(args: &FleetArgs) -> TokenSource {
    match (&args.token, &args.tokens, &args.token_command, &args.api, &args.api_token) {
        (Some(token), ..) => TokenSource::Same(token.clone()),
        (_, Some(path), ..) => TokenSource::File(path.clone()),
        (_, _, Some(line), ..) => TokenSource::Command(line.clone()),
        (_, _, _, Some(url), Some(file)) => TokenSource::Api { url: url.clone(), token_file: file.clone() },
        _ => TokenSource::Nothing,
    }
}
