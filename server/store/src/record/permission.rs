//! What an admin token may do, area by area: words like `zone:read` and `access:write`.
//!
//! The words are short for programs; the names that people see in a refusal are those that the API
//! we follow gives its permissions.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Access applications, policies and groups.
    Access,
    /// Access certificates and their settings.
    AccessCertificates,
    /// The account, its audit and its state.
    Account,
    /// Live connections; who may only close them changes nothing of the fleet.
    Connections,
    /// Devices, enrollment tokens, profiles and approvals.
    Fleet,
    /// Rules that requests are judged by, and what origins are told.
    Rules,
    /// CAs, certificates, hostnames and what they demand.
    Certificates,
    /// Zones.
    Zone,
}

impl Area {
    const ALL: [Self; 8] = [
        Self::Access,
        Self::AccessCertificates,
        Self::Account,
        Self::Connections,
        Self::Fleet,
        Self::Rules,
        Self::Certificates,
        Self::Zone,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::AccessCertificates => "access-certificates",
            Self::Account => "account",
            Self::Connections => "connections",
            Self::Fleet => "fleet",
            Self::Rules => "rules",
            Self::Certificates => "certificates",
            Self::Zone => "zone",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Access => "Access: Apps and Policies",
            Self::AccessCertificates => "Access: Mutual TLS Certificates",
            Self::Account => "Account Settings",
            Self::Connections => "Connections",
            Self::Fleet => "Fleet",
            Self::Rules => "Zone WAF",
            Self::Certificates => "SSL and Certificates",
            Self::Zone => "Zone",
        }
    }
}

/// Whether something is only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is looked at.
    Read,
    /// It is changed; who may change may look.
    Write,
}

/// Leave to do one kind of thing in one area. As text `AREA:read` or `AREA:write`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permission {
    /// Where.
    pub area: Area,
    /// What.
    pub level: Level,
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Permission {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        let words = Area::ALL.iter().map(|area| area.word()).collect::<Vec<_>>().join("|");
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Leave to do one kind of thing in one area"))
            .pattern(Some(format!("^({words}):(read|write)$")))
            .into()
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Permission {}

impl Permission {
    /// Whether who has this may do what asks for `other`.
    pub fn covers(self, other: Self) -> bool {
        self.area == other.area && self.level >= other.level
    }

    /// Its name for people.
    pub fn title(self) -> String {
        let level = match self.level {
            Level::Read => "Read",
            Level::Write => "Write",
        };
        format!("{} {level}", self.area.title())
    }
}

/// Text that is no permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a permission is AREA:read or AREA:write; the areas are access, access-certificates, account, \
     certificates, connections, fleet, rules, zone"
)]
pub struct PermissionError;

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(text: &str) -> Result<Self, PermissionError> {
        let (area, level) = text.split_once(':').ok_or(PermissionError)?;
        let area = Area::ALL.into_iter().find(|known| known.word() == area).ok_or(PermissionError)?;
        let level = match level {
            "read" => Level::Read,
            "write" => Level::Write,
            _ => return Err(PermissionError),
        };
        Ok(Self { area, level })
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Read => "read",
            Level::Write => "write",
        };
        write!(f, "{}:{level}", self.area.word())
    }
}

impl TryFrom<String> for Permission {
    type Error = PermissionError;

    fn try_from(text: String) -> Result<Self, PermissionError> {
        text.parse()
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for area in Area::ALL {
            for level in [Level::Read, Level::Write] {
                let permission = Permission { area, level };
                assert_eq!(permission.to_string().parse(), Ok(permission));
            }
        }
        for wrong in ["", "zone", "zone:", ":read", "zone:own", "Zone:read"] {
            assert_eq!(wrong.parse::<Permission>(), Err(PermissionError), "{wrong}");
        }
    }

    #[test]
    fn who_may_write_may_read_and_in_no_other_area() {
        let of = |text: &str| text.parse::<Permission>().expect("a permission");
        assert!(of("zone:write").covers(of("zone:read")));
        assert!(!of("zone:read").covers(of("zone:write")));
        assert!(!of("zone:write").covers(of("access:read")));
    }
}
