//! The fields of a request that rules are written about, from the request and from the headers that
//! speak of its holder.
//!
//! The certificate's fields are what origins are told in `cf-cert-*`, so that a rule and an origin never
//! see two truths. What a client wrote under those names is not looked at.

use std::net::IpAddr;

use http::header::{HeaderMap, USER_AGENT};
use http::{Request, Uri};
use muster_policy::expression::{Field, Kind, Value};

/// A request as rules see it.
pub(crate) struct Facts<'a> {
    host: &'a str,
    method: &'a str,
    uri: &'a Uri,
    user_agent: &'a str,
    identity: &'a HeaderMap,
    source: IpAddr,
}

impl<'a> Facts<'a> {
    /// Takes what rules may ask; `identity` are the headers that speak of the holder.
    pub(crate) fn of<B>(
        request: &'a Request<B>,
        host: &'a str,
        identity: &'a HeaderMap,
        source: IpAddr,
    ) -> Self {
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            host,
            method: request.method().as_str(),
            uri: request.uri(),
            user_agent: user_agent.unwrap_or_default(),
            identity,
            source: source.to_canonical(),
        }
    }

    /// The value of a field.
    pub(crate) fn value(&self, field: Field) -> Value<'a> {
        match field {
            Field::Host => Value::Text(self.host.into()),
            Field::Method => Value::Text(self.method.into()),
            Field::Uri => Value::Text(self.uri.path_and_query().map_or("/", |uri| uri.as_str()).into()),
            Field::UriPath => Value::Text(self.uri.path().into()),
            Field::UriQuery => Value::Text(self.uri.query().unwrap_or_default().into()),
            Field::UserAgent => Value::Text(self.user_agent.into()),
            Field::Source => Value::Ip(self.source),
            Field::Ssl => Value::Bool(true),
            Field::CertRfc9440 => Value::Text(self.said("client-cert").into()),
            Field::CertChainRfc9440 => Value::Text(self.said("client-cert-chain").into()),
            Field::CertRfc9440TooLarge => {
                Value::Bool(self.is_verified() && self.said("client-cert").is_empty())
            }
            // A chain that is not there and one that is too large are told alike by its header.
            Field::CertChainRfc9440TooLarge => Value::Bool(false),
            other => self.of_certificate(other),
        }
    }

    /// `cf.tls_client_auth.cert_serial` is `cf-cert-serial`.
    fn of_certificate(&self, field: Field) -> Value<'a> {
        let name = field.name().strip_prefix("cf.tls_client_auth.").unwrap_or_default().replace('_', "-");
        let said = self.said(&format!("cf-{name}"));
        if field.kind() == Kind::Bool { Value::Bool(said == "true") } else { Value::Text(said.into()) }
    }

    fn is_verified(&self) -> bool {
        self.said("cf-cert-verified") == "true"
    }

    fn said(&self, name: &str) -> &'a str {
        self.identity.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::http::headers;

    #[test]
    fn every_field_has_a_value_of_its_kind_and_the_clients_word_counts_for_nothing() {
        let request = Request::builder()
            .uri("/a?b=c")
            .header("cf-cert-verified", "true")
            .header("user-agent", "curl")
            .body(())
            .expect("a request");
        let identity = headers::anonymous();
        let source = "::ffff:192.0.2.7".parse().expect("an address");
        let facts = Facts::of(&request, "a.example.com", &identity, source);
        for field in Field::ALL {
            let kind = match facts.value(*field) {
                Value::Bool(_) => Kind::Bool,
                Value::Ip(_) => Kind::Ip,
                Value::Number(_) => Kind::Number,
                Value::Text(_) => Kind::Text,
            };
            assert_eq!(kind, field.kind(), "{}", field.name());
        }
        assert_eq!(facts.value(Field::CertVerified), Value::Bool(false));
        assert_eq!(facts.value(Field::Uri), Value::Text("/a?b=c".into()));
        assert_eq!(facts.value(Field::Source), Value::Ip("192.0.2.7".parse().expect("an address")));
        let mut identity = HeaderMap::new();
        identity.insert("cf-cert-issuer-ski", HeaderValue::from_static("AB"));
        let facts = Facts::of(&request, "a.example.com", &identity, source);
        assert_eq!(facts.value(Field::CertIssuerSki), Value::Text("AB".into()));
    }
}
