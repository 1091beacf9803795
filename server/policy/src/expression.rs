//! Expressions that requests are judged by: `http.host eq "a.example.com" and not cf.tls_client_auth.cert_verified`.
//!
//! A subset of the language that the API we follow uses, with its names. An expression is typed when it
//! is read: what is unknown, compares unlike kinds or is too large is refused with its position, so that
//! reading one that was accepted can't fail later. Evaluation has no loops but over what was written.

mod field;
mod lexer;
mod parser;

use std::borrow::Cow;
use std::net::IpAddr;

pub use self::field::{Field, Kind};
use self::parser::parse;
use crate::network::Network;

/// Longest expression; the API we follow takes as much.
pub const EXPRESSION_MAX_BYTES: usize = 4_096;
/// What a regular expression may take when it is read, and again for its cache.
pub const PATTERN_MAX_BYTES: usize = 256 * 1024;
/// Most regular expressions of an expression.
pub const PATTERNS_MAX: usize = 8;
/// Deepest nesting of parentheses and negations.
pub const DEPTH_MAX: usize = 32;

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at position {position}: {message}")]
pub struct ExpressionError {
    /// Octets before the place, from 0.
    pub position: usize,
    /// What is wrong.
    pub message: String,
}

/// A checked expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

/// The value of a field at a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// An address.
    Ip(IpAddr),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(Cow<'a, str>),
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// The same for every request.
    Always(bool),
    And(Box<Self>, Box<Self>),
    Compare(Subject, Comparison),
    Not(Box<Self>),
    Or(Box<Self>, Box<Self>),
    Xor(Box<Self>, Box<Self>),
}

/// What is compared: a field, perhaps in lower case.
#[derive(Clone, Debug, PartialEq)]
struct Subject {
    field: Field,
    lower: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Comparison {
    Contains(String),
    EndsWith(String),
    InNetworks(Vec<Network>),
    InNumbers(Vec<(i64, i64)>),
    InTexts(Vec<String>),
    IsTrue,
    Matches(Pattern),
    Number(Order, i64),
    StartsWith(String),
    Text(Order, String),
    Wildcard { pattern: String, strict: bool },
}

/// How two values stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

impl Order {
    fn holds<T: Ord + ?Sized>(self, left: &T, right: &T) -> bool {
        let order = left.cmp(right);
        match self {
            Self::Equal => order.is_eq(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::NotEqual => order.is_ne(),
        }
    }
}

impl core::str::FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > EXPRESSION_MAX_BYTES {
            let message = format!("an expression has at most {EXPRESSION_MAX_BYTES} bytes");
            return Err(ExpressionError { position: EXPRESSION_MAX_BYTES, message });
        }
        parse(text).map(Self)
    }
}

impl Expression {
    /// Whether one of the fields asked is one of these.
    pub fn asks(&self, is_one: fn(Field) -> bool) -> bool {
        self.0.asks(is_one)
    }

    /// Whether a request is one of those meant; `value_of` gives each field in its [`Kind`].
    pub fn matches<'a>(&self, value_of: &dyn Fn(Field) -> Value<'a>) -> bool {
        self.0.holds(value_of)
    }
}

impl Node {
    fn asks(&self, is_one: fn(Field) -> bool) -> bool {
        match self {
            Self::And(left, right) | Self::Or(left, right) | Self::Xor(left, right) => {
                left.asks(is_one) || right.asks(is_one)
            }
            Self::Not(inner) => inner.asks(is_one),
            Self::Always(_) => false,
            Self::Compare(subject, _) => is_one(subject.field),
        }
    }

    fn holds<'a>(&self, value_of: &dyn Fn(Field) -> Value<'a>) -> bool {
        match self {
            Self::And(left, right) => left.holds(value_of) && right.holds(value_of),
            Self::Or(left, right) => left.holds(value_of) || right.holds(value_of),
            Self::Xor(left, right) => left.holds(value_of) != right.holds(value_of),
            Self::Not(inner) => !inner.holds(value_of),
            Self::Always(value) => *value,
            Self::Compare(subject, comparison) => comparison.holds(&subject.value(value_of)),
        }
    }
}

impl Subject {
    fn value<'a>(&self, value_of: &dyn Fn(Field) -> Value<'a>) -> Value<'a> {
        match value_of(self.field) {
            Value::Text(text) if self.lower => Value::Text(text.to_lowercase().into()),
            value => value,
        }
    }
}

impl Comparison {
    /// Kinds agree, because they were compared when the expression was read.
    fn holds(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::IsTrue, Value::Bool(value)) => *value,
            (Self::Contains(part), Value::Text(text)) => text.contains(part.as_str()),
            (Self::StartsWith(part), Value::Text(text)) => text.starts_with(part.as_str()),
            (Self::EndsWith(part), Value::Text(text)) => text.ends_with(part.as_str()),
            (Self::Text(order, other), Value::Text(text)) => order.holds(text.as_ref(), other.as_str()),
            (Self::InTexts(texts), Value::Text(text)) => texts.iter().any(|other| other == text.as_ref()),
            (Self::Matches(pattern), Value::Text(text)) => pattern.0.is_match(text),
            (Self::Wildcard { pattern, strict }, Value::Text(text)) => wildcard(pattern, text, *strict),
            (Self::Number(order, other), Value::Number(number)) => order.holds(number, other),
            (Self::InNumbers(ranges), Value::Number(number)) => {
                ranges.iter().any(|(from, to)| (from..=to).contains(&number))
            }
            (Self::InNetworks(networks), Value::Ip(address)) => {
                networks.iter().any(|network| network.contains(*address))
            }
            _ => false,
        }
    }
}

/// A regular expression. Its time grows with the length of the text alone, whatever is written.
#[derive(Clone, Debug)]
struct Pattern(regex::Regex);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// In one line, what is wrong with it.
    fn new(text: &str) -> Result<Self, String> {
        let built = regex::RegexBuilder::new(text)
            .size_limit(PATTERN_MAX_BYTES)
            .dfa_size_limit(PATTERN_MAX_BYTES)
            .build();
        built.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the regular expression takes more than {PATTERN_MAX_BYTES} bytes")
            }
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                format!("no regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
            }
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// `*` stands for any text; without `strict` case makes no difference. Time grows with the product of
/// the two lengths at most: a `*` that was passed is never tried again.
fn wildcard(pattern: &str, text: &str, strict: bool) -> bool {
    let fold = |text: &str| if strict { text.to_owned() } else { text.to_lowercase() };
    let (pattern, text) = (fold(pattern), fold(text));
    let parts: Vec<&str> = pattern.split('*').collect();
    let (Some((first, rest)), Some(last)) = (parts.split_first(), parts.last()) else { return false };
    if rest.is_empty() {
        return *first == text;
    }
    let Some(mut left) = text.strip_prefix(first) else { return false };
    for part in rest.iter().take(rest.len().saturating_sub(1)) {
        let Some(at) = left.find(part) else { return false };
        left = left.get(at.saturating_add(part.len())..).unwrap_or_default();
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests;
