//! The admin API, as far as fleets need it: loopback, plain HTTP, one request a connection.

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    url: String,
    secret: String,
    account: String,
}

impl Api {
    /// Finds the account that the token may use.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn new(url: &str, secret: &str) -> anyhow::Result<Self> {
        let mut api = Self { url: url.to_owned(), secret: secret.to_owned(), account: String::new() };
        let accounts = api.ask("GET", "/accounts", &Value::Null).await?;
        let account = accounts.pointer("/result/0/id").and_then(Value::as_str);
        api.account = account.context("the API names no account that this token may use")?.to_owned();
        Ok(api)
    }

    /// Asks for something of the account that only Muster has.
    ///
    /// # Errors
    /// In words, with the API's own.
    pub(crate) async fn own(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(method, &format!("/accounts/{}/muster{path}", self.account), body).await
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let rest = self.url.trim_end_matches('/').strip_prefix("http://");
        let rest = rest.with_context(|| format!("--api {}: only http:// is spoken here", self.url))?;
        let (authority, base) = rest.split_once('/').unwrap_or((rest, "client/v4"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} /{base}{path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.secret,
            body.len()
        );
        let mut stream = TcpStream::connect(authority)
            .await
            .with_context(|| format!("can't reach the API at {authority}"))?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        let text = String::from_utf8(answer)?;
        let (head, body) = text.split_once("\r\n\r\n").context("the API's answer is cut off")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        anyhow::ensure!(
            status.starts_with('2'),
            "the API answered {status} to {method} {path}: {}",
            body.trim()
        );
        serde_json::from_str(body).context("the API's answer is no JSON")
    }
}

const ANSWER_MAX_BYTES: u64 = 1 << 20;
