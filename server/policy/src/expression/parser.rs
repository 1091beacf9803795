//! From words to a typed tree. `not` binds closest, then `and`, `xor`, `or`.

use super::lexer::{Token, tokens};
use super::{
    Comparison, DEPTH_MAX, ExpressionError, Field, Kind, Node, Order, PATTERNS_MAX, Pattern, Subject,
};
use crate::network::Network;

/// Reads a whole expression.
pub(super) fn parse(text: &str) -> Result<Node, ExpressionError> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len(), depth: 0, patterns: 0 };
    let node = parser.either()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.wrong("`and`, `or`, `xor` or the end is expected here")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
    patterns: usize,
}

impl Parser {
    fn either(&mut self) -> Result<Node, ExpressionError> {
        let mut node = self.exclusive()?;
        while self.takes("or", "||") {
            node = Node::Or(Box::new(node), Box::new(self.exclusive()?));
        }
        Ok(node)
    }

    fn exclusive(&mut self) -> Result<Node, ExpressionError> {
        let mut node = self.both()?;
        while self.takes("xor", "^^") {
            node = Node::Xor(Box::new(node), Box::new(self.both()?));
        }
        Ok(node)
    }

    fn both(&mut self) -> Result<Node, ExpressionError> {
        let mut node = self.single()?;
        while self.takes("and", "&&") {
            node = Node::And(Box::new(node), Box::new(self.single()?));
        }
        Ok(node)
    }

    fn single(&mut self) -> Result<Node, ExpressionError> {
        if self.depth >= DEPTH_MAX {
            return Err(self.wrong(&format!("nested deeper than {DEPTH_MAX}")));
        }
        self.depth = self.depth.saturating_add(1);
        let node = if self.takes("not", "!") {
            self.single().map(|inner| Node::Not(Box::new(inner)))
        } else if self.takes_sign("(") {
            self.either().and_then(|inner| self.needs(")").map(|()| inner))
        } else {
            self.comparison()
        };
        self.depth = self.depth.saturating_sub(1);
        node
    }

    fn comparison(&mut self) -> Result<Node, ExpressionError> {
        if let Some(value) = self.constant() {
            return Ok(Node::Always(value));
        }
        for (word, make) in [
            ("starts_with", Comparison::StartsWith as fn(String) -> Comparison),
            ("ends_with", Comparison::EndsWith as fn(String) -> Comparison),
        ] {
            if self.takes(word, "") {
                self.needs("(")?;
                let subject = self.subject()?;
                self.is_kind(&subject, Kind::Text)?;
                self.needs(",")?;
                let text = self.text()?;
                self.needs(")")?;
                return Ok(Node::Compare(subject, make(text)));
            }
        }
        let subject = self.subject()?;
        let comparison = match subject.field.kind() {
            Kind::Bool => self.about_bool()?,
            Kind::Ip => self.about_ip()?,
            Kind::Number => self.about_number()?,
            Kind::Text => self.about_text()?,
        };
        Ok(match comparison {
            (comparison, false) => Node::Compare(subject, comparison),
            (comparison, true) => Node::Not(Box::new(Node::Compare(subject, comparison))),
        })
    }

    fn subject(&mut self) -> Result<Subject, ExpressionError> {
        if self.takes("lower", "") {
            self.needs("(")?;
            let field = self.field()?;
            let subject = Subject { field, lower: true };
            self.is_kind(&subject, Kind::Text)?;
            self.needs(")")?;
            return Ok(subject);
        }
        Ok(Subject { field: self.field()?, lower: false })
    }

    fn field(&mut self) -> Result<Field, ExpressionError> {
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.wrong("the name of a field is expected here"));
        };
        let Some(field) = Field::ALL.iter().find(|field| field.name() == word) else {
            let message = format!("unknown field `{word}`");
            return Err(self.wrong(&message));
        };
        self.next = self.next.saturating_add(1);
        Ok(*field)
    }

    fn constant(&mut self) -> Option<bool> {
        [("true", true), ("false", false)]
            .into_iter()
            .find_map(|(word, value)| self.takes(word, "").then_some(value))
    }

    /// Alone, or compared with `true` or `false`; the second of the answer says whether it is negated.
    fn about_bool(&mut self) -> Result<(Comparison, bool), ExpressionError> {
        let Some(order) = self.order() else { return Ok((Comparison::IsTrue, false)) };
        let wanted = self.constant().ok_or_else(|| self.wrong("`true` or `false` is expected here"))?;
        match order {
            Order::Equal => Ok((Comparison::IsTrue, !wanted)),
            Order::NotEqual => Ok((Comparison::IsTrue, wanted)),
            _ => Err(self.wrong("true and false have no order")),
        }
    }

    fn about_ip(&mut self) -> Result<(Comparison, bool), ExpressionError> {
        if self.takes("in", "") {
            return Ok((Comparison::InNetworks(self.list(Self::network)?), false));
        }
        match self.order() {
            Some(Order::Equal) => Ok((Comparison::InNetworks(vec![self.network()?]), false)),
            Some(Order::NotEqual) => Ok((Comparison::InNetworks(vec![self.network()?]), true)),
            _ => Err(self.wrong("`eq`, `ne` or `in` is expected here")),
        }
    }

    fn about_number(&mut self) -> Result<(Comparison, bool), ExpressionError> {
        if self.takes("in", "") {
            return Ok((Comparison::InNumbers(self.list(Self::range)?), false));
        }
        let order = self.order().ok_or_else(|| self.wrong("a comparison is expected here"))?;
        Ok((Comparison::Number(order, self.number()?), false))
    }

    fn about_text(&mut self) -> Result<(Comparison, bool), ExpressionError> {
        if self.takes("in", "") {
            return Ok((Comparison::InTexts(self.list(Self::text)?), false));
        }
        if self.takes("contains", "") {
            return Ok((Comparison::Contains(self.text()?), false));
        }
        if self.takes("wildcard", "") {
            return Ok((Comparison::Wildcard { pattern: self.text()?, strict: false }, false));
        }
        if self.takes("strict", "") {
            if !self.takes("wildcard", "") {
                return Err(self.wrong("`wildcard` is expected here"));
            }
            return Ok((Comparison::Wildcard { pattern: self.text()?, strict: true }, false));
        }
        if self.takes("matches", "~") {
            return Ok((Comparison::Matches(self.pattern()?), false));
        }
        let order = self.order().ok_or_else(|| {
            self.wrong(
                "a comparison is expected here: eq, ne, lt, le, gt, ge, in, contains, matches or wildcard",
            )
        })?;
        Ok((Comparison::Text(order, self.text()?), false))
    }

    fn order(&mut self) -> Option<Order> {
        let orders = [
            ("eq", "==", Order::Equal),
            ("ne", "!=", Order::NotEqual),
            ("le", "<=", Order::LessOrEqual),
            ("ge", ">=", Order::GreaterOrEqual),
            ("lt", "<", Order::Less),
            ("gt", ">", Order::Greater),
        ];
        orders.into_iter().find(|(word, sign, _)| self.takes(word, sign)).map(|(_, _, order)| order)
    }

    fn list<T>(
        &mut self,
        element: fn(&mut Self) -> Result<T, ExpressionError>,
    ) -> Result<Vec<T>, ExpressionError> {
        self.needs("{")?;
        let mut list = Vec::new();
        while !self.takes_sign("}") {
            list.push(element(self)?);
        }
        if list.is_empty() { Err(self.wrong("the list is empty")) } else { Ok(list) }
    }

    fn text(&mut self) -> Result<String, ExpressionError> {
        match self.peek() {
            Some(Token::Quoted(text)) => {
                let text = text.clone();
                self.next = self.next.saturating_add(1);
                Ok(text)
            }
            _ => Err(self.wrong("text in quotes is expected here")),
        }
    }

    fn pattern(&mut self) -> Result<Pattern, ExpressionError> {
        if self.patterns >= PATTERNS_MAX {
            return Err(self.wrong(&format!("an expression has at most {PATTERNS_MAX} regular expressions")));
        }
        self.patterns = self.patterns.saturating_add(1);
        let text = self.text()?;
        Pattern::new(&text).map_err(|message| {
            // The text is behind, and it is what is wrong.
            self.next = self.next.saturating_sub(1);
            self.wrong(&message)
        })
    }

    fn word<T: core::str::FromStr>(&mut self, what: &str) -> Result<T, ExpressionError> {
        let found = match self.peek() {
            Some(Token::Word(word)) => word.parse().ok(),
            _ => None,
        };
        let found = found.ok_or_else(|| self.wrong(what))?;
        self.next = self.next.saturating_add(1);
        Ok(found)
    }

    fn network(&mut self) -> Result<Network, ExpressionError> {
        self.word("an address or a network is expected here")
    }

    fn number(&mut self) -> Result<i64, ExpressionError> {
        self.word("a whole number is expected here")
    }

    /// `5`, or `1..5`.
    fn range(&mut self) -> Result<(i64, i64), ExpressionError> {
        let text: String = self.word("a whole number or a range is expected here")?;
        let (from, to) = text.split_once("..").unwrap_or((&text, &text));
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
            _ => Err(self.wrong("the range before this can't be read")),
        }
    }

    fn is_kind(&self, subject: &Subject, kind: Kind) -> Result<(), ExpressionError> {
        if subject.field.kind() == kind {
            return Ok(());
        }
        Err(self.wrong(&format!("`{}` is no {kind:?}", subject.field.name())))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn takes(&mut self, word: &str, sign: &str) -> bool {
        let is = match self.peek() {
            Some(Token::Word(found)) => found == word,
            Some(Token::Sign(found)) => *found == sign,
            _ => false,
        };
        if is {
            self.next = self.next.saturating_add(1);
        }
        is
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        self.takes("", sign)
    }

    fn needs(&mut self, sign: &str) -> Result<(), ExpressionError> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.wrong(&format!("`{sign}` is expected here"))) }
    }

    fn wrong(&self, message: &str) -> ExpressionError {
        let position = self.tokens.get(self.next).map_or(self.end, |(at, _)| *at);
        ExpressionError { position, message: message.to_owned() }
    }
}
