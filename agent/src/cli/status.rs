//! `muster-agent status`: what is held, until when, and how renewal goes; with and without a running agent.

use anyhow::Context as _;
use muster_proto::time::UnixTime;
use muster_proto::x509::Bundle;
use serde_json::json;

use super::args::StatusArgs;
use super::describe::{Described, date};
use super::print;
use crate::clock::Clock;
use crate::enroll::SLOTS;
use crate::span::rough;
use crate::status::Status;
use crate::store::{self, Found, Kept, KeptPair};

pub(super) fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let dir = args.place.dir()?;
    let mut pairs = Vec::new();
    let mut requests = 0_u32;
    for slot in SLOTS {
        match store::look(&dir, slot).context("the store can't be read")? {
            Found::Whole(content) => match content.record {
                Some(Kept::Pair(pair)) => pairs.push(pair),
                Some(Kept::Request { .. }) => requests += 1,
                None => {}
            },
            Found::Damaged(damage) => eprintln!("slot {slot:?} is damaged: {damage}"),
            Found::Empty => {}
        }
    }
    let running = store::is_locked(&dir);
    let status = Status::read(&dir).unwrap_or_default();
    // Of two, the older one is in use and the newer one waits to be tried; but a running agent may have taken
    // the newer one already, and be about to remove the older one.
    pairs.sort_by_key(|pair| pair.generation);
    let in_use = pairs.iter().find(|pair| running && Some(pair.generation) == status.generation);
    let in_use = in_use.or_else(|| pairs.first());
    let seen = Seen {
        now: Clock::start().wall(),
        running,
        requests,
        in_use,
        candidate: pairs.iter().find(|pair| in_use.is_some_and(|in_use| in_use.generation < pair.generation)),
        status,
    };
    print(&if args.json { seen.json().to_string() } else { seen.text() })?;
    Ok(())
}

struct Seen<'s> {
    now: UnixTime,
    running: bool,
    requests: u32,
    in_use: Option<&'s KeptPair>,
    candidate: Option<&'s KeptPair>,
    status: Status,
}

impl Seen<'_> {
    /// The state in a word: as the running agent says, or else as it follows from the store.
    fn state(&self) -> &str {
        match self.in_use {
            _ if self.running && !self.status.state.is_empty() => &self.status.state,
            Some(pair) if pair.window.expires_at() < self.now => "lapsed",
            Some(_) => "holding",
            None if self.requests > 0 => "enrolling",
            None => "not enrolled",
        }
    }

    fn json(&self) -> serde_json::Value {
        let date_of = |at: u64| date(UnixTime::from_secs(at));
        let noted = self.status.failures.iter();
        let failures: Vec<_> =
            noted.map(|noted| json!({ "at": date_of(noted.at), "what": noted.what })).collect();
        json!({
            "running": self.running,
            "state": self.state(),
            "identity": self.in_use.and_then(described),
            "generation": self.in_use.map(|pair| pair.generation),
            "renew_at": self.in_use.map(|pair| date(pair.window.renew_at())),
            "urgent_at": self.in_use.map(|pair| date(pair.window.urgent_at())),
            "candidate": self.candidate.and_then(described),
            "next_try_at": self.status.next_try_at.filter(|_| self.running).map(date_of),
            "obtained": self.status.obtained,
            "carry": self.status.carry.as_ref().filter(|_| self.running),
            "failures": failures,
            "stuck": self.status.stuck.as_ref().map(|stuck| {
                json!({ "since": date_of(stuck.since), "tries": stuck.tries, "what": stuck.what })
            }),
        })
    }

    fn text(&self) -> String {
        let running = if self.running { "running" } else { "not running" };
        let mut lines = vec![format!("agent        {running}, {}", self.state())];
        match self.in_use.and_then(described) {
            None => lines.push("certificate  none".to_owned()),
            Some(held) => {
                lines.push(format!("device       {}", held.device));
                lines.push(format!("certificate  serial {}", held.serial));
                lines.push(format!("             fingerprint {}", held.fingerprint));
                lines.push(format!("             issued by {}", held.issuer));
            }
        }
        if let Some(pair) = self.in_use {
            lines.push(format!("expires      {}", self.when(pair.window.expires_at())));
            lines.push(format!("renewal      {}", self.when(pair.window.renew_at())));
        }
        if self.candidate.is_some() {
            lines.push("candidate    a new certificate is waiting to be tried out".to_owned());
        }
        if let Some(next) = self.status.next_try_at.filter(|_| self.running) {
            lines.push(format!("next try     {}", self.when(UnixTime::from_secs(next))));
        }
        if let Some(stuck) = &self.status.stuck {
            let since = date(UnixTime::from_secs(stuck.since));
            lines.push(format!("stuck        since {since}, after {} tries: {}", stuck.tries, stuck.what));
            lines.push(
                "             retries get less frequent; once it is fixed: `muster-agent renew`".to_owned(),
            );
        }
        for noted in &self.status.failures {
            lines.push(format!("failed       {}: {}", date(UnixTime::from_secs(noted.at)), noted.what));
        }
        lines.join("\n")
    }

    fn when(&self, time: UnixTime) -> String {
        let relation = if time > self.now {
            format!("in {}", rough(time.since(self.now)))
        } else {
            format!("{} ago", rough(self.now.since(time)))
        };
        format!("{} ({relation})", date(time))
    }
}

fn described(pair: &KeptPair) -> Option<Described> {
    Described::new(Bundle::new(&pair.chain).iter().next()?)
}
