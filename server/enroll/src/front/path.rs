//! EST paths: `/.well-known/est[/LABEL]/OPERATION` (RFC 7030 §3.2.2).
//!
//! Matching is by exact bytes: no decoding, no case folding, no trailing slash. What does not
//! match exactly does not exist.

use http::Method;
use muster_policy::name::Label;

const PREFIX: &str = "/.well-known/est/";

/// An EST operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    CaCerts,
    CsrAttrs,
    SimpleEnroll,
    SimpleReenroll,
    ServerKeygen,
    FullCmc,
}

/// A path that names an operation, and the profile it is asked of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EstPath {
    pub(crate) label: Option<Label>,
    pub(crate) operation: Operation,
}

impl Operation {
    pub(crate) const ALL: [Self; 6] = [
        Self::CaCerts,
        Self::CsrAttrs,
        Self::SimpleEnroll,
        Self::SimpleReenroll,
        Self::ServerKeygen,
        Self::FullCmc,
    ];

    /// The path segment, and the label of metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CaCerts => "cacerts",
            Self::CsrAttrs => "csrattrs",
            Self::SimpleEnroll => "simpleenroll",
            Self::SimpleReenroll => "simplereenroll",
            Self::ServerKeygen => "serverkeygen",
            Self::FullCmc => "fullcmc",
        }
    }

    fn from_segment(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == segment)
    }

    /// The value of the Allow header.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::CaCerts | Self::CsrAttrs => "GET, HEAD",
            Self::SimpleEnroll | Self::SimpleReenroll | Self::ServerKeygen | Self::FullCmc => "POST",
        }
    }

    pub(crate) fn allows(self, method: &Method) -> bool {
        match self {
            Self::CaCerts | Self::CsrAttrs => matches!(*method, Method::GET | Method::HEAD),
            Self::SimpleEnroll | Self::SimpleReenroll | Self::ServerKeygen | Self::FullCmc => {
                *method == Method::POST
            }
        }
    }
}

impl EstPath {
    /// Reads a request path; `None` where nothing lives.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        match rest.split_once('/') {
            None => Some(Self { label: None, operation: Operation::from_segment(rest)? }),
            Some((label, operation)) => Some(Self {
                label: Some(label.parse().ok()?),
                operation: Operation::from_segment(operation)?,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_operations_with_and_without_a_label() {
        for operation in Operation::ALL {
            let plain = format!("{PREFIX}{}", operation.as_str());
            assert_eq!(EstPath::parse(&plain), Some(EstPath { label: None, operation }));
            let labelled = EstPath::parse(&format!("{PREFIX}meters/{}", operation.as_str())).expect("a path");
            assert_eq!(labelled.label.as_ref().map(Label::as_str), Some("meters"));
        }
    }

    #[test]
    fn what_does_not_match_exactly_does_not_exist() {
        for path in [
            "/",
            "/.well-known/est",
            "/.well-known/est/",
            "/.well-known/est/CACERTS",
            "/.well-known/est/cacerts/",
            "/.well-known/est//cacerts",
            "/.well-known/est/cacerts/simpleenroll",
            "/.well-known/est/a/b/cacerts",
            "/.well-known/est/%63acerts",
            "/x/.well-known/est/cacerts",
        ] {
            assert_eq!(EstPath::parse(path), None, "{path}");
        }
    }
}
