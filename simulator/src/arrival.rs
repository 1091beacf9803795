//! When devices start: open-loop, so decided before the server is asked anything.
//!
//! A shard of a run takes every n-th arrival of the one common schedule, so the sum over all shards is the
//! schedule of a run without shards, to the microsecond.

use std::str::FromStr;
use std::time::Duration;

use crate::chance::Chance;
use crate::span;

/// A law of arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrival {
    /// Evenly spaced.
    Constant { per_s: f64 },
    /// Independent of each other, as calls or customers are.
    Poisson { per_s: f64 },
    /// The rate grows (or falls) evenly, then stays.
    Ramp { from_per_s: f64, to_per_s: f64, over: Duration },
    /// All at once.
    Stampede,
}

impl Arrival {
    /// Every arrival's time after the start, in order, without end.
    pub(crate) fn schedule(self, seed: u64) -> impl Iterator<Item = Duration> + Send {
        let mut chance = Chance::new(seed, ARRIVAL_STREAM);
        let mut poisson_at = 0.0;
        (0_u64..).map(move |number| {
            let seconds = match self {
                Self::Constant { per_s } => number as f64 / per_s,
                Self::Poisson { per_s } => {
                    poisson_at += chance.exponential(1.0 / per_s);
                    poisson_at
                }
                Self::Ramp { from_per_s, to_per_s, over } => {
                    ramp(number as f64, from_per_s, to_per_s, over.as_secs_f64())
                }
                Self::Stampede => 0.0,
            };
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        })
    }
}

impl Arrival {
    /// The arrivals that are one shard's: every n-th of the common schedule.
    pub(crate) fn of_shard(
        self,
        seed: u64,
        (shard, shards): (u32, u32),
    ) -> impl Iterator<Item = Duration> + Send {
        self.schedule(seed).skip(shard as usize).step_by(shards.max(1) as usize)
    }
}

/// The time at which the area under the rate reaches `number`.
fn ramp(number: f64, from: f64, to: f64, over: f64) -> f64 {
    let area = (from + to) / 2.0 * over;
    if number >= area {
        return over + (number - area) / to;
    }
    let slope = (to - from) / over;
    if slope.abs() < f64::EPSILON {
        return number / from;
    }
    ((from * from + 2.0 * slope * number).max(0.0).sqrt() - from) / slope
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (law, rest) = text.split_once(':').unwrap_or((text, ""));
        let rate = |text: &str| match text.trim().parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
            _ => Err(format!("`{text}` is no rate per second above zero")),
        };
        match law {
            "constant" => Ok(Self::Constant { per_s: rate(rest)? }),
            "poisson" => Ok(Self::Poisson { per_s: rate(rest)? }),
            "stampede" if rest.is_empty() => Ok(Self::Stampede),
            "ramp" => {
                let parts =
                    rest.split_once("..").and_then(|(from, rest)| Some((from, rest.split_once('/')?)));
                let (from, (to, over)) =
                    parts.ok_or_else(|| format!("`{text}`: write ramp:FROM..TO/SPAN"))?;
                let over = span::parse(over)?;
                if over.is_zero() {
                    return Err(format!("`{text}`: the span of a ramp is longer than zero"));
                }
                Ok(Self::Ramp { from_per_s: rate(from)?, to_per_s: rate(to)?, over })
            }
            _ => Err(format!("`{text}`: write constant:RATE, poisson:RATE, ramp:FROM..TO/SPAN or stampede")),
        }
    }
}

/// Which of the seed's sequences arrivals use.
const ARRIVAL_STREAM: u64 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn within(law: &str, seconds: u64) -> usize {
        let law: Arrival = law.parse().expect("a law");
        law.schedule(7).take_while(|at| *at < Duration::from_secs(seconds)).take(1_000_000).count()
    }

    #[test]
    fn each_law_brings_as_many_as_it_says() {
        assert_eq!(within("constant:50", 10), 500);
        assert!((4_700..5_300).contains(&within("poisson:500", 10)), "{}", within("poisson:500", 10));
        let ramp = within("ramp:10..110/10s", 20);
        assert!((1_699..=1_701).contains(&ramp), "{ramp}");
        assert_eq!(within("stampede", 1), 1_000_000);
    }

    #[test]
    fn poisson_gaps_vary_as_they_should() {
        let times: Vec<f64> =
            Arrival::Poisson { per_s: 100.0 }.schedule(3).take(20_000).map(|at| at.as_secs_f64()).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // An exponential's standard deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn shards_together_keep_the_whole_s_schedule() {
        let law = Arrival::Poisson { per_s: 40.0 };
        let whole: Vec<Duration> = law.schedule(9).take(300).collect();
        let mut shards: Vec<Duration> =
            (0..3).flat_map(|shard| law.of_shard(9, (shard, 3)).take(100)).collect();
        shards.sort();
        assert_eq!(shards, whole);
    }

    #[test]
    fn senseless_laws_are_refused() {
        for wrong in [
            "",
            "constant",
            "constant:0",
            "poisson:-1",
            "poisson:inf",
            "ramp:1..2",
            "ramp:1..2/0s",
            "stampede:5",
        ] {
            assert!(wrong.parse::<Arrival>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn times_never_go_back(from in 0.1_f64..1000.0, to in 0.1_f64..1000.0, over in 1_u64..100, seed: u64) {
            for law in [
                Arrival::Ramp { from_per_s: from, to_per_s: to, over: Duration::from_secs(over) },
                Arrival::Poisson { per_s: from },
                Arrival::Constant { per_s: to },
            ] {
                let times: Vec<Duration> = law.schedule(seed).take(200).collect();
                prop_assert!(times.is_sorted(), "{:?}", law);
            }
        }
    }
}
