//! `FIELD=VALUE` of `muster profile set`: values as in TOML, or bare words.

use serde_json::{Map, Value};

/// A field and what is to be in it, for clap.
pub(super) fn parse(field: &str) -> Result<(String, String), &'static str> {
    let (name, text) = field.split_once('=').ok_or("it must be FIELD=VALUE")?;
    Ok((name.trim().to_owned(), text.trim().to_owned()))
}

/// Sets fields in a profile as written; `field=` takes the default again.
pub(super) fn apply(written: &mut Map<String, Value>, fields: &[(String, String)]) -> anyhow::Result<()> {
    // The API shows fields that were not written as null.
    written.retain(|_, value| !value.is_null());
    for (name, text) in fields {
        match text.as_str() {
            "" => written.remove(name),
            text => written.insert(name.clone(), value(name, text)?),
        };
    }
    Ok(())
}

fn value(name: &str, text: &str) -> anyhow::Result<Value> {
    let line: Result<toml::Table, _> = toml::from_str(&format!("value = {text}"));
    if let Ok(mut table) = line
        && table.len() == 1
        && let Some(value) = table.remove("value")
    {
        return Ok(serde_json::to_value(value)?);
    }
    let word = |word: &str| Value::String(word.trim().to_owned());
    // The one field that is a list.
    if name == "keys" {
        return Ok(Value::Array(text.split(',').map(word).collect()));
    }
    Ok(word(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(written: Value, fields: &[&str]) -> anyhow::Result<Value> {
        let Value::Object(mut written) = written else { anyhow::bail!("an object") };
        let fields: Vec<_> = fields.iter().map(|field| parse(field).expect("a field")).collect();
        apply(&mut written, &fields)?;
        Ok(Value::Object(written))
    }

    #[test]
    fn reads_toml_and_bare_words() {
        let fields = ["lifetime_s=86400", "approval=manual", "crl_url=true", "dns_suffix=\"a.example\""];
        let expected =
            json!({"lifetime_s": 86400, "approval": "manual", "crl_url": true, "dns_suffix": "a.example"});
        assert_eq!(applied(json!({}), &fields).expect("valid"), expected);
    }

    #[test]
    fn keys_are_a_list_either_way() {
        let expected = json!({"keys": ["rsa", "ecdsa-p256"]});
        assert_eq!(applied(json!({}), &["keys=rsa,ecdsa-p256"]).expect("bare"), expected);
        assert_eq!(applied(json!({}), &["keys=[\"rsa\", \"ecdsa-p256\"]"]).expect("TOML"), expected);
        assert_eq!(applied(json!({}), &["keys=rsa"]).expect("one"), json!({"keys": ["rsa"]}));
    }

    #[test]
    fn what_is_not_named_stays_and_nothing_takes_the_default() {
        let before = json!({"lifetime_s": 60, "approval": "manual", "crl_url": null});
        assert_eq!(applied(before, &["approval="]).expect("valid"), json!({"lifetime_s": 60}));
    }

    #[test]
    fn a_value_can_not_smuggle_in_another_field() {
        let smuggled = applied(json!({}), &["dns_suffix=1\ncrl_url = true"]).expect("a word");
        assert_eq!(smuggled, json!({"dns_suffix": "1\ncrl_url = true"}));
        assert!(parse("x").is_err());
    }
}
