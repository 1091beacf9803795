//! Spans of time as people write them: `250ms`, `90s`, `6h`, `30d`.

use std::time::Duration;

/// Reads a span: a number and one of `us ms s m h d`; a bare number is in seconds.
///
/// # Errors
/// In words.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` is no span of time; write e.g. 250ms, 90s, 6h, 30d"))?;
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        other => return Err(format!("`{other}` is no unit of time; use us, ms, s, m, h or d")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("`{text}` is too long"))
}

/// The same for people: at most two units.
pub(crate) fn show(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match span.as_secs() {
        0 if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        0 => format!("{:.1} ms", seconds * 1e3),
        1..=119 => format!("{seconds:.1} s"),
        whole @ 120..=7199 => format!("{} min {} s", whole / 60, whole % 60),
        whole @ 7200..=172_799 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        whole => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_every_unit() {
        for (text, millis) in
            [("250ms", 250), ("1.5s", 1500), ("7", 7000), ("2m", 120_000), ("6h", 21_600_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for wrong in ["", "s", "5 weeks", "-1s", "1e9d", "99999999999999999999d"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
