//! `muster-agent renew`: now, by the agent that runs, or here when none does.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use muster_proto::time::UnixTime;
use serde_json::json;

use super::args::RenewArgs;
use super::attend::{PACE, until_adopted};
use super::describe::{Described, date};
use super::print;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{self, Outcome};
use crate::enroll::{Device, Ground};
use crate::identity;
use crate::settings::Settings;
use crate::span::rough;
use crate::status::Status;
use crate::store::Store;

pub(super) async fn renew(args: RenewArgs) -> anyhow::Result<()> {
    let dir = args.place.dir()?;
    let asked = tokio::time::timeout(args.timeout, control::ask(&dir)).await;
    let outcome = match asked {
        Ok(answer) => answer.context("the running agent stopped; see its log")?,
        Err(_) => bail!("the running agent has no result after {}; it keeps trying", rough(args.timeout)),
    };
    let expires_at = match outcome {
        Some(Outcome::Renewed { expires_at }) => date(UnixTime::from_secs(expires_at)),
        Some(Outcome::Postponed) => bail!("the server decides later; the running agent keeps asking"),
        Some(Outcome::Failed { why }) => bail!("{why}; the running agent keeps trying"),
        None => renew_here(&args).await?,
    };
    if args.json {
        print(&json!({ "expires_at": expires_at }).to_string())?;
    } else {
        print(&format!("renewed until {expires_at}"))?;
    }
    Ok(())
}

async fn renew_here(args: &RenewArgs) -> anyhow::Result<String> {
    let path = args.place.config_path();
    let settings = Settings { pace: PACE, ..Config::read(&path)?.checked(&path)? };
    let store = Arc::new(Store::open(&settings.dir)?);
    let mut ground = Ground::new(&settings);
    let (publisher, _) = identity::channel();
    let mut device = Device::start(&mut ground, store, Clock::start(), publisher)?;
    device.renew_now();
    let adopted = until_adopted(&mut device, args.timeout).await;
    device.finish().await;
    let adopted = adopted?;
    Status::succeeded(&settings.dir);
    let described = adopted.chain.first().and_then(|leaf| Described::new(leaf));
    Ok(described.context("the new certificate can't be read")?.expires_at)
}
