//! The fields of a request that rules are written about, from the request and from the headers that
//! speak of its holder.
//!
//! The certificate's fields are what origins are told in `cf-cert-*`, so that a rule and an origin never
//! see two truths. What a client wrote under those names is not looked at.

use std::borrow::Cow;

use http::header::HeaderMap;
use muster_policy::expression::{Field, Kind, Value};
use muster_policy::gate::normal_path;
use muster_policy::mqtt;

use super::headers;
use super::requests::{Asked, Head};

/// A request as rules see it.
pub(crate) struct Facts<'a> {
    asked: &'a Asked,
    identity: &'a HeaderMap,
    packet: Option<&'a mqtt::Asked<'a>>,
}

impl<'a> Facts<'a> {
    /// Takes what rules may ask; `identity` are the headers that speak of the holder, `packet` is the one of
    /// MQTT that is judged.
    pub(crate) const fn of(
        asked: &'a Asked,
        identity: &'a HeaderMap,
        packet: Option<&'a mqtt::Asked<'a>>,
    ) -> Self {
        Self { asked, identity, packet }
    }

    /// The value of a field.
    pub(crate) fn value(&self, field: Field) -> Value<'a> {
        let asked = self.asked;
        match field {
            Field::Host => Value::Text((*asked.host).into()),
            Field::Method | Field::Uri | Field::UriPath | Field::UriQuery | Field::UserAgent => {
                Value::Text(asked.head.as_ref().map_or_else(Cow::default, |head| of_head(head, field)))
            }
            Field::MqttClientId => Value::Text(self.of_connect(|connect| &connect.client_id)),
            Field::MqttUsername => Value::Text(self.of_connect(|connect| &connect.username)),
            Field::MqttVersion => Value::Text(self.of_connect(|connect| connect.version.name())),
            Field::MqttPacket => Value::Text(self.packet.map_or("", mqtt::Asked::packet).into()),
            Field::MqttTopic => Value::Text(self.message().map_or("", |message| message.topic).into()),
            Field::MqttQos => Value::Number(self.message().map_or(0, |message| message.qos.into())),
            Field::MqttRetain => Value::Bool(self.message().is_some_and(|message| message.retain)),
            Field::Source => Value::Ip(asked.source),
            Field::Ssl => Value::Bool(true),
            Field::CertRfc9440 => Value::Text(self.said("client-cert").into()),
            Field::CertChainRfc9440 => Value::Text(self.said("client-cert-chain").into()),
            Field::CertRfc9440TooLarge => {
                Value::Bool(self.is_verified() && self.said("client-cert").is_empty())
            }
            Field::CertChainRfc9440TooLarge => Value::Bool(!self.said(headers::PATH_TOO_LARGE).is_empty()),
            other => self.of_certificate(other),
        }
    }

    fn of_connect(&self, part: impl FnOnce(&'a mqtt::Connect) -> &'a str) -> Cow<'a, str> {
        self.asked.connect.get().map_or("", |connect| part(connect)).into()
    }

    fn message(&self) -> Option<mqtt::Message<'a>> {
        self.packet.map(mqtt::Asked::message)
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

fn of_head(head: &Head, field: Field) -> Cow<'_, str> {
    match field {
        Field::Method => head.method.as_str().into(),
        // As Access sees it: a rule about a path would be passed by another spelling of it.
        Field::Uri => match &head.query {
            Some(query) => format!("{}?{query}", normal_path(&head.path)).into(),
            None => normal_path(&head.path).into(),
        },
        Field::UriPath => normal_path(&head.path).into(),
        Field::UriQuery => head.query.as_deref().unwrap_or_default().into(),
        _ => (*head.user_agent).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderValue, Request};

    use super::*;

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
        let facts = Facts::of(&asked, &identity, None);
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
        let facts = Facts::of(&asked, &identity, None);
        assert_eq!(facts.value(Field::CertIssuerSki), Value::Text("AB".into()));
    }

    #[test]
    fn a_path_is_the_same_to_rules_however_it_is_spelled() {
        let identity = headers::anonymous();
        for spelled in
            ["/admin", "/%61dmin", "/x/../admin", "//admin", "/admin;x", "/./admin", "/x/..%2Fadmin"]
        {
            let asked = asked(&format!("{spelled}?b=%61"));
            let facts = Facts::of(&asked, &identity, None);
            assert_eq!(facts.value(Field::UriPath), Value::Text("/admin".into()), "{spelled}");
            assert_eq!(facts.value(Field::Uri), Value::Text("/admin?b=%61".into()), "{spelled}");
        }
        for spelled in ["/admin/", "/admin//", "/admin/.", "/admin/x/..", "/admin/;x"] {
            let asked = asked(spelled);
            let path = Facts::of(&asked, &identity, None).value(Field::UriPath);
            assert_eq!(path, Value::Text("/admin/".into()), "{spelled}");
        }
    }

    #[test]
    fn mqtt_has_the_name_that_it_came_by_and_nothing_of_a_request() {
        let name = "mqtt.example.com".parse().expect("a name");
        let asked = Asked::of_mqtt(&name, "192.0.2.7".parse().expect("an address"), None);
        let connect = mqtt::Connect {
            client_id: "meter-1".into(),
            username: "".into(),
            version: mqtt::Version::V311,
            will: None,
        };
        asked.connect.set(Box::new(connect)).expect("once");
        let message = mqtt::Message { topic: "a/b", qos: 2, retain: true };
        let (identity, packet) = (headers::anonymous(), mqtt::Asked::Publish(message));
        let facts = Facts::of(&asked, &identity, Some(&packet));
        for (field, text) in [
            (Field::Host, "mqtt.example.com"),
            (Field::Method, ""),
            (Field::UriPath, ""),
            (Field::MqttClientId, "meter-1"),
            (Field::MqttVersion, "3.1.1"),
            (Field::MqttPacket, "publish"),
            (Field::MqttTopic, "a/b"),
        ] {
            assert_eq!(facts.value(field), Value::Text(text.into()), "{}", field.name());
        }
        assert_eq!(facts.value(Field::MqttQos), Value::Number(2));
        assert_eq!(facts.value(Field::MqttRetain), Value::Bool(true));
    }
}
