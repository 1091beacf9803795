//! The log: structured lines on standard error.
//!
//! Standard output stays free for what commands print, and for the ready line of `serve`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::LogFormat;

/// What of the log is written.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // The router of the engine `rumqttd` tells of every connection; a level for it may be named like any other.
    EnvFilter::builder().parse(format!("rumqttd=error,{level}"))
}

/// Starts the log of a server. A second call in one process changes nothing.
///
/// # Errors
/// When `level` is no filter.
pub fn start(format: LogFormat, level: &str) -> Result<(), ParseError> {
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
