//! Runs the foreign tools in a folder of their own.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder that the tools work in.
pub(crate) struct Bench(TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).expect("writes");
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("reads")
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).expect("is text")
    }

    /// Writes certificates as one PEM file.
    pub(crate) fn write_pem(&self, name: &str, certificates: &[&[u8]]) {
        let text: String =
            certificates.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", *der))).collect();
        self.write(name, text);
    }

    /// Runs openssl with space-separated arguments; it must succeed. What it says.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = self.run(Command::new("openssl").args(&arguments));
        let said = both(&output);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
        said
    }

    /// Runs a Python program with arguments; it must succeed. What it says.
    pub(crate) fn python(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(Command::new("python3").args(["-c", program]).args(arguments));
        let said = both(&output);
        assert!(output.status.success(), "python3: {said}");
        said
    }

    fn run(&self, command: &mut Command) -> Output {
        command.current_dir(self.0.path()).output().expect("the tool is installed")
    }
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}
