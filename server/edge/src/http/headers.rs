//! What headers pass to an origin, and what the edge adds.
//!
//! Names that speak of the client's certificate or address belong to the edge: whoever sends them,
//! on whatever hostname, in whatever spelling, they are removed before ours are added. Ours are
//! RFC 9440 `Client-Cert` and `Client-Cert-Chain`, the `Cf-Client-Cert-*` and `cf-cert-*` names, on
//! every request and not only the first of a connection, and only for a certificate that is good.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::names;
use crate::identity::parse;
use crate::tls::verifier::Verified;

/// Names that are the edge's alone, as [`as_read`] spells them.
const OWN_NAMES: [&str; 10] = [
    "client-cert",
    "client-cert-chain",
    "forwarded",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-cert",
    "x-client-verify",
    "x-client-dn",
    "client-ip",
];

/// Beginnings of names that are the edge's alone, as [`as_read`] spells them.
const OWN_PREFIXES: [&str; 8] = [
    "cf-client-cert-",
    "cf-cert-",
    "cf-access-",
    "x-forwarded-",
    "x-ssl-",
    "ssl-client-",
    "x-client-cert-",
    "x-tls-client-",
];

/// RFC 9110 §7.6.1: these speak of one connection. hyper answers `expect`, of HTTP/1.1.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// The contract: above this size the header stays away (10 KiB of base64).
const CERTIFICATE_MAX_BYTES: usize = 10 * 1024;
/// The contract: above this size the header stays away (16 KiB of base64).
const PATH_MAX_BYTES: usize = 16 * 1024;

/// Says why there is no `Client-Cert-Chain`, where there is none for its size.
pub(crate) const PATH_TOO_LARGE: &str = "cf-cert-chain-rfc9440-too-large";

/// Removes what only the edge may say, and what would be misread.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let wrong: Vec<_> = headers.keys().filter(|name| is_own(name) || is_misread(name)).cloned().collect();
    for name in wrong {
        headers.remove(name);
    }
}

fn is_own(name: &HeaderName) -> bool {
    let name = as_read(name);
    OWN_NAMES.contains(&&*name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether servers behind could take it for one that speaks of the request's end or of the connection.
fn is_misread(name: &HeaderName) -> bool {
    let read = as_read(name);
    let is_another = || HOP_BY_HOP.iter().chain([&header::CONTENT_LENGTH]).any(|other| *other == *read);
    *read != *name.as_str() && is_another()
}

/// Servers behind us make variables of names (RFC 3875 §4.1.18): some read `_` as `-` then, and some whatever
/// else is neither a letter nor a digit, as in `Client.Cert`. Names in a HeaderMap are lower case already.
fn as_read(name: &HeaderName) -> Cow<'_, str> {
    let spelled = name.as_str();
    let is_read_as_dash = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    if spelled.contains(is_read_as_dash) {
        spelled.replace(is_read_as_dash, "-").into()
    } else {
        spelled.into()
    }
}

/// Removes what speaks of one connection, with all that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // RFC 9112 §6.3: a length beside it does not count, and whoever passes the message on takes it out.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // A client must not be able to have the request's own framing or host removed.
    let kept = [header::HOST, header::CONTENT_LENGTH];
    for name in named.iter().filter(|name| !kept.contains(name)).chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// RFC 9113 §8.2.3: h2 clients may cut cookies into several fields, which HTTP/1.1 has as one.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Takes back the names that a hostname can turn off; `Client-Cert` stays.
pub(crate) fn withhold_certificate(headers: &mut HeaderMap) {
    for name in ["cf-client-cert-der-base64", "cf-client-cert-sha256"] {
        headers.remove(name);
    }
}

/// Takes back the `cf-cert-*` names, which a zone can turn off.
pub(crate) fn withhold_fields(headers: &mut HeaderMap) {
    let fields: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("cf-cert-")).cloned().collect();
    for name in fields {
        headers.remove(name);
    }
}

/// RFC 9110 §7.6.3: says to the origin that the request came through here, and what it was spoken in. Its answer is
/// not told so on, which a gateway may leave out: a client sees no more of what is behind the name.
pub(crate) fn add_via(request: &mut HeaderMap, spoken: Version) {
    let via = match spoken {
        Version::HTTP_2 => "2.0 muster",
        Version::HTTP_10 => "1.0 muster",
        _ => "1.1 muster",
    };
    request.append(header::VIA, HeaderValue::from_static(via));
}

/// Adds where a request came from. Removing what a client said of it comes before.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, source: IpAddr, host: &HeaderValue) {
    if let Ok(address) = HeaderValue::try_from(source.to_canonical().to_string()) {
        headers.insert(HeaderName::from_static("x-forwarded-for"), address);
    }
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
    headers.insert(HeaderName::from_static("x-forwarded-host"), host.clone());
}

/// The headers that speak of nobody.
pub(crate) fn anonymous() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    for name in ["cf-cert-presented", "cf-cert-verified", "cf-cert-revoked"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("false"));
    }
    headers
}

/// The headers that speak of a verified holder; made once per connection.
pub(crate) fn of_holder(verified: &Verified) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(32);
    let mut add = |name: &'static str, value: String| {
        // Distinguished names are escaped to printable ASCII, all else is hex, base64 or a date.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let base64 = STANDARD.encode(&verified.der);
    if base64.len() <= CERTIFICATE_MAX_BYTES {
        add("client-cert", format!(":{base64}:"));
        add("cf-client-cert-der-base64", base64);
    }
    add("cf-client-cert-sha256", verified.leaf.fingerprint.to_string());
    let path: Vec<_> = verified.path.iter().map(|der| format!(":{}:", STANDARD.encode(der))).collect();
    let path = path.join(", ");
    if path.len() > PATH_MAX_BYTES {
        add(PATH_TOO_LARGE, "true".to_owned());
    } else if !path.is_empty() {
        add("client-cert-chain", path);
    }
    add("cf-cert-presented", "true".to_owned());
    add("cf-cert-verified", "true".to_owned());
    add("cf-cert-revoked", "false".to_owned());
    add("cf-cert-fingerprint-sha256", verified.leaf.fingerprint.to_string());
    add("cf-cert-fingerprint-sha1", hex::encode(sha1(&verified.der).as_ref()));
    add("cf-cert-issuer-serial", names::serial(&verified.issuer.serial));
    add("cf-cert-issuer-ski", hex::encode_upper(&verified.issuer.key_id));
    if let Ok(certificate) = parse(&verified.der) {
        add("cf-cert-serial", names::serial(certificate.raw_serial()));
        add("cf-cert-ski", hex::encode_upper(&crate::tls::anchors::IssuerFacts::of(&certificate).key_id));
        add("cf-cert-not-before", names::time(&certificate.validity().not_before));
        add("cf-cert-not-after", names::time(&certificate.validity().not_after));
        let (subject, issuer) = (certificate.subject(), certificate.issuer());
        for (name, value) in [
            (["cf-cert-subject-dn", "cf-cert-subject-dn-rfc2253"], names::rfc2253(subject)),
            (["cf-cert-issuer-dn", "cf-cert-issuer-dn-rfc2253"], names::rfc2253(issuer)),
        ] {
            name.into_iter().for_each(|name| add(name, value.clone()));
        }
        add("cf-cert-subject-dn-legacy", names::legacy(subject));
        add("cf-cert-issuer-dn-legacy", names::legacy(issuer));
    }
    headers
}

fn sha1(der: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> HeaderMap {
        names
            .iter()
            .map(|name| (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_static("x")))
            .collect()
    }

    #[test]
    fn our_names_are_removed_in_every_spelling() {
        let mut headers = map(&[
            "Client-Cert",
            "CLIENT_CERT",
            "client_cert-chain",
            "Cf-Client-Cert-Sha256",
            "cf_client_cert_der_base64",
            "cf-cert-verified",
            "CF_CERT_ANYTHING",
            "cf-access-jwt-assertion",
            "X-Forwarded-For",
            "x_forwarded_client_cert",
            "X-SSL-Client-DN",
            "SSL_CLIENT_VERIFY",
            "Forwarded",
            "X-Real-IP",
            "x-kept",
            "client-certificate-of-merit",
        ]);
        strip(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    /// RFC 9110 §5.6.2: what a name may have beside letters and digits.
    #[test]
    fn no_separator_of_a_name_makes_it_another_one() {
        for separator in "!#$%&'*+-.^_`|~".chars() {
            let spell = |name: &str| name.replace('-', &separator.to_string());
            let own = ["client-cert", "cf-cert-verified", "x-forwarded-for", "x-real-ip"].map(spell);
            let framing = ["content-length", "transfer-encoding", "proxy-connection"].map(spell);
            let mut headers = map(&own.each_ref().map(String::as_str));
            // Spelled as they are, these are read by what frames the request, and not here.
            if separator != '-' {
                headers.extend(map(&framing.each_ref().map(String::as_str)));
            }
            strip(&mut headers);
            assert_eq!(headers.len(), 0, "{headers:?}");
        }
    }

    #[test]
    fn connection_takes_what_it_names_but_not_the_framing() {
        let mut headers = map(&["x-hop", "x-kept", "keep-alive", "te", "upgrade", "host", "content-length"]);
        headers.append(header::CONNECTION, HeaderValue::from_static("close, X-Hop"));
        headers.append(header::CONNECTION, HeaderValue::from_static("host, content-length"));
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-kept"]);
    }

    #[test]
    fn cookies_are_one_field_again() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2"] {
            headers.append(header::COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}
