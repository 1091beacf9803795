//! Spans of time as people write them: `90s`, `30m`, `1h`, `7d`.

use std::time::Duration;

/// Reads a span of whole seconds, from one to a year.
///
/// # Errors
/// With what it should look like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).ok().filter(|span| span.subsec_nanos() == 0);
    let span = span.filter(|span| (1..=366 * 86_400).contains(&span.as_secs()));
    span.ok_or_else(|| format!("`{text}` is not a span like 90s, 30m, 1h or 7d"))
}

/// Writes a span so that people get its size: its largest unit, rounded down.
#[must_use]
pub fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_nonsense_is_not() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "s", "90", "0s", "-1s", "1500ms", "9999999d", "1ü"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rough_span_names_its_largest_unit() {
        let rough = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([rough(0), rough(119), rough(7_199)], ["0 s", "119 s", "119 min"]);
        assert_eq!([rough(7_200), rough(172_800)], ["2 h", "2 days"]);
    }
}
