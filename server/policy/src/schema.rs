//! How the types that are text in JSON are described (OpenAPI 3.1, JSON Schema 2020-12).

use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::host::HostPattern;
use crate::identity::{
    AccountId, CaId, CertificateId, Fingerprint, KeyFingerprint, RequestKey, Serial, TokenId, WebhookId,
    ZoneId,
};
use crate::name::{DeviceId, EdgeName, Hostname, Label, Title};
use crate::network::Network;
use crate::time::UnixTime;

/// The schema of a text of this form, with a format that has a name or with a pattern.
fn text(description: &str, format: Option<&str>, pattern: Option<&str>) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .format(format.map(|format| SchemaFormat::Custom(format.to_owned())))
        .pattern(pattern)
        .into()
}

// A table of alike implementations: type, what it is, format, pattern.
macro_rules! texts {
    ($($name:ident, $description:literal, $format:expr, $pattern:expr;)*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                text($description, $format, $pattern)
            }
        }

        impl ToSchema for $name {}
    )*};
}

texts! {
    AccountId, "An account", None, Some("^[0-9a-f]{32}$");
    CaId, "A CA, or another object that sorts by age", Some("uuid"), None;
    CertificateId, "An issued certificate", Some("uuid"), None;
    DeviceId, "A device", None, Some("^[A-Za-z0-9._-]{1,64}$");
    Fingerprint, "SHA-256 of a certificate", None, Some("^[0-9a-f]{64}$");
    HostPattern, "A hostname, or one wildcard label before one", None, None;
    EdgeName, "What an edge is called", None, Some("^[a-z0-9_-]{1,32}$");
    Hostname, "A hostname in lower case", None, None;
    KeyFingerprint, "SHA-256 of a SubjectPublicKeyInfo", None, Some("^[0-9a-f]{64}$");
    Label, "A short name", None, None;
    Network, "An address, or a network as ADDRESS/BITS", None, None;
    RequestKey, "A request for a certificate", None, Some("^[0-9a-f]{64}$");
    Serial, "A serial number, hex", None, Some("^[0-9a-f]+$");
    Title, "What people call it", None, None;
    TokenId, "A token", Some("uuid"), None;
    UnixTime, "A time, RFC 3339", Some("date-time"), None;
    WebhookId, "A webhook", Some("uuid"), None;
    ZoneId, "A zone", None, Some("^[0-9a-f]{32}$");
}
