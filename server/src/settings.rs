//! All settings of `muster.toml`, as `muster settings` prints them.

/// Every setting, commented out, with what it means and its default.
pub(crate) const SETTINGS: &str = include_str!("settings.toml");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::ConfigWritten;

    const EXAMPLE: &str = " # example";

    /// The settings in force: the lines that `takes` takes, without what makes them comments.
    fn in_force(takes: fn(&str) -> bool) -> String {
        let is_one =
            |line: &&str| line.starts_with('[') || (line.starts_with('#') && !line.starts_with("# "));
        let lines = SETTINGS.lines().filter(is_one).filter(|line| takes(line));
        lines.map(|line| line.trim_start_matches('#')).fold(String::new(), |text, line| text + line + "\n")
    }

    /// The names of the settings of a table.
    fn named(table: &str) -> BTreeSet<String> {
        let text = in_force(|_| true);
        let head = format!("\n{table}\n");
        let text = format!("\n{text}");
        let (_, after) = text.split_once(&head).unwrap_or_else(|| panic!("no {table}"));
        let lines = after.lines().take_while(|line| !line.starts_with('['));
        lines.filter_map(|line| line.split_once(" = ").map(|(name, _)| name.to_owned())).collect()
    }

    #[test]
    fn the_defaults_are_those_that_are_shown() {
        let shown = in_force(|line| !line.ends_with(EXAMPLE) && !line.starts_with("#["));
        let config = |text: &str| {
            let written = ConfigWritten::parse(text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
            format!("{:#?}", written.check(Path::new("/data")).expect("it can be used"))
        };
        assert_eq!(config(&shown), config(""));
    }

    #[test]
    fn what_is_shown_as_an_example_is_read() {
        let others = in_force(|line| !line.starts_with("#unix = "));
        let written = ConfigWritten::parse(&others).unwrap_or_else(|error| panic!("{error:#}\n{others}"));
        written.check(Path::new("/data")).expect("it can be used");
    }

    /// What a table has is known from what is said about one that it has not.
    #[test]
    fn every_setting_is_shown() {
        for table in [
            "[listen]",
            "[est]",
            "[edge]",
            "[broker]",
            "[[broker.rules]]",
            "[broker.anonymous]",
            "[broker.on_cut]",
            "[broker.quotas]",
            "[broker.upstream]",
            "[ca]",
            "[ledger]",
            "[log]",
            "[outbound]",
            "[webhooks]",
        ] {
            let error = ConfigWritten::parse(&format!("{table}\nnone = 1\n")).expect_err("no such setting");
            let error = error.to_string();
            let (_, expected) = error.split_once("expected ").expect("it says what there is");
            let there: BTreeSet<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            // Tables of their own.
            let there: BTreeSet<String> = there
                .into_iter()
                .filter(|name| !SETTINGS.contains(&format!("[broker.{name}]")) || table != "[broker]")
                .collect();
            assert_eq!(named(table), there, "{table}");
        }
        let error = ConfigWritten::parse("[none]").expect_err("no such table").to_string();
        for table in error.split('`').skip(3).step_by(2) {
            assert!(SETTINGS.contains(&format!("\n[{table}]\n")), "{table}");
        }
    }
}
