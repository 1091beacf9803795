//! The fields of requests, by the names of the API we follow.

/// What kind of value a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// An address.
    Ip,
    /// A whole number.
    Number,
    /// Text; empty when there is none.
    Text,
}

// A table: variant, name, kind.
macro_rules! fields {
    ($($variant:ident, $name:literal, $kind:ident;)*) => {
        /// A field of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Field {
            /// Every field there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in expressions.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What kind of value it has.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

fields! {
    CertPresented, "cf.tls_client_auth.cert_presented", Bool;
    CertVerified, "cf.tls_client_auth.cert_verified", Bool;
    CertRevoked, "cf.tls_client_auth.cert_revoked", Bool;
    CertIssuerDn, "cf.tls_client_auth.cert_issuer_dn", Text;
    CertSubjectDn, "cf.tls_client_auth.cert_subject_dn", Text;
    CertIssuerDnRfc2253, "cf.tls_client_auth.cert_issuer_dn_rfc2253", Text;
    CertSubjectDnRfc2253, "cf.tls_client_auth.cert_subject_dn_rfc2253", Text;
    CertIssuerDnLegacy, "cf.tls_client_auth.cert_issuer_dn_legacy", Text;
    CertSubjectDnLegacy, "cf.tls_client_auth.cert_subject_dn_legacy", Text;
    CertSerial, "cf.tls_client_auth.cert_serial", Text;
    CertIssuerSerial, "cf.tls_client_auth.cert_issuer_serial", Text;
    CertFingerprintSha256, "cf.tls_client_auth.cert_fingerprint_sha256", Text;
    CertFingerprintSha1, "cf.tls_client_auth.cert_fingerprint_sha1", Text;
    CertNotBefore, "cf.tls_client_auth.cert_not_before", Text;
    CertNotAfter, "cf.tls_client_auth.cert_not_after", Text;
    CertSki, "cf.tls_client_auth.cert_ski", Text;
    CertIssuerSki, "cf.tls_client_auth.cert_issuer_ski", Text;
    CertRfc9440, "cf.tls_client_auth.cert_rfc9440", Text;
    CertRfc9440TooLarge, "cf.tls_client_auth.cert_rfc9440_too_large", Bool;
    CertChainRfc9440, "cf.tls_client_auth.cert_chain_rfc9440", Text;
    CertChainRfc9440TooLarge, "cf.tls_client_auth.cert_chain_rfc9440_too_large", Bool;
    Host, "http.host", Text;
    Method, "http.request.method", Text;
    Uri, "http.request.uri", Text;
    UriPath, "http.request.uri.path", Text;
    UriQuery, "http.request.uri.query", Text;
    UserAgent, "http.user_agent", Text;
    Source, "ip.src", Ip;
    MqttClientId, "mqtt.client_id", Text;
    MqttPacket, "mqtt.packet", Text;
    MqttQos, "mqtt.qos", Number;
    MqttRetain, "mqtt.retain", Bool;
    MqttTopic, "mqtt.topic", Text;
    MqttUsername, "mqtt.username", Text;
    MqttVersion, "mqtt.version", Text;
    Ssl, "ssl", Bool;
}

impl Field {
    /// Whether each packet of an MQTT connection has a value of its own.
    pub const fn is_of_packet(self) -> bool {
        matches!(self, Self::MqttPacket | Self::MqttQos | Self::MqttRetain | Self::MqttTopic)
    }

    /// Whether its value is, or begins with, the path of a request.
    pub const fn is_of_path(self) -> bool {
        matches!(self, Self::Uri | Self::UriPath)
    }
}
