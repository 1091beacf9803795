//! Why something was refused.
//!
//! One value feeds the answer, the log line, the metric label and the audit entry, so the four can
//! never tell different stories. Codes are a contract: scripts match on them. A variant is never
//! renamed, only added.

use core::fmt;

use serde::{Deserialize, Serialize};

/// What kind of fault a refusal is; fronts turn it into a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller did not prove who it is.
    Authentication,
    /// The caller is known and may not have this.
    Forbidden,
    /// The request breaks a rule of form.
    Malformed,
    /// The request is bigger than this server reads.
    TooLarge,
    /// The request's media type is another one.
    MediaType,
    /// What was asked for does not exist here.
    NotFound,
    /// What was asked for is not offered.
    NotOffered,
    /// The caller asks too often.
    TooOften,
    /// The server can't do it now.
    Unavailable,
    /// The request came over a connection that was made for another hostname.
    Misdirected,
    /// The server behind this one did not do its part.
    Origin,
}

// A table: variant, stable code, fault, sentence.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident, $code:literal, $fault:ident, $sentence:literal;)*) => {
        /// The reason of a refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* #[doc = $sentence] #[serde(rename = $code)] $variant,)*
        }

        impl Reason {
            /// Every reason there is, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code: snake case, used in answers, logs, metrics and audit.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What kind of fault this is.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)* }
            }

            /// One sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    // Who is it.
    CredentialsMissing, "credentials_missing", Authentication,
        "The request carries no credential that this profile accepts.";
    CredentialsWrong, "credentials_wrong", Authentication,
        "The token does not belong to this device id.";
    TokenExpired, "token_expired", Authentication, "The token has expired.";
    TokenRevoked, "token_revoked", Authentication, "The token was revoked.";
    TokenUsed, "token_used", Authentication, "The token has no uses left.";
    TokenKeyMismatch, "token_key_mismatch", Forbidden, "The token is bound to another key.";
    CertificateMissing, "certificate_missing", Authentication,
        "Renewal needs the TLS client certificate that is being renewed.";
    CertificateUntrusted, "certificate_untrusted", Authentication,
        "The TLS client certificate does not chain to a CA that may authenticate here.";
    CertificateUnfit, "certificate_unfit", Authentication,
        "The TLS client certificate is not meant for client authentication.";
    CertificateUnknown, "certificate_unknown", Authentication,
        "The TLS client certificate was not issued by this server.";
    CertificateExpired, "certificate_expired", Forbidden, "The TLS client certificate has expired.";
    CertificateNotYetValid, "certificate_not_yet_valid", Forbidden,
        "The TLS client certificate is not valid yet.";
    CertificateRevoked, "certificate_revoked", Forbidden, "The TLS client certificate is revoked.";
    ManufacturerSerialUnlisted, "manufacturer_serial_unlisted", Forbidden,
        "No device lists the serial number of this manufacturer certificate.";
    // May it.
    DeviceSuspended, "device_suspended", Forbidden, "The device is suspended.";
    DeviceRetired, "device_retired", Forbidden, "The device is retired.";
    ProfileForbidden, "profile_forbidden", Forbidden, "The credential is bound to another profile.";
    ProfileUnknown, "profile_unknown", NotFound, "There is no profile with this name.";
    ApprovalDenied, "approval_denied", Forbidden, "An operator denied the request.";
    ApprovalQueueFull, "approval_queue_full", Unavailable, "Too many requests are waiting for approval.";
    // What does it ask for.
    NameMismatch, "name_mismatch", Forbidden, "The request names a different device than the credential.";
    NameMalformed, "name_malformed", Malformed, "A name in the request is malformed.";
    SubjectEmpty, "subject_empty", Malformed, "The request has no common name.";
    SubjectAmbiguous, "subject_ambiguous", Malformed, "The request has more than one common name.";
    SubjectChanged, "subject_changed", Forbidden,
        "The subject differs from that of the certificate being renewed.";
    SanChanged, "san_changed", Forbidden,
        "The subject alternative names differ from those of the certificate being renewed.";
    SanForbidden, "san_forbidden", Forbidden,
        "The request asks for a subject alternative name that this device does not have.";
    SanExcessive, "san_excessive", Malformed, "The request has too many subject alternative names.";
    SubjectChangeUnsupported, "subject_change_unsupported", Forbidden,
        "The attribute changeSubjectName is not supported.";
    KeyKindForbidden, "key_kind_forbidden", Malformed, "The profile does not allow this kind of key.";
    KeyWeak, "key_weak", Malformed, "The key is too weak or of an unknown kind.";
    SignatureWeak, "signature_weak", Malformed, "The request is signed with a weak or unknown algorithm.";
    SignatureWrong, "signature_wrong", Malformed,
        "The request is not signed by the key it carries.";
    BodyMalformed, "body_malformed", Malformed, "The body is not base64 of one PKCS#10 request.";
    CsrMalformed, "csr_malformed", Malformed, "The PKCS#10 request is malformed.";
    BodyTooLarge, "body_too_large", TooLarge, "The body is larger than this server accepts.";
    MediaTypeWrong, "media_type_wrong", MediaType, "The Content-Type is not application/pkcs10.";
    // Is it the same channel.
    ChannelBindingMissing, "channel_binding_missing", Malformed,
        "The profile requires a challengePassword with the tls-exporter value of this connection.";
    ChannelBindingMismatch, "channel_binding_mismatch", Malformed,
        "The challengePassword is not the tls-exporter value of this connection.";
    ChannelBindingUnavailable, "channel_binding_unavailable", Malformed,
        "The challengePassword can only be checked on TLS 1.3 (tls-exporter, RFC 9266).";
    // What is not offered.
    ServerKeygenOff, "server_keygen_off", NotOffered, "The profile does not allow keys generated by the server.";
    ServerKeygenEncryptionUnsupported, "server_keygen_encryption_unsupported", Malformed,
        "Encrypted delivery of a server-made key is not offered, and plain delivery was not asked for.";
    CmcUnsupported, "cmc_unsupported", NotOffered, "Full CMC is not offered.";
    // Not now.
    RateLimitedSource, "rate_limited_source", TooOften, "Too many requests from this address.";
    RateLimitedDevice, "rate_limited_device", TooOften, "Too many requests for this device.";
    RateLimitedAccount, "rate_limited_account", TooOften, "Too many requests for this account.";
    CredentialGuessing, "credential_guessing", TooOften,
        "Too many wrong credentials from this address.";
    Overloaded, "overloaded", Unavailable, "The server is overloaded.";
    BodyTimeout, "body_timeout", Malformed, "The body did not arrive in time.";
    CaUnavailable, "ca_unavailable", Unavailable, "No CA of the account can sign at the moment.";
    LedgerUnavailable, "ledger_unavailable", Unavailable, "The ledger can't store the answer at the moment.";
    // At the door of a hostname.
    HostUnknown, "host_unknown", NotFound, "This server does not serve that hostname.";
    HostMisdirected, "host_misdirected", Misdirected,
        "The request is for a different hostname than the connection.";
    ProtocolNotOffered, "protocol_not_offered", NotOffered, "The hostname does not serve this protocol.";
    RequestMalformed, "request_malformed", Malformed, "The request's host, framing or path is ambiguous.";
    MethodRefused, "method_refused", Malformed, "This method is not forwarded.";
    ClientCertificateRequired, "client_certificate_required", Forbidden,
        "The hostname requires a client certificate, and none was presented.";
    ChainExcessive, "chain_excessive", Forbidden,
        "The client certificates are too many or too large, or a key is too long.";
    CaNotAccepted, "ca_not_accepted", Forbidden,
        "The hostname does not accept client certificates of this CA.";
    IdentityAmbiguous, "identity_ambiguous", Forbidden,
        "The names in the client certificate contradict each other.";
    IdentityMalformed, "identity_malformed", Forbidden,
        "The client certificate can't be read, or names no device.";
    RevocationsStale, "revocations_stale", Unavailable,
        "Revocation data is too old to admit anyone.";
    CrlStale, "crl_stale", Unavailable,
        "The CRL of the certificate's CA has expired.";
    GroupsChanged, "groups_changed", Unavailable,
        "The device's groups have changed; it has to reconnect.";
    ServerStopping, "server_stopping", Unavailable, "The server is stopping.";
    ConnectionClosed, "connection_closed", Unavailable, "An operator closed the connection.";
    RuleBlocked, "rule_blocked", Forbidden, "A rule of the zone blocks the request.";
    AccessDenied, "access_denied", Forbidden,
        "No Access policy for this path admits the caller.";
    OriginMissing, "origin_missing", Origin, "The hostname has no origin.";
    OriginUnreachable, "origin_unreachable", Origin, "No origin of the hostname is reachable.";
    OriginUntrusted, "origin_untrusted", Origin, "The origin's TLS certificate is not trusted.";
    OriginFailed, "origin_failed", Origin, "The origin closed the connection before it answered.";
    OriginTimeout, "origin_timeout", Origin, "The origin did not answer in time.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refusal: the reason, and the field of the request it speaks of.
///
/// `field` is a JSON-pointer-like place such as `/csr/subject/CN`; `detail` is a bounded,
/// printable addition to the reason's sentence, never a secret and never an inside path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// Which part of the request is meant.
    pub field: &'static str,
    /// What was found there, printable and at most [`Refusal::DETAIL_MAX_CHARS`] long.
    pub detail: Option<String>,
}

impl Refusal {
    /// Longest `detail`; it may quote a peer's bytes, which go to logs and answers.
    pub const DETAIL_MAX_CHARS: usize = 160;

    /// A refusal without a quotation.
    pub const fn new(reason: Reason, field: &'static str) -> Self {
        Self { reason, field, detail: None }
    }

    /// Adds what was found; characters that are not printable ASCII become `?`, and the text is cut.
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        self.detail = Some(detail.to_string().chars().take(Self::DETAIL_MAX_CHARS).map(printable).collect());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{} at {}]", self.reason.sentence(), self.reason.code(), self.field)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert!(codes.iter().all(|code| code.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')));
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn details_are_printable_and_cut() {
        let refusal = Refusal::new(Reason::NameMalformed, "/csr").with_detail("a\r\nb\u{202e}".repeat(100));
        let detail = refusal.detail.expect("was given");
        assert_eq!(detail.chars().count(), Refusal::DETAIL_MAX_CHARS);
        assert!(detail.starts_with("a??b?a"));
    }
}
