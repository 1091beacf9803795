//! Paths as the gate reads them, and as origins may.

/// Whether a path lies at or below another, in whole segments.
pub(super) fn begins_with(path: &str, start: &str) -> bool {
    let start = start.trim_end_matches('/');
    path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Gives the path that an origin is likely to see: decoded once, without `.`, `..`, empty segments,
/// backslashes and parameters after `;`. Else `/public/../admin`, `/%61dmin` or, at servlets,
/// `/admin;x` and `/public/..;/admin` would pass for another place. A slash at the end stays.
pub fn normal_path(path: &str) -> String {
    let decoded = decoded(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut is_open = false;
    for name in names_of(&decoded) {
        is_open = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    // RFC 3986 §5.2.4 ends these with a slash too; a rule about what lies below a folder means it.
    let end = if is_open && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Whether a path, decoded once, has a segment that origins may or may not take out (RFC 3986 §5.2.4).
pub(super) fn has_dot_segment(path: &str) -> bool {
    names_of(&decoded(path)).any(|name| matches!(name, "." | ".."))
}

/// The segments of a decoded path, without parameters.
fn names_of(decoded: &str) -> impl Iterator<Item = &str> {
    decoded.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default())
}

fn decoded(path: &str) -> String {
    let mut octets = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let value = digits
            .filter(|_| *first == b'%')
            .and_then(|digits| core::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        octets.push(value.unwrap_or(*first));
        rest = tail.get(if value.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&octets).into_owned()
}
