//! The note a running server leaves for local commands: where it is, and a secret that proves the
//! caller can read the data directory. It dies with the server.

use serde::{Deserialize, Serialize};

/// The content of `DIR/serving.json`.
#[derive(Clone, Deserialize, Serialize)]
pub struct Serving {
    /// The server's process.
    pub pid: u32,
    /// Base URL of its admin listener.
    pub admin: String,
    /// Bearer token for local commands.
    pub secret: String,
}

impl Serving {
    /// The note of this process.
    pub fn new(admin: &str, secret: &str) -> Self {
        Self { pid: std::process::id(), admin: admin.to_owned(), secret: secret.to_owned() }
    }

    /// As it is written.
    ///
    /// # Errors
    /// Never in practice; serialising text can't fail.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}
