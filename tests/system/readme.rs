//! The README keeps its promises: what it lists is what the code has.

use muster_policy::reason::{Fault, Reason};

const README: &str = include_str!("../../README.md");

#[test]
fn every_refusal_reason_is_listed_with_its_status_and_sentence() {
    for reason in Reason::ALL {
        let status = match reason.fault() {
            Fault::Authentication => 401,
            Fault::Forbidden => 403,
            Fault::Malformed if *reason == Reason::MethodRefused => 405,
            Fault::Malformed => 400,
            Fault::TooLarge => 413,
            Fault::MediaType => 415,
            Fault::NotFound => 404,
            Fault::NotOffered => 501,
            Fault::TooOften => 429,
            Fault::Unavailable => 503,
            Fault::Misdirected => 421,
            Fault::Origin if *reason == Reason::OriginTimeout => 504,
            Fault::Origin => 502,
        };
        let row = format!("| `{}` | {status} | {} |", reason.code(), reason.sentence());
        assert!(README.contains(&row), "missing in README.md: {row}");
    }
}

#[test]
fn it_begins_with_what_it_is_and_two_commands() {
    let head: Vec<&str> = README.lines().take(10).collect();
    assert!(head[0] == "# Muster" && head[2].starts_with("**Muster "));
    assert!(head.contains(&"cargo run --release -p muster-simulator -- demo"));
    assert!(head.contains(&"tests/check.sh"));
}
