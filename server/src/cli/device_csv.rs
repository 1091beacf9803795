//! Reading a CSV of devices.
//!
//! The first line names the columns; an unknown one is an error, because a misspelt column would be
//! dropped in silence. The whole file is read and checked before the first device is sent. Errors name
//! the line of the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

use anyhow::{Context as _, bail, ensure};
use csv::StringRecord;
use muster_policy::name::DeviceId;
use serde::Serialize;

/// The columns there are.
const COLUMNS: [&str; 6] = ["id", "labels", "groups", "manufacturer_serial", "manufacturer", "note"];

/// One device, as the API takes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    /// Where it is in the file, for errors.
    #[serde(skip)]
    pub(super) line: u64,
    pub(super) id: DeviceId,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manufacturer_serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manufacturer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Reads the whole file.
pub(super) fn read(file: impl Read) -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let columns = columns(reader.headers().context("the header line")?)?;
    let mut rows = Vec::new();
    let mut lines: HashMap<DeviceId, u64> = HashMap::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = row(&record, &columns, line).with_context(|| format!("line {line}"))?;
        if let Some(earlier) = lines.insert(row.id.clone(), line) {
            bail!("line {line}: the device {} is already in line {earlier}", row.id);
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Where each column is.
fn columns(header: &StringRecord) -> anyhow::Result<HashMap<&'static str, usize>> {
    let mut columns = HashMap::new();
    for (place, name) in header.iter().enumerate() {
        // Spreadsheets begin their files with a byte order mark.
        let name = name.trim_start_matches('\u{feff}').trim();
        let Some(known) = COLUMNS.iter().find(|known| **known == name) else {
            bail!("unknown column `{name}`; known columns: {}", COLUMNS.join(", "));
        };
        ensure!(columns.insert(*known, place).is_none(), "the column `{name}` appears twice");
    }
    ensure!(columns.contains_key("id"), "the header line has no column `id`");
    Ok(columns)
}

fn row(record: &StringRecord, columns: &HashMap<&str, usize>, line: u64) -> anyhow::Result<Row> {
    let text = |name: &str| {
        let value = columns.get(name).and_then(|place| record.get(*place));
        value.filter(|value| !value.is_empty())
    };
    let id = text("id").context("the device has no id")?;
    Ok(Row {
        line,
        id: id.parse().with_context(|| format!("`{id}`"))?,
        labels: labels(text("labels").unwrap_or_default())?,
        groups: parts(text("groups").unwrap_or_default()).map(str::to_owned).collect(),
        manufacturer_serial: text("manufacturer_serial").map(str::to_owned),
        manufacturer: text("manufacturer").map(str::to_owned),
        note: text("note").map(str::to_owned),
    })
}

/// `a=b;c=d`
fn labels(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for part in parts(text) {
        let pair = part.split_once('=').with_context(|| format!("the label `{part}` is not NAME=VALUE"))?;
        let (name, value) = (pair.0.trim().to_owned(), pair.1.trim().to_owned());
        ensure!(labels.insert(name, value).is_none(), "the label of `{part}` appears twice");
    }
    Ok(labels)
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", read(text.as_bytes()).expect_err(text))
    }

    #[test]
    fn reads_every_column_in_any_order() {
        let text =
            "\u{feff}note,id,labels,groups,manufacturer_serial\n\"a, b\",d1,site=north; row = 2,x;y,S1\n";
        let rows = read(text.as_bytes()).expect("valid");
        let json = serde_json::to_value(&rows).expect("JSON");
        let expected = serde_json::json!([{
            "id": "d1", "labels": {"site": "north", "row": "2"}, "groups": ["x", "y"],
            "manufacturer_serial": "S1", "note": "a, b",
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn names_what_is_wrong_and_where() {
        assert!(error("id,colour\nd1,red\n").contains("unknown column `colour`"));
        assert!(error("id,id\nd1,d1\n").contains("twice"));
        assert!(error("note\nx\n").contains("`id`"));
        assert!(error("id\nd1\na b\n").starts_with("line 3"));
        assert!(error("id\nd1\nd2\nd1\n").contains("line 4: the device d1 is already in line 2"));
        assert!(error("id,labels\nd1,x\n").contains("NAME=VALUE"));
        assert!(error("id,note\nd1\n").contains("line: 2"));
        assert!(error("id,labels\n\"\",a=b\n").contains("no id"));
    }

    #[test]
    fn a_file_with_only_a_header_has_no_devices() {
        assert_eq!(read("id\n".as_bytes()).expect("valid"), []);
    }
}
