//! `muster-sim scenario`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::args::ScenarioArgs;
use super::place::EstUrl;
use super::{Usage, asked_rightly, limits, print_summary, write_reports};
use crate::clock::Clocks;
use crate::device::{Enroller, KeyPool};
use crate::edge::{Endpoint, Manner};
use crate::fleet::TokenSource;
use crate::identities::Directory;
use crate::link::Links;
use crate::scenario::{self, Live, Scenario, ScenarioWritten};
use crate::tls::{self, Door, Groups, TlsClient};
use crate::view::View;

pub(super) async fn run(args: ScenarioArgs, stop: CancellationToken) -> anyhow::Result<bool> {
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("can't read {}", args.file.display()))?;
    let checked = ScenarioWritten::parse(&text).and_then(ScenarioWritten::check);
    let mut scenario = checked.map_err(|error| anyhow::anyhow!("{}: {error}", args.file.display()))?;
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    scenario.devices = args.devices.unwrap_or(scenario.devices);
    let goals: Vec<_> = scenario.slos.iter().chain(&args.output.slos).cloned().collect();
    let total = args.live.is_none().then_some(scenario.span.as_secs());
    let mut view = View::new(total, args.output.quiet, args.output.json_lines.as_deref())?;
    let mut results = match &args.live {
        None => scenario::run(scenario, &mut view, &stop)?,
        Some(server) => {
            let live = Box::pin(live(&args, server, &scenario)).await?;
            let (results, shown) = Box::pin(scenario::run_live(scenario, live, view, stop)).await?;
            view = shown;
            results
        }
    };
    view.end();
    let checks: Vec<_> = goals.iter().map(|goal| goal.check(&results)).collect();
    results.checks.extend(checks);
    write_reports(&results, args.output.json.as_deref(), args.output.report.as_deref(), None)?;
    if !args.output.quiet {
        print_summary(&results);
    }
    Ok(results.checks.iter().all(|check| check.held))
}

async fn live(args: &ScenarioArgs, server: &EstUrl, scenario: &Scenario) -> anyhow::Result<Live> {
    let (Some(ca), Some(identities)) = (&args.ca, &args.identities) else {
        return Err(Usage("--live needs --ca and --identities".to_owned()).into());
    };
    asked_rightly(args.speed.is_finite() && args.speed > 0.0, || "--speed: more than zero")?;
    let roots = tls::roots(ca)?;
    let links = Arc::new(Links::new(scenario.devices, scenario.link, scenario.seed));
    let slow = |door: &mut Door| door.links = Some(Arc::clone(&links));
    let edge = match &args.edge {
        None => None,
        Some(target) => {
            let manner = Manner { groups: Groups::default(), alpn_mqtt: false, timeout: TIMEOUT };
            let place = (target.host.as_str(), target.port);
            let protocol = target.protocol.clone();
            let mut edge = Endpoint::find(place, args.edge_address, roots.clone(), protocol, manner).await?;
            slow(&mut edge.door);
            Some(edge)
        }
    };
    let mut enroller = Enroller::new(
        server.host.clone(),
        server.port,
        server.label.clone(),
        Door::find(&server.host, server.port, None, TIMEOUT).await?,
        TlsClient::new(roots, Groups::default(), &["http/1.1"])?,
        tls::certificates(ca)?,
        KeyPool::start(scenario.devices as usize).await,
        Directory::open_to_write(identities, PREFIX, 0)?,
        scenario.seed,
        PATIENCE,
    );
    slow(&mut enroller.door);
    enroller.clocks = Clocks::new(scenario.devices);
    let tokens = args.token.clone().map_or(TokenSource::Nothing, TokenSource::Same);
    let hooks: HashMap<String, String> =
        args.hooks.iter().map(|hook| named(hook)).collect::<anyhow::Result<_>>()?;
    Ok(Live {
        enroller,
        tokens: tokens.open(scenario.devices as usize).await?,
        edge,
        links,
        speed: args.speed,
        hooks,
        most_at_once: limits::connections(),
    })
}

fn named(hook: &str) -> anyhow::Result<(String, String)> {
    let (name, command) =
        hook.split_once('=').ok_or_else(|| Usage(format!("--hook {hook}: write NAME=COMMAND")))?;
    asked_rightly(HOOKS.contains(&name), || format!("--hook {name}: known are {}", HOOKS.join(", ")))?;
    Ok((name.to_owned(), command.to_owned()))
}

const HOOKS: [&str; 4] = ["ca-away", "ca-back", "lifetime", "revoke"];
/// As `fleet` names its devices.
const PREFIX: &str = "sim-";
const TIMEOUT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
