//! Which zones a list wants, and in which order (contract §2).

use muster_policy::identity::AccountId;
use muster_store::record::{self, ZoneKind};
use serde::Deserialize;

use super::Owner;
use crate::error::ApiError;
use crate::request::Query;

/// The conditions of a list.
pub(super) struct Filter {
    conditions: Vec<Condition>,
    any: bool,
    by_name: Option<Direction>,
}

enum Condition {
    AccountId(Option<AccountId>),
    AccountName(Test),
    Kind(Vec<ZoneKind>),
    Name(Test),
    Status(String),
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Match {
    #[default]
    All,
    Any,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    #[default]
    Asc,
    Desc,
}

#[derive(Clone, Copy, Deserialize)]
enum SortBy {
    #[serde(rename = "account.id")]
    AccountId,
    #[serde(rename = "account.name")]
    AccountName,
    #[serde(rename = "name")]
    Name,
    #[serde(rename = "plan.id")]
    PlanId,
    #[serde(rename = "status")]
    Status,
}

/// A comparison of text, such as `starts_with:exam`.
struct Test {
    operator: Operator,
    ignores_case: bool,
    text: String,
}

#[derive(Clone, Copy)]
enum Operator {
    Contains,
    EndsWith,
    Equal,
    NotEqual,
    StartsWith,
}

/// The words of the operators; each may end in `_case_sensitive`.
const OPERATORS: [(&str, Operator); 5] = [
    ("contains", Operator::Contains),
    ("ends_with", Operator::EndsWith),
    ("equal", Operator::Equal),
    ("not_equal", Operator::NotEqual),
    ("starts_with", Operator::StartsWith),
];

impl Test {
    fn read(text: &str) -> Self {
        let named = text.split_once(':').and_then(|(word, rest)| {
            let plain = word.strip_suffix("_case_sensitive");
            let operator = OPERATORS.iter().find(|(known, _)| *known == plain.unwrap_or(word))?.1;
            Some(Self { operator, ignores_case: plain.is_none(), text: rest.to_owned() })
        });
        named.unwrap_or_else(|| Self { operator: Operator::Equal, ignores_case: true, text: text.to_owned() })
    }

    fn holds(&self, value: &str) -> bool {
        let fold = |text: &str| if self.ignores_case { text.to_lowercase() } else { text.to_owned() };
        let (value, text) = (fold(value), fold(&self.text));
        match self.operator {
            Operator::Contains => value.contains(&text),
            Operator::EndsWith => value.ends_with(&text),
            Operator::Equal => value == text,
            Operator::NotEqual => value != text,
            Operator::StartsWith => value.starts_with(&text),
        }
    }
}

impl Filter {
    pub(super) fn from_query(query: &Query) -> Result<Self, ApiError> {
        let mut conditions = Vec::new();
        conditions.extend(query.get("name").map(|text| Condition::Name(Test::read(text))));
        conditions.extend(query.get("account.name").map(|text| Condition::AccountName(Test::read(text))));
        // A malformed id is one that no account has.
        conditions.extend(query.get("account.id").map(|text| Condition::AccountId(text.parse().ok())));
        conditions.extend(query.get("status").map(|text| Condition::Status(text.to_owned())));
        let kinds: Vec<ZoneKind> = query
            .all("type")
            .into_iter()
            .map(|word| serde_json::from_value(serde_json::Value::String(word.to_owned())))
            .collect::<Result<_, _>>()
            .map_err(|error| ApiError::argument("/type", format!("type: {error}")))?;
        conditions.extend((!kinds.is_empty()).then_some(Condition::Kind(kinds)));
        let any = matches!(query.word::<Match>("match")?.unwrap_or_default(), Match::Any);
        let direction = query.word::<Direction>("direction")?.unwrap_or_default();
        // All zones are alike in the other fields.
        let by_name = match query.word::<SortBy>("order")? {
            Some(SortBy::Name) => Some(direction),
            Some(SortBy::AccountId | SortBy::AccountName | SortBy::PlanId | SortBy::Status) | None => None,
        };
        Ok(Self { conditions, any, by_name })
    }

    pub(super) fn matches(&self, zone: &record::Zone, owner: &Owner) -> bool {
        let holds = |condition: &Condition| match condition {
            Condition::AccountId(id) => *id == Some(owner.id),
            Condition::AccountName(test) => test.holds(&owner.name),
            Condition::Kind(kinds) => kinds.contains(&zone.kind),
            Condition::Name(test) => test.holds(zone.name.as_str()),
            // The only status there is.
            Condition::Status(status) => status == "active",
        };
        if self.any && !self.conditions.is_empty() {
            self.conditions.iter().any(holds)
        } else {
            self.conditions.iter().all(holds)
        }
    }

    pub(super) fn sort(&self, zones: &mut [record::Zone]) {
        match self.by_name {
            Some(Direction::Asc) => zones.sort_by(|a, b| a.name.cmp(&b.name)),
            Some(Direction::Desc) => zones.sort_by(|a, b| b.name.cmp(&a.name)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_stand_before_the_text() {
        for (test, value, holds) in [
            ("example.com", "EXAMPLE.com", true),
            ("equal:example.com", "example.org", false),
            ("not_equal:example.com", "example.org", true),
            ("starts_with:exa", "example.com", true),
            ("ends_with:.com", "example.com", true),
            ("contains:AMP", "example.com", true),
            ("contains_case_sensitive:AMP", "example.com", false),
            ("unknown:example.com", "example.com", false),
        ] {
            assert_eq!(Test::read(test).holds(value), holds, "{test}");
        }
    }
}
