//! The scenario file: as written in TOML, and as checked.
//!
//! A scenario is a fleet, a link, a server and a list of events over time. Everything has a default, so that a file
//! says only what matters; what it says is checked before anything runs.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::link::LinkQuality;
use crate::slo::Slo;
use crate::span;

/// A file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioWritten {
    name: String,
    devices: u32,
    #[serde(default = "seed_default")]
    seed: u64,
    #[serde(rename = "for")]
    span: String,
    #[serde(default)]
    server: ServerWritten,
    link: Option<LinkWritten>,
    #[serde(default)]
    defect: DefectWritten,
    #[serde(default)]
    hostile: HostileWritten,
    #[serde(default, rename = "event")]
    events: Vec<EventWritten>,
    #[serde(default)]
    slo: Vec<String>,
    /// How often a device uses its certificate at the edge.
    #[serde(default = "use_default")]
    use_every: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ServerWritten {
    lifetime: String,
    capacity_per_s: u32,
    service_time: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LinkWritten {
    delay: Option<String>,
    jitter: Option<String>,
    loss: f64,
    bytes_per_s: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DefectWritten {
    drop_answers: f64,
    swap_early: bool,
    accept_revoked: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HostileWritten {
    wrong_id: f64,
    foreign_certificate: f64,
    malformed_csr: f64,
    half_open: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventWritten {
    at: String,
    what: WhatWritten,
    #[serde(rename = "for")]
    span: Option<String>,
    share: Option<f64>,
    by: Option<String>,
    link: Option<LinkWritten>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum WhatWritten {
    CaAway,
    ClockSkew,
    Lifetime,
    Reboot,
    Revoke,
    Rotate,
    SlowLinks,
}

/// A checked scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub(crate) name: String,
    pub(crate) devices: u32,
    pub(crate) seed: u64,
    pub(crate) span: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) capacity_per_s: u32,
    pub(crate) service_time: Duration,
    /// `None` where the file says nothing: virtual time takes the usual, sockets are as they are.
    pub(crate) link: Option<LinkQuality>,
    pub(crate) defect: Defect,
    pub(crate) hostile: Hostile,
    /// In order of time.
    pub(crate) events: Vec<Event>,
    pub(crate) slos: Vec<Slo>,
    pub(crate) use_every: Duration,
}

/// Faults that are put in on purpose, to see that the checks find them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Defect {
    /// The server does its work and loses this share of its answers.
    pub(crate) drop_answers: f64,
    /// Devices throw the old identity away when a renewal begins.
    pub(crate) swap_early: bool,
    /// The edge does not look at revocation.
    pub(crate) accept_revoked: bool,
}

/// Shares of the fleet that mean harm, beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Hostile {
    pub(crate) wrong_id: f64,
    pub(crate) foreign_certificate: f64,
    pub(crate) malformed_csr: f64,
    pub(crate) half_open: f64,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) what: What,
}

/// What happens. `share` is the part of the fleet that it happens to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// Nobody listens at the EST server.
    CaAway { span: Duration },
    /// Devices believe another time from now on.
    ClockSkew { share: f64, seconds: i64 },
    /// Certificates live this long from now on: many that end together are an expiry wave.
    Lifetime { lifetime: Duration },
    /// Power was gone for a moment.
    Reboot { share: f64 },
    /// Certificates are revoked.
    Revoke { share: f64 },
    /// The operator has devices renew at once.
    Rotate { share: f64 },
    /// Links are this bad for a while.
    SlowLinks { share: f64, span: Duration, link: LinkQuality },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: &f64| format!("{:.0} %", share * 100.0);
        match self {
            Self::CaAway { span } => write!(f, "CA away for {}", span::show(*span)),
            Self::ClockSkew { share, seconds } => {
                write!(f, "clocks of {} are {seconds} s off", percent(share))
            }
            Self::Lifetime { lifetime } => write!(f, "certificates live {}", span::show(*lifetime)),
            Self::Reboot { share } => write!(f, "{} reboot", percent(share)),
            Self::Revoke { share } => write!(f, "{} are revoked", percent(share)),
            Self::Rotate { share } => write!(f, "{} renew at once", percent(share)),
            Self::SlowLinks { share, span, .. } => {
                write!(f, "links of {} are slow for {}", percent(share), span::show(*span))
            }
        }
    }
}

impl ScenarioWritten {
    /// Reads a file's text.
    ///
    /// # Errors
    /// In words, with the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_FILE_BYTES {
            return Err(format!("a scenario is at most {MAX_FILE_BYTES} bytes long"));
        }
        toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))
    }

    /// Checks what it says.
    ///
    /// # Errors
    /// In words, with the field.
    pub fn check(self) -> Result<Scenario, String> {
        let span = named("for", &self.span)?;
        if !(1..=MAX_DEVICES).contains(&self.devices) {
            return Err(format!("devices: 1 to {MAX_DEVICES}"));
        }
        if span.is_zero() || span > MAX_SPAN {
            return Err("for: more than nothing, and at most ten years".to_owned());
        }
        if self.events.len() > MAX_EVENTS {
            return Err(format!("event: at most {MAX_EVENTS}"));
        }
        let mut events: Vec<Event> = self
            .events
            .iter()
            .enumerate()
            .map(|(n, event)| event.check(n, span))
            .collect::<Result<_, _>>()?;
        events.sort_by_key(|event| event.at);
        let hostile = self.hostile;
        for (name, value) in [
            ("hostile.wrong_id", hostile.wrong_id),
            ("hostile.foreign_certificate", hostile.foreign_certificate),
            ("hostile.malformed_csr", hostile.malformed_csr),
            ("hostile.half_open", hostile.half_open),
            ("defect.drop_answers", self.defect.drop_answers),
        ] {
            share(name, value)?;
        }
        let use_every = named("use_every", &self.use_every)?;
        let lifetime = named("server.lifetime", &self.server.lifetime)?;
        if use_every < MIN_USE_EVERY || lifetime < MIN_LIFETIME {
            return Err("use_every: at least a second; server.lifetime: at least five minutes".to_owned());
        }
        Ok(Scenario {
            name: self.name,
            devices: self.devices,
            seed: self.seed,
            span,
            lifetime,
            capacity_per_s: self.server.capacity_per_s.max(1),
            service_time: named("server.service_time", &self.server.service_time)?,
            link: self.link.map(|link| link.check("link")).transpose()?,
            defect: Defect {
                drop_answers: self.defect.drop_answers,
                swap_early: self.defect.swap_early,
                accept_revoked: self.defect.accept_revoked,
            },
            hostile: Hostile {
                wrong_id: hostile.wrong_id,
                foreign_certificate: hostile.foreign_certificate,
                malformed_csr: hostile.malformed_csr,
                half_open: hostile.half_open,
            },
            events,
            slos: self.slo.iter().map(|goal| goal.parse()).collect::<Result<_, _>>()?,
            use_every,
        })
    }
}

impl EventWritten {
    fn check(&self, number: usize, whole: Duration) -> Result<Event, String> {
        let field = |name: &str| format!("event {}: {name}", number + 1);
        let at = named(&field("at"), &self.at)?;
        if at >= whole {
            return Err(format!("{} is after the end", field("at")));
        }
        let span = || -> Result<Duration, String> {
            named(&field("for"), self.span.as_deref().ok_or_else(|| format!("{} is missing", field("for")))?)
        };
        let part = share(&field("share"), self.share.unwrap_or(1.0))?;
        let by = || self.by.as_deref().ok_or_else(|| format!("{} is missing", field("by")));
        let what = match self.what {
            WhatWritten::CaAway => What::CaAway { span: span()? },
            WhatWritten::ClockSkew => {
                let by = by()?;
                let (back, text) = by.strip_prefix('-').map_or((false, by), |text| (true, text));
                let seconds =
                    i64::try_from(named(&field("by"), text)?.as_secs()).map_err(|error| error.to_string())?;
                What::ClockSkew { share: part, seconds: if back { -seconds } else { seconds } }
            }
            WhatWritten::Lifetime => {
                let lifetime = span()?;
                if lifetime < MIN_LIFETIME {
                    return Err(format!("{}: at least five minutes", field("for")));
                }
                What::Lifetime { lifetime }
            }
            WhatWritten::Reboot => What::Reboot { share: part },
            WhatWritten::Revoke => What::Revoke { share: part },
            WhatWritten::Rotate => What::Rotate { share: part },
            WhatWritten::SlowLinks => {
                let link = self.link.as_ref().ok_or_else(|| format!("{} is missing", field("link")))?;
                What::SlowLinks { share: part, span: span()?, link: link.check(&field("link"))? }
            }
        };
        Ok(Event { at, what })
    }
}

impl LinkWritten {
    fn check(&self, name: &str) -> Result<LinkQuality, String> {
        let time = |text: &Option<String>, default: Duration| match text {
            Some(text) => named(name, text),
            None => Ok(default),
        };
        if !(0.0..=MAX_LOSS).contains(&self.loss) {
            return Err(format!("{name}.loss: 0 to {MAX_LOSS}"));
        }
        Ok(LinkQuality {
            delay: time(&self.delay, LinkQuality::USUAL.delay)?,
            jitter: time(&self.jitter, Duration::ZERO)?,
            loss: self.loss,
            bytes_per_s: self.bytes_per_s.filter(|rate| *rate > 0),
        })
    }
}

impl Default for ServerWritten {
    fn default() -> Self {
        Self { lifetime: "90d".to_owned(), capacity_per_s: 2000, service_time: "5ms".to_owned() }
    }
}

fn named(name: &str, text: &str) -> Result<Duration, String> {
    let span = span::parse(text).map_err(|error| format!("{name}: {error}"))?;
    if span > MAX_SPAN { Err(format!("{name}: at most ten years")) } else { Ok(span) }
}

fn share(name: &str, value: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{name}: 0 to 1")) }
}

const fn seed_default() -> u64 {
    1
}

fn use_default() -> String {
    "6h".to_owned()
}

/// A file is written by hand.
const MAX_FILE_BYTES: usize = 64 << 10;
/// What memory of a usual machine holds in virtual time.
const MAX_DEVICES: u32 = 1_000_000;
const MAX_EVENTS: usize = 1000;
const MAX_SPAN: Duration = Duration::from_secs(3660 * 86_400);
/// Below this a renewal window is shorter than the pace of retries.
const MIN_LIFETIME: Duration = Duration::from_secs(300);
const MIN_USE_EVERY: Duration = Duration::from_secs(1);
const MAX_LOSS: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Scenario, String> {
        ScenarioWritten::parse(text).and_then(ScenarioWritten::check)
    }

    #[test]
    fn a_file_is_read_and_its_events_are_in_order() {
        let text = r#"
            name = "a bad week"
            devices = 1000
            for = "7d"
            slo = ["renew.errors<5%"]
            [server]
            lifetime = "2d"
            [hostile]
            wrong_id = 0.01
            [[event]]
            at = "3d"
            what = "reboot"
            [[event]]
            at = "1d"
            what = "ca-away"
            for = "6h"
            [[event]]
            at = "2d"
            what = "clock-skew"
            by = "-1d"
            share = 0.1
        "#;
        let scenario = read(text).expect("a scenario");
        let times: Vec<u64> = scenario.events.iter().map(|event| event.at.as_secs() / 86_400).collect();
        assert_eq!(times, [1, 2, 3]);
        assert_eq!(scenario.events[1].what, What::ClockSkew { share: 0.1, seconds: -86_400 });
    }

    #[test]
    fn what_has_no_sense_is_refused_with_its_name() {
        let base = "name='x'\ndevices=10\nfor='1d'\n";
        for (more, word) in [
            ("devices=10", "duplicate"),
            ("colour='red'", "colour"),
            ("[defect]\ndrop_answers=1.5", "drop_answers"),
            ("[[event]]\nat='2d'\nwhat='reboot'", "after the end"),
            ("[[event]]\nat='1h'\nwhat='ca-away'", "for is missing"),
            ("[[event]]\nat='1h'\nwhat='explode'", "explode"),
            ("[server]\nlifetime='1s'", "lifetime"),
            ("slo=['fast']", "fast"),
        ] {
            let error = read(&format!("{base}{more}")).expect_err(more);
            assert!(error.contains(word), "{more}: {error}");
        }
        assert!(read("name='x'\ndevices=0\nfor='1d'").is_err());
    }
}
