//! Who may import whom: the arrows between packages, read from `cargo metadata`.
//!
//! An arrow that is not drawn here is refused, and so is a package nobody drew. The list is the
//! design; change it there first.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Package -> packages of this workspace that it may depend on.
///
/// `ca, store <- enroll <- admin` is a chain: admin stands above the ledger, and may read it, but
/// never reaches a signer by itself, so it has no arrow to `ca`.
const DRAWN: [(&str, &[&str]); 14] = [
    ("muster-policy", &[]),
    ("muster-arrival", &["muster-policy"]),
    ("muster-ca", &["muster-policy"]),
    ("muster-store", &["muster-policy"]),
    ("muster-enroll", &["muster-policy", "muster-arrival", "muster-ca", "muster-store"]),
    ("muster-departure", &["muster-policy"]),
    ("muster-admin", &["muster-policy", "muster-departure", "muster-store", "muster-enroll"]),
    ("muster-edge", &["muster-policy", "muster-arrival", "muster-departure"]),
    ("muster-broker", &["muster-policy"]),
    (
        "muster",
        &[
            "muster-policy",
            "muster-arrival",
            "muster-ca",
            "muster-store",
            "muster-enroll",
            "muster-edge",
            "muster-broker",
            "muster-admin",
        ],
    ),
    ("muster-proto", &[]),
    ("muster-nostd-agent", &["muster-proto"]),
    ("muster-agent", &["muster-proto"]),
    ("muster-simulator", &["muster-proto", "muster"]),
];

/// These may import everything, and nothing may import them.
const TESTS: [&str; 2] = ["muster-fuzz", "muster-tests"];

/// Package -> packages of this workspace that it depends on, tests included.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let own: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list");
            (name(package), dependencies.iter().map(name).filter(|name| own.contains(name)).collect())
        })
        .collect()
}

#[test]
fn refuses_an_arrow_that_is_not_drawn() {
    let drawn = BTreeMap::from(DRAWN);
    let mut faults = Vec::new();
    for (package, targets) in arrows() {
        if TESTS.contains(&package.as_str()) {
            continue;
        }
        let Some(allowed) = drawn.get(package.as_str()) else {
            faults.push(format!("{package} is not drawn"));
            continue;
        };
        for target in targets.iter().filter(|target| !allowed.contains(&target.as_str())) {
            faults.push(format!("{package} -> {target} is not drawn"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_drawing_has_no_cycle() {
    let drawn = BTreeMap::from(DRAWN);
    fn reaches<'a>(drawn: &BTreeMap<&'a str, &'a [&'a str]>, from: &'a str, to: &str, left: usize) -> bool {
        left > 0 && drawn[from].iter().any(|next| *next == to || reaches(drawn, next, to, left - 1))
    }
    for package in drawn.keys() {
        assert!(!reaches(&drawn, package, package, drawn.len()), "{package} reaches itself");
    }
}
