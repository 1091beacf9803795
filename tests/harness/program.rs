//! The programs under test, built once with the profile of the test that runs them.

use std::path::PathBuf;
use std::process::Command;

/// A folder where all programs are that were built for these tests; without it each is built when it is needed.
const BUILT_BEFORE: &str = "MUSTER_TEST_PROGRAMS";

/// Builds a program of the workspace and says where it is.
pub fn built(program: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(BUILT_BEFORE) {
        return PathBuf::from(folder).join(program);
    }
    let own = std::env::current_exe().expect("a program");
    let folder = own.ancestors().find(|path| path.join("deps").is_dir()).expect("a target folder");
    let mut build = Command::new(env!("CARGO"));
    // For the whole workspace: what is below the programs has other features for a package alone, and was built for all of
    // them just before.
    build.args(["build", "--quiet", "--workspace", "--bin", program]);
    if folder.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    build.env("CARGO_TARGET_DIR", folder.parent().expect("a target folder"));
    assert!(build.status().expect("cargo runs").success(), "{program} does not build");
    folder.join(program)
}
