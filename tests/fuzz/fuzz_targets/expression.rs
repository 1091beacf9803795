//! Rules of a zone: read or refused with a place inside the text, and one that was read can be asked of any request.
#![no_main]

use muster_policy::expression::{Expression, Field, Kind, Value};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // The text of the rule, and after a line end what every text of the request is.
    let text = String::from_utf8_lossy(data);
    let (rule, said) = text.split_once('\n').unwrap_or((&text, ""));
    match rule.parse::<Expression>() {
        Ok(expression) => {
            let value = |field: Field| match field.kind() {
                Kind::Bool => Value::Bool(said.is_empty()),
                Kind::Ip => Value::Ip([192, 0, 2, 7].into()),
                Kind::Number => Value::Number(7),
                Kind::Text => Value::Text(said.into()),
            };
            assert_eq!(expression.matches(&value), expression.matches(&value));
        }
        Err(error) => assert!(error.position <= rule.len(), "{error}"),
    }
});
