use super::*;

fn value_of(field: Field) -> Value<'static> {
    match field {
        Field::Host => Value::Text("A.example.com".into()),
        Field::UriPath => Value::Text("/admin/x".into()),
        Field::Method => Value::Text("GET".into()),
        Field::CertVerified | Field::Ssl => Value::Bool(true),
        Field::CertSerial => Value::Text("0A".into()),
        Field::MqttQos => Value::Number(1),
        Field::Source => Value::Ip("192.0.2.7".parse().expect("an address")),
        other if other.kind() == Kind::Bool => Value::Bool(false),
        _ => Value::Text("".into()),
    }
}

fn holds(text: &str) -> bool {
    let expression: Expression = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    expression.matches(&value_of)
}

#[test]
fn what_is_written_is_what_holds() {
    for (text, expected) in [
        ("cf.tls_client_auth.cert_verified", true),
        ("not cf.tls_client_auth.cert_verified", false),
        ("!cf.tls_client_auth.cert_revoked", true),
        ("cf.tls_client_auth.cert_revoked eq false", true),
        ("ssl != true", false),
        ("true", true),
        ("(false)", false),
        ("not false and ssl", true),
        (r#"http.host eq "A.example.com""#, true),
        (r#"http.host == "a.example.com""#, false),
        (r#"lower(http.host) eq "a.example.com""#, true),
        (r#"http.host in {"b" "A.example.com"}"#, true),
        (r#"http.request.uri.path contains "min""#, true),
        (r#"starts_with(http.request.uri.path, "/admin")"#, true),
        (r#"ends_with(http.request.uri.path, "/admin")"#, false),
        (r#"http.request.uri.path wildcard "/ADMIN/*""#, true),
        (r#"http.request.uri.path strict wildcard "/ADMIN/*""#, false),
        (r#"http.request.uri.path wildcard "*m*n*x""#, true),
        (r#"http.request.uri.path wildcard "*n*m*""#, false),
        ("ip.src eq 192.0.2.7", true),
        ("ip.src in {10.0.0.0/8 192.0.2.0/24}", true),
        ("ip.src ne 192.0.2.7", false),
        ("ip.src in {2001:db8::/32}", false),
        (r#"http.request.method lt "H""#, true),
        (r#"http.request.uri.path matches "^/admin/\\w$""#, true),
        (r##"http.request.uri.path matches r"^/admin/\w$""##, true),
        (r###"http.request.uri.path ~ r#"^"/"#"###, false),
        (r#"lower(http.host) ~ "^a\\.""#, true),
        (r#"mqtt.topic eq "" and mqtt.qos eq 1 and not mqtt.retain"#, true),
        ("mqtt.qos in {1..2}", true),
        ("mqtt.qos in {0 2}", false),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn not_binds_before_and_and_that_before_xor_and_or() {
    assert!(holds("ssl or ssl and not ssl"));
    assert!(!holds("(ssl or ssl) and not ssl"));
    assert!(holds("ssl xor ssl and not ssl"));
    assert!(holds("not ssl || ssl && ssl"));
    assert!(holds("ssl ^^ not ssl"));
}

#[test]
fn what_can_t_be_meant_is_refused_with_its_position() {
    for (text, position) in [
        ("", 0),
        ("ssl and", 7),
        ("ssl ssl", 4),
        ("cf.unknown", 0),
        (r#"http.host eq 5"#, 13),
        (r#"http.host"#, 9),
        (r#"http.host eq "a"#, 13),
        (r#"http.host eq "a\n""#, 15),
        ("(ssl", 4),
        ("ip.src eq 192.0.2.300", 10),
        ("ip.src in {}", 12),
        ("ssl lt true", 11),
        (r#"starts_with(ssl, "a")"#, 15),
        ("ssl ; ssl", 4),
        ("mqtt.topic", 10),
        (r#"http.host matches "(""#, 18),
        (r#"http.host matches "\\w{9}{9}{9}""#, 18),
        (r#"http.host matches 5"#, 18),
        (r#"http.host eq r"a"#, 13),
        (r##"http.host eq r#"a""##, 13),
    ] {
        let error = text.parse::<Expression>().expect_err(text);
        assert_eq!(error.position, position, "{text}: {error}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    assert!("ssl ".repeat(2_000).parse::<Expression>().is_err());
    let nested = |depth: usize| format!("{}ssl{}", "(".repeat(depth), ")".repeat(depth));
    assert!(nested(DEPTH_MAX - 1).parse::<Expression>().is_ok());
    assert!(nested(DEPTH_MAX).parse::<Expression>().is_err());
    assert!(format!("{}ssl", "!".repeat(4_000)).parse::<Expression>().is_err());
}

#[test]
fn regular_expressions_are_few_and_small() {
    let many = |count| vec![r#"http.host ~ "a""#; count].join(" or ");
    assert!(many(PATTERNS_MAX).parse::<Expression>().is_ok());
    let error = many(PATTERNS_MAX + 1).parse::<Expression>().expect_err("one too many");
    assert!(error.message.contains("at most 8"), "{error}");
    // Neither a pattern that could be large nor one that other engines go back and forth in takes time.
    let text = format!(r#"http.request.uri.path matches "^(a|a)*{}$""#, "(.*)*".repeat(20));
    let expression: Expression = text.parse().expect("an expression");
    let long = "a".repeat(20_000);
    assert!(expression.matches(&|_| Value::Text(long.as_str().into())));
}

#[test]
fn no_text_makes_the_reader_panic() {
    let alphabet = [
        "ssl",
        "~",
        "r\"",
        "[",
        "http.host",
        " ",
        "(",
        ")",
        "\"",
        "\\",
        "and",
        "ip.src",
        "in",
        "{",
        "}",
        "é",
        "eq",
        "1",
        ",",
        "!",
        "true",
    ];
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = usize::try_from(state >> 40).expect("24 bits") % alphabet.len();
            text.push_str(alphabet[index]);
        }
        if let Ok(expression) = text.parse::<Expression>() {
            expression.matches(&value_of);
        }
    }
}
