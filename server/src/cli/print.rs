//! What commands print: aligned tables, blocks of names and values, or the JSON as it came.
//!
//! Values come from devices too, so characters that steer a terminal are shown as `?`.

use std::io::{self, Write};

use serde_json::Value;

/// Where a command prints, and in which form.
pub(super) struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

/// A column of a table: its head, and the JSON pointer of its value.
pub(super) type Column = (&'static str, &'static str);

impl<'a> Printer<'a> {
    pub(super) fn new(out: &'a mut dyn Write, json: bool) -> Self {
        Self { out, json }
    }

    /// Whether JSON is wanted.
    pub(super) const fn json(&self) -> bool {
        self.json
    }

    /// A list.
    pub(super) fn list(&mut self, items: &[Value], columns: &[Column]) -> anyhow::Result<()> {
        if self.json {
            return self.line(&serde_json::to_string(items)?);
        }
        self.write(&table(items, columns))
    }

    /// One object: JSON, or a block of its fields.
    pub(super) fn object(&mut self, object: &Value) -> anyhow::Result<()> {
        if self.json { self.value(object) } else { self.write(&block(object)) }
    }

    /// One object: JSON, or a line that says what was done.
    pub(super) fn done(&mut self, object: &Value, sentence: &str) -> anyhow::Result<()> {
        if self.json { self.value(object) } else { self.line(sentence) }
    }

    /// JSON, whatever is wanted.
    pub(super) fn value(&mut self, value: &Value) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// One object: JSON, or one of its fields alone, such as a PEM or a secret.
    pub(super) fn field(&mut self, object: &Value, name: &str) -> anyhow::Result<()> {
        if self.json {
            return self.value(object);
        }
        let text = object.get(name).and_then(Value::as_str).unwrap_or_default();
        self.line(text.trim_end_matches('\n'))
    }

    /// A line of text.
    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(&format!("{text}\n"))
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            // Whoever reads has seen enough, as in `muster cert list | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

/// A table with a head; columns are as wide as their widest cell.
fn table(items: &[Value], columns: &[Column]) -> String {
    let head: Vec<String> = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
    let row = |item: &Value| columns.iter().map(|(_, pointer)| cell(item.pointer(pointer))).collect();
    let rows: Vec<Vec<String>> = core::iter::once(head).chain(items.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The fields of an object, one a line; a PEM comes last and whole.
fn block(object: &Value) -> String {
    let Value::Object(fields) = object else { return format!("{}\n", cell(Some(object))) };
    let mut text = String::new();
    let mut last = String::new();
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, value) in fields {
        match value {
            Value::String(pem) if pem.starts_with("-----BEGIN ") => last.push_str(pem),
            value => text.push_str(&format!("{name:<width$}  {}\n", cell(Some(value)))),
        }
    }
    text + &last
}

/// A value in one line.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(", "),
        Some(Value::Object(fields)) => object_cell(fields),
    }
}

fn object_cell(fields: &serde_json::Map<String, Value>) -> String {
    if let (Some(Value::String(kind)), Some(value), 2) =
        (fields.get("kind"), fields.get("value"), fields.len())
    {
        return format!("{kind}:{}", cell(Some(value)));
    }
    let pairs = fields.iter().filter(|(_, value)| !value.is_null());
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", cell(Some(value)))).collect();
    if pairs.is_empty() { "-".to_owned() } else { pairs.join(" ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let items = [json!({"id": "a", "s": "active"}), json!({"id": "longer", "s": null})];
        let text = table(&items, &[("ID", "/id"), ("STATUS", "/s")]);
        assert_eq!(text, "ID      STATUS\na       active\nlonger  -\n");
    }

    #[test]
    fn an_empty_list_has_its_head() {
        assert_eq!(table(&[], &[("ID", "/id")]), "ID\n");
    }

    #[test]
    fn a_pem_comes_last_and_whole() {
        let text = block(&json!({"pem": "-----BEGIN X-----\nAA\n-----END X-----\n", "serial": "01"}));
        assert_eq!(text, "serial  01\n-----BEGIN X-----\nAA\n-----END X-----\n");
    }

    #[test]
    fn nothing_in_a_value_steers_the_terminal() {
        assert_eq!(cell(Some(&json!("a\u{1b}[2Jb\n"))), "a?[2Jb?");
        assert_eq!(cell(Some(&json!([{"kind": "uri", "value": "spiffe://x"}]))), "uri:spiffe://x");
        assert_eq!(cell(Some(&json!({"site": "north", "none": null}))), "site=north");
    }

    #[test]
    fn json_is_one_line() {
        let mut out = Vec::new();
        Printer::new(&mut out, true).list(&[json!({"id": 1})], &[]).expect("written");
        assert_eq!(out, b"[{\"id\":1}]\n");
    }
}
