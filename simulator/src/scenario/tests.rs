//! Scenarios of a thousand devices: what holds, that it is the same again, and that faults put in are found.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::results::Results;
use crate::view::View;

fn run_text(text: &str) -> Results {
    let scenario = ScenarioWritten::parse(text).and_then(ScenarioWritten::check).expect("a scenario");
    let mut view = View::new(None, true, None).expect("a view");
    run(scenario, &mut view, &CancellationToken::new()).expect("runs")
}

fn missed(results: &Results) -> Vec<String> {
    results
        .checks
        .iter()
        .filter(|check| !check.held)
        .map(|check| format!("{}: {}", check.name, check.detail))
        .collect()
}

const WEEK: &str = "
    name = 'a bad week'
    devices = 300
    seed = 5
    for = '7d'
    [server]
    lifetime = '2d'
    [hostile]
    wrong_id = 0.02
    foreign_certificate = 0.02
    malformed_csr = 0.02
    half_open = 0.02
    [[event]]
    at = '30h'
    what = 'ca-away'
    for = '6h'
    [[event]]
    at = '3d'
    what = 'reboot'
    [[event]]
    at = '4d'
    what = 'revoke'
    share = 0.1
    [[event]]
    at = '5d'
    what = 'rotate'
";

#[test]
fn a_bad_week_is_survived() {
    let results = run_text(WEEK);
    assert_eq!(missed(&results), Vec::<String>::new());
    assert!(results.series["renew"].hdr.count() > 1000);
    assert!(results.series["edge"].errors.get("revoked").is_some_and(|count| *count > 100));
    assert!(results.facts["revoked"] > 10.0);
}

#[test]
fn the_same_seed_gives_the_same_result_and_another_does_not() {
    let text = |seed: u32| WEEK.replace("seed = 5", &format!("seed = {seed}")).replace("300", "100");
    let json = |seed| {
        let mut results = run_text(&text(seed));
        // How long it took is of this machine.
        results.costs.client_cpu_ms = 0.0;
        serde_json::to_string(&results).expect("JSON")
    };
    let first = json(5);
    assert_eq!(first, json(5));
    assert_ne!(first, json(6));
}

#[test]
fn a_server_that_loses_one_answer_in_a_hundred_is_found() {
    let results = run_text(&format!("{WEEK}\n[defect]\ndrop_answers = 0.01"));
    assert!(missed(&results).iter().any(|name| name.starts_with("every request")), "{:?}", missed(&results));
    // The devices live with it: the same request again gets the same certificate.
    assert!(results.facts["requests_repeated"] > 0.0);
}

#[test]
fn devices_that_swap_their_identity_early_are_found() {
    // The power goes while the answer to the new request is awaited.
    let text = "
        name = 'a cut in a renewal'
        devices = 100
        for = '2d'
        [server]
        lifetime = '2d'
        service_time = '20s'
        [[event]]
        at = '24h'
        what = 'rotate'
        [[event]]
        at = '86451s'
        what = 'reboot'
    ";
    assert_eq!(missed(&run_text(text)), Vec::<String>::new());
    let results = run_text(&format!("{text}\n[defect]\nswap_early = true"));
    assert!(
        missed(&results).iter().any(|name| name.starts_with("no device loses")),
        "{:?}",
        missed(&results)
    );
}

#[test]
fn an_edge_that_lets_revoked_devices_in_is_found() {
    let results = run_text(&format!("{WEEK}\n[defect]\naccept_revoked = true"));
    assert!(missed(&results).iter().any(|name| name.starts_with("no revoked")), "{:?}", missed(&results));
}

#[test]
fn skewed_clocks_slow_links_and_an_expiry_wave_are_survived() {
    let results = run_text(
        "
        name = 'hard links'
        devices = 200
        for = '6d'
        [server]
        lifetime = '1d'
        [[event]]
        at = '1d'
        what = 'clock-skew'
        by = '-2h'
        share = 0.3
        [[event]]
        at = '2d'
        what = 'slow-links'
        for = '1d'
        share = 0.5
        link = { delay = '300ms', jitter = '500ms', loss = 0.1, bytes_per_s = 2000 }
        [[event]]
        at = '3d'
        what = 'lifetime'
        for = '12h'
    ",
    );
    assert_eq!(missed(&results), Vec::<String>::new());
}
