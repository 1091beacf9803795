//! A client of our server's admin API: what a run needs of it.
//!
//! The API listens on loopback in plain HTTP unless it was opened up, so nothing else is spoken here.

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The API of one account.
#[derive(Clone)]
pub(crate) struct Api {
    authority: String,
    base: String,
    secret: String,
    account: String,
}

impl Api {
    /// Finds the account that the token may use.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn open(url: &str, secret: &str) -> anyhow::Result<Self> {
        let rest = url.trim_end_matches('/').strip_prefix("http://");
        let rest = rest.with_context(|| format!("--api {url}: only http:// is spoken here"))?;
        let (authority, base) = rest.split_once('/').unwrap_or((rest, "client/v4"));
        let mut api = Self {
            authority: authority.to_owned(),
            base: base.to_owned(),
            secret: secret.to_owned(),
            account: String::new(),
        };
        let accounts = api.ask("GET", "/accounts", None).await?;
        let account = accounts.pointer("/0/id").and_then(Value::as_str);
        account.context("the API names no account that this token may use")?.clone_into(&mut api.account);
        Ok(api)
    }

    /// A token that `devices` devices may claim, for a day.
    ///
    /// # Errors
    /// In words.
    pub(crate) async fn claim_token(&self, devices: usize) -> anyhow::Result<String> {
        let wanted = json!({ "claim": true, "uses": devices.max(1), "ttl_s": TOKEN_TTL_S });
        let made = self.own("POST", "/tokens", Some(&wanted)).await?;
        let token = made.pointer("/token").and_then(Value::as_str);
        Ok(token.context("the API made no token")?.to_owned())
    }

    /// Asks something of Muster's own part of the API; the `result` of the answer.
    ///
    /// # Errors
    /// In words, with the API's own.
    pub(crate) async fn own(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.ask(method, &format!("/accounts/{}/muster{path}", self.account), body).await
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let Self { authority, base, secret, .. } = self;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} /{base}{path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {secret}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let connected = TcpStream::connect(authority.as_str()).await;
        let mut stream = connected.with_context(|| format!("can't reach the API at {authority}"))?;
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
        let mut answer: Value = serde_json::from_str(body).context("the API's answer is no JSON")?;
        Ok(answer.get_mut("result").map(Value::take).unwrap_or_default())
    }
}

/// A list of a page, many times over.
const ANSWER_MAX_BYTES: u64 = 4 << 20;
/// A day: the longest enrollment of a large fleet.
const TOKEN_TTL_S: u64 = 86_400;
