//! The log: structured lines on standard error.
//!
//! Standard output stays free for what commands print, and for the ready line of `serve`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::LogFormat;

/// Text that is not a log filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a level such as `info`, or `target=level` pairs separated by commas")]
pub struct NoFilter;

/// What of the log is written.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, NoFilter> {
    // The parser knows more, but not well: patterns for fields may take for ever, and other characters make it panic.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-:=".contains(c);
    let parts: Vec<&str> = level.split(',').map(str::trim).collect();
    if !parts.iter().all(|part| part.chars().all(is_plain)) {
        return Err(NoFilter);
    }
    // The router of the engine `rumqttd` tells of every connection; a level for it may be named like any other.
    let text = format!("rumqttd=error,{}", parts.join(","));
    EnvFilter::builder().with_regex(false).parse(text).map_err(|_| NoFilter)
}

/// Starts the log of a server. A second call in one process changes nothing.
///
/// # Errors
/// When `level` is not a filter.
pub fn start(format: LogFormat, level: &str) -> Result<(), NoFilter> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    // An embedding program may have set up a log of its own; then that one stays.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
        LogFormat::Text => builder.try_init(),
    };
    Ok(())
}
