//! Which permission a route needs: one table, by the first parts of its path.
//!
//! A route that is not in it needs the most, so a new one can't be open by oversight.

use http::Method;
use muster_store::record::{Area, Level, Permission};

/// What a route needs; none when any good token may.
pub(crate) fn needed(route: &str, method: &Method) -> Option<Permission> {
    let route = route.strip_prefix("/client/v4").unwrap_or(route);
    let parts: Vec<&str> = route.split('/').filter(|part| !part.is_empty()).collect();
    // A question may be long, and is sent by POST; it changes nothing.
    let asks = matches!(
        parts[..],
        ["accounts", _, "muster", "access_test"] | ["accounts", _, "muster", "hosts", _, "test"]
    );
    let reads = asks || matches!(*method, Method::GET | Method::HEAD);
    let level = if reads { Level::Read } else { Level::Write };
    area(&parts).map(|area| Permission { area, level })
}

fn area(parts: &[&str]) -> Option<Area> {
    Some(match parts {
        ["user", ..] | ["memberships"] | ["accounts", _, "tokens", "verify"] => return None,
        ["accounts" | "zones", _, "access", "certificates", ..] => Area::AccessCertificates,
        ["accounts" | "zones", _, "access", ..] | ["accounts", _, "muster", "access_test"] => Area::Access,
        ["accounts", _, "mtls_certificates", ..]
        | ["zones", _, "client_certificates" | "certificate_authorities" | "origin_tls_client_auth", ..]
        | ["accounts", _, "muster", "cas" | "certificates" | "hosts" | "lapsing" | "roots", ..] => {
            Area::Certificates
        }
        ["zones", _, "rulesets" | "managed_headers", ..] => Area::Rules,
        ["accounts", _, "muster", "connections", "close"] => Area::Connections,
        ["accounts", _, "muster", "approvals" | "devices" | "profiles" | "tokens" | "connections", ..] => {
            Area::Fleet
        }
        ["zones"] | ["zones", _] => Area::Zone,
        _ => Area::Account,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_the_api_has_its_permission() {
        let of = |method, route: &str| needed(route, &method).map(|permission| permission.to_string());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(Method::GET, "/client/v4/user/tokens/verify"), None);
        assert_eq!(of(Method::GET, "/client/v4/zones/{zone_id}"), some("zone:read"));
        assert_eq!(of(Method::POST, "/client/v4/zones/{z}/client_certificates"), some("certificates:write"));
        let pulls = "/client/v4/zones/{z}/origin_tls_client_auth/hostnames";
        assert_eq!(of(Method::PUT, pulls), some("certificates:write"));
        assert_eq!(of(Method::PUT, "/client/v4/zones/{z}/rulesets/{id}"), some("rules:write"));
        assert_eq!(of(Method::DELETE, "/client/v4/accounts/{a}/access/apps/{id}"), some("access:write"));
        let access = "/client/v4/zones/{z}/access/certificates/settings";
        assert_eq!(of(Method::PUT, access), some("access-certificates:write"));
        assert_eq!(of(Method::HEAD, "/client/v4/accounts/{a}/muster/devices"), some("fleet:read"));
        let connections = "/client/v4/accounts/{a}/muster/connections";
        assert_eq!(of(Method::GET, connections), some("fleet:read"));
        assert_eq!(of(Method::POST, &format!("{connections}/close")), some("connections:write"));
        assert_eq!(of(Method::GET, "/client/v4/accounts/{a}/muster/backup"), some("account:read"));
        assert_eq!(of(Method::POST, "/client/v4/accounts/{a}/muster/access_test"), some("access:read"));
        let host = "/client/v4/accounts/{a}/muster/hosts/{id}";
        assert_eq!(of(Method::POST, &format!("{host}/test")), some("certificates:read"));
        assert_eq!(of(Method::PUT, host), some("certificates:write"));
    }
}
