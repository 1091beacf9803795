//! Reason codes of MQTT 5 (§2.4) and what they become in MQTT 3.1.1.

use core::fmt;

/// A reason code of MQTT 5.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u8);

// A table of protocol numbers.
macro_rules! codes {
    ($($name:ident = $number:literal, $label:literal;)*) => {
        impl Code {
            $(#[doc = $label] pub const $name: Self = Self($number);)*

            /// The code in words, snake case: the label of logs and metrics.
            pub const fn label(self) -> &'static str {
                match self.0 { $($number => $label,)* _ => "other" }
            }
        }
    };
}

codes! {
    SUCCESS = 0x00, "success";
    DISCONNECT_WITH_WILL = 0x04, "disconnect_with_will";
    NO_MATCHING_SUBSCRIBERS = 0x10, "no_matching_subscribers";
    NO_SUBSCRIPTION_EXISTED = 0x11, "no_subscription_existed";
    UNSPECIFIED = 0x80, "unspecified";
    MALFORMED_PACKET = 0x81, "malformed_packet";
    PROTOCOL_ERROR = 0x82, "protocol_error";
    IMPLEMENTATION_SPECIFIC = 0x83, "implementation_specific";
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "unsupported_protocol_version";
    CLIENT_ID_NOT_VALID = 0x85, "client_id_not_valid";
    BAD_USERNAME_OR_PASSWORD = 0x86, "bad_username_or_password";
    NOT_AUTHORIZED = 0x87, "not_authorized";
    SERVER_UNAVAILABLE = 0x88, "server_unavailable";
    SERVER_BUSY = 0x89, "server_busy";
    SERVER_SHUTTING_DOWN = 0x8b, "server_shutting_down";
    BAD_AUTHENTICATION_METHOD = 0x8c, "bad_authentication_method";
    KEEP_ALIVE_TIMEOUT = 0x8d, "keep_alive_timeout";
    SESSION_TAKEN_OVER = 0x8e, "session_taken_over";
    TOPIC_FILTER_INVALID = 0x8f, "topic_filter_invalid";
    TOPIC_NAME_INVALID = 0x90, "topic_name_invalid";
    PACKET_ID_IN_USE = 0x91, "packet_id_in_use";
    PACKET_ID_NOT_FOUND = 0x92, "packet_id_not_found";
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive_maximum_exceeded";
    TOPIC_ALIAS_INVALID = 0x94, "topic_alias_invalid";
    PACKET_TOO_LARGE = 0x95, "packet_too_large";
    MESSAGE_RATE_TOO_HIGH = 0x96, "message_rate_too_high";
    QUOTA_EXCEEDED = 0x97, "quota_exceeded";
    ADMINISTRATIVE_ACTION = 0x98, "administrative_action";
    PAYLOAD_FORMAT_INVALID = 0x99, "payload_format_invalid";
    RETAIN_NOT_SUPPORTED = 0x9a, "retain_not_supported";
    QOS_NOT_SUPPORTED = 0x9b, "qos_not_supported";
    SHARED_NOT_SUPPORTED = 0x9e, "shared_not_supported";
}

impl Code {
    /// Whether the code is one of failure.
    pub const fn is_failure(self) -> bool {
        self.0 >= 0x80
    }

    /// The return code of a 3.1.1 CONNACK (MQTT 3.1.1 §3.2.2.3) that says the same.
    pub const fn as_connect_return_code(self) -> u8 {
        match self {
            Self::SUCCESS => 0,
            Self::UNSUPPORTED_PROTOCOL_VERSION => 1,
            Self::CLIENT_ID_NOT_VALID => 2,
            Self::BAD_USERNAME_OR_PASSWORD => 4,
            // A will that is never taken; 3 would have the client try again.
            Self::NOT_AUTHORIZED
            | Self::PACKET_TOO_LARGE
            | Self::QOS_NOT_SUPPORTED
            | Self::RETAIN_NOT_SUPPORTED => 5,
            _ => 3,
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.label())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The peer broke a rule of the protocol: the connection ends with this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {what}")]
pub(crate) struct Broken {
    /// What a DISCONNECT or CONNACK says.
    pub(crate) code: Code,
    /// What was wrong.
    pub(crate) what: &'static str,
}

impl Broken {
    pub(crate) const fn new(code: Code, what: &'static str) -> Self {
        Self { code, what }
    }

    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::new(Code::MALFORMED_PACKET, what)
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, what)
    }
}
