//! The programs under test, built once with the profile of the test that runs them.

use std::path::PathBuf;
use std::process::Command;

/// Builds a program of the workspace and says where it is.
pub fn built(package: &str, program: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program");
    let folder = own.ancestors().find(|path| path.join("deps").is_dir()).expect("a target folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", package, "--bin", program]);
    if folder.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.env("CARGO_TARGET_DIR", folder.parent().expect("a target folder"));
    assert!(build.status().expect("cargo runs").success(), "{program} does not build");
    folder.join(program)
}
