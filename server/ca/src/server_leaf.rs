//! A server's certificate from the services CA: for the EST, admin and edge listeners of the account.
//!
//! Names are DNS names and addresses; the common name, which nobody should read any more (RFC 9525
//! §2), is the first name that fits.

use core::net::IpAddr;

use muster_policy::enrol::San;
use muster_policy::host::HostPattern;
use muster_policy::identity::Serial;
use muster_policy::time::UnixTime;

use crate::issuer::Issuer;
use crate::leaf::{LeafContents, PrepareError, Prepared};
use crate::lint::Role;
use crate::subject_key::SubjectKey;

/// ub-common-name (RFC 5280 appendix A.1).
const COMMON_NAME_MAX_BYTES: usize = 64;

/// What a server certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames {
    /// The DNS names, exact or with one wildcard label (RFC 9525 §6.3); at least one of these or of `addresses`.
    pub hostnames: Vec<HostPattern>,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}

impl Issuer {
    /// Builds and lints a server's certificate. Nothing is signed yet.
    ///
    /// # Errors
    /// When there is no name, the issuer may not issue for servers, or another rule is broken.
    pub fn prepare_server(
        &self,
        names: &ServerNames,
        not_before: UnixTime,
        not_after: UnixTime,
        key: &SubjectKey,
        serial: Serial,
    ) -> Result<Prepared, PrepareError> {
        let dns = names.hostnames.iter().map(|name| San::Dns(name.to_string()));
        let ip = names.addresses.iter().map(|address| San::Ip(address.to_string()));
        let sans: Vec<San> = dns.chain(ip).collect();
        let contents = LeafContents {
            common_name: sans.iter().map(San::text).find(|name| name.len() <= COMMON_NAME_MAX_BYTES),
            sans: &sans,
            not_before,
            not_after,
            crl_url: None,
            role: Role::Server,
        };
        self.prepare_leaf(&contents, key, serial)
    }
}
