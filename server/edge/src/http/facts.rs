//! The fields of a request that rules are written about, from the request and from the headers that
//! speak of its holder.
//!
//! The certificate's fields are what origins are told in `cf-cert-*`, so that a rule and an origin never
//! see two truths. What a client wrote under those names is not looked at.

use http::header::HeaderMap;
use muster_policy::expression::{Field, Kind, Value};
use muster_policy::gate::normal_path;

use super::requests::Asked;

/// A request as rules see it.
pub(crate) struct Facts<'a> {
    asked: &'a Asked,
    identity: &'a HeaderMap,
}

impl<'a> Facts<'a> {
    /// Takes what rules may ask; `identity` are the headers that speak of the holder.
    pub(crate) const fn of(asked: &'a Asked, identity: &'a HeaderMap) -> Self {
        Self { asked, identity }
    }

    /// The value of a field.
    pub(crate) fn value(&self, field: Field) -> Value<'a> {
        let asked = self.asked;
        match field {
            Field::Host => Value::Text((*asked.host).into()),
            Field::Method => Value::Text(asked.method.as_str().into()),
            // As Access sees it: a rule about a path would be passed by another spelling of it.
            Field::Uri => Value::Text(match &asked.query {
                Some(query) => format!("{}?{query}", normal_path(&asked.path)).into(),
                None => normal_path(&asked.path).into(),
            }),
            Field::UriPath => Value::Text(normal_path(&asked.path).into()),
            Field::UriQuery => Value::Text(asked.query.as_deref().unwrap_or_default().into()),
            Field::UserAgent => Value::Text((*asked.user_agent).into()),
            Field::Source => Value::Ip(asked.source),
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
    use std::sync::Arc;

    use http::{HeaderValue, Request};

    use super::*;
    use crate::http::headers;

    fn asked(uri: &str) -> Asked {
        let request = Request::builder()
            .uri(uri)
            .header("cf-cert-verified", "true")
            .header("user-agent", "curl")
            .body(())
            .expect("a request");
        let authority = "A.example.com".parse().expect("an authority");
        let source = "::ffff:192.0.2.7".parse().expect("an address");
        Asked::of(&request, &authority, source, None, Arc::default())
    }

    #[test]
    fn every_field_has_a_value_of_its_kind_and_the_clients_word_counts_for_nothing() {
        let (asked, identity) = (asked("/a?b=c"), headers::anonymous());
        let facts = Facts::of(&asked, &identity);
        for field in Field::ALL {
            let kind = match facts.value(*field) {
                Value::Bool(_) => Kind::Bool,
                Value::Ip(_) => Kind::Ip,
                Value::Number(_) => Kind::Number,
                Value::Text(_) => Kind::Text,
            };
            assert_eq!(kind, field.kind(), "{}", field.name());
        }
        assert_eq!(facts.value(Field::Host), Value::Text("a.example.com".into()));
        assert_eq!(facts.value(Field::CertVerified), Value::Bool(false));
        assert_eq!(facts.value(Field::UserAgent), Value::Text("curl".into()));
        assert_eq!(facts.value(Field::Uri), Value::Text("/a?b=c".into()));
        assert_eq!(facts.value(Field::Source), Value::Ip("192.0.2.7".parse().expect("an address")));
        let mut identity = HeaderMap::new();
        identity.insert("cf-cert-issuer-ski", HeaderValue::from_static("AB"));
        let facts = Facts::of(&asked, &identity);
        assert_eq!(facts.value(Field::CertIssuerSki), Value::Text("AB".into()));
    }

    #[test]
    fn a_path_is_the_same_to_rules_however_it_is_spelled() {
        let identity = headers::anonymous();
        for spelled in
            ["/admin", "/%61dmin", "/x/../admin", "//admin", "/admin;x", "/./admin", "/x/..%2Fadmin"]
        {
            let asked = asked(&format!("{spelled}?b=%61"));
            let facts = Facts::of(&asked, &identity);
            assert_eq!(facts.value(Field::UriPath), Value::Text("/admin".into()), "{spelled}");
            assert_eq!(facts.value(Field::Uri), Value::Text("/admin?b=%61".into()), "{spelled}");
        }
        for spelled in ["/admin/", "/admin//", "/admin/.", "/admin/x/..", "/admin/;x"] {
            let asked = asked(spelled);
            let path = Facts::of(&asked, &identity).value(Field::UriPath);
            assert_eq!(path, Value::Text("/admin/".into()), "{spelled}");
        }
    }
}
