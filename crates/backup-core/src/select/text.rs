//! Selections, renamings and names as text.

use std::fmt;

use serde_json::Value;

use super::{
    Rule, Selection, Unmapped,
    condition::{Condition, Field, Kind, Op, Test, json_text},
};
use crate::error::{Error, ErrorKind, Result};

/// How deep parentheses may nest.
const MAX_DEPTH: usize = 60;

/// What one expression says.
pub(super) enum Expression {
    Stores(Vec<String>),
    Collections(Vec<(String, String)>),
    Unmapped(Unmapped),
    Rule(Rule),
}

/// Whether a field of this name needs no quotes.
pub(super) fn is_word(text: &str) -> bool {
    const RESERVED: &[&str] = &["and", "or", "not", "true", "false"];
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && text.chars().all(inner) && !RESERVED.contains(&text)
}

pub(super) fn condition(text: &str) -> Result<Condition> {
    whole(text, Parser::condition)
}

pub(super) fn expression(text: &str) -> Result<Expression> {
    whole(text, Parser::expression)
}

/// `old=new`, of which the old one may be in two halves: `store/old=new`.
pub(super) fn renaming(text: &str) -> Result<((String, Option<String>), String)> {
    whole(text, |parser| {
        let old = parser.place()?;
        parser.space();
        if !parser.eat("=") {
            return Err(parser.wrong("here has to be =, as in old=new"));
        }
        let new = parser.place()?;
        match new {
            (new, None) => Ok((old, new)),
            _ => {
                Err(parser
                    .wrong("after = stands only the new name; put one that has a / in quotes"))
            }
        }
    })
}

fn whole<'t, T>(text: &'t str, read: impl FnOnce(&mut Parser<'t>) -> Result<T>) -> Result<T> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let read = read(&mut parser)?;
    parser.space();
    if parser.rest().is_empty() {
        return Ok(read);
    }
    Err(parser.wrong("this was not expected; a text with such characters stands in double quotes"))
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn wrong(&self, what: impl Into<String>) -> Error {
        let number = self.text[..self.at].chars().count() + 1;
        Error::new(ErrorKind::InvalidInput, what)
            .on(format!("{}, character {number}", self.text))
            .advise(
                "write it like project=alpha, created>=2026-01-31, state/notes or \"two words\"",
            )
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    // A word of the language: what follows does not go on with it.
    fn eat_word(&mut self, word: &str) -> bool {
        self.space();
        let after = self.rest().strip_prefix(word);
        let found = after.is_some_and(|after| {
            !after
                .starts_with(|c: char| is_word(c.encode_utf8(&mut [0; 4])) || "=!<>/:".contains(c))
        });
        if found {
            self.at += word.len();
        }
        found
    }

    // Everything up to a character that ends it.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    // JSON that stands here.
    fn json(&mut self) -> Result<Value> {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(cause)) => {
                Err(self.wrong("this is not JSON, or a quote is not closed").because(cause))
            }
            None => Err(self.wrong("a value is missing")),
        }
    }

    fn quoted(&mut self) -> Result<Option<String>> {
        if !self.rest().starts_with('"') {
            return Ok(None);
        }
        Ok(self.json()?.as_str().map(str::to_owned))
    }

    // A store, and after a / the collection.
    fn place(&mut self) -> Result<(String, Option<String>)> {
        let store = self.name(false)?;
        let collection = if self.eat("/") { Some(self.name(true)?) } else { None };
        Ok((store, collection))
    }

    fn name(&mut self, with_slash: bool) -> Result<String> {
        self.space();
        if let Some(name) = self.quoted()? {
            return Ok(name);
        }
        let name = self.until(|c| {
            c.is_whitespace() || "\"=:,!<>()[]".contains(c) || (c == '/' && !with_slash)
        });
        if name.is_empty() { Err(self.wrong("a name is missing")) } else { Ok(name.to_owned()) }
    }

    fn expression(&mut self) -> Result<Expression> {
        if self.eat_key("store") {
            return Ok(Expression::Stores(self.choices(|parser| parser.name(true))?));
        } else if self.eat_key("collection") {
            return Ok(Expression::Collections(self.choices(|parser| match parser.place()? {
                (store, Some(collection)) => Ok((store, collection)),
                _ => Err(parser.wrong("a collection is named with its store, as in state/notes")),
            })?));
        } else if self.eat_key("unmapped") {
            return Ok(Expression::Unmapped(self.unmapped()?));
        }
        let (store, collection) = match self.scope() {
            Some((store, collection)) => (Some(store), collection),
            None => (None, None),
        };
        let condition = self.condition()?;
        Ok(Expression::Rule(Rule { store, collection, condition }))
    }

    // One of the words that choose, with what says that it does.
    fn eat_key(&mut self, word: &str) -> bool {
        self.space();
        let start = self.at;
        if self.eat(word) {
            self.space();
            let ahead = self.rest();
            let list =
                ahead.strip_prefix("in").is_some_and(|rest| rest.trim_start().starts_with('['));
            if ahead.starts_with('=') || list {
                return true;
            }
        }
        self.at = start;
        false
    }

    // `=` one, or `in [` several `]`.
    fn choices<T>(&mut self, one: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        if self.eat("=") {
            return Ok(vec![one(self)?]);
        }
        self.eat("in");
        self.list(one)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.space();
        if !self.eat("[") {
            return Err(self.wrong("here has to be a list, as in [a, b]"));
        }
        let mut items = Vec::new();
        self.space();
        if self.eat("]") {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            self.space();
            if self.eat("]") {
                return Ok(items);
            } else if !self.eat(",") {
                return Err(self.wrong("here has to be , or ]"));
            }
        }
    }

    fn unmapped(&mut self) -> Result<Unmapped> {
        let start = self.at;
        if self.eat("=") {
            let word = self.name(false)?;
            let known = [Unmapped::Refuse, Unmapped::LeaveOut, Unmapped::Whole];
            if let Some(choice) = known.into_iter().find(|choice| choice.as_str() == word) {
                return Ok(choice);
            }
        }
        self.at = start;
        Err(self.wrong("unmapped is refuse, leave-out or whole"))
    }

    // What stands before a colon, if something does.
    fn scope(&mut self) -> Option<(String, Option<String>)> {
        let start = self.at;
        if let Ok(place) = self.place()
            && self.eat(":")
        {
            return Some(place);
        }
        self.at = start;
        None
    }

    fn condition(&mut self) -> Result<Condition> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong("this is nested too deeply"));
        }
        let mut any = vec![self.all()?];
        while self.eat_word("or") {
            any.push(self.all()?);
        }
        self.depth -= 1;
        Ok(Condition::Any(any).canonical())
    }

    fn all(&mut self) -> Result<Condition> {
        let mut all = vec![self.unit()?];
        while self.eat_word("and") {
            all.push(self.unit()?);
        }
        Ok(Condition::All(all))
    }

    fn unit(&mut self) -> Result<Condition> {
        let mut opposite = false;
        while self.eat_word("not") {
            opposite = !opposite;
        }
        self.space();
        let unit = if self.eat("(") {
            let inner = self.condition()?;
            self.space();
            if !self.eat(")") {
                return Err(self.wrong("here has to be )"));
            }
            inner
        } else if self.eat_word("true") {
            Condition::All(Vec::new())
        } else if self.eat_word("false") {
            Condition::Any(Vec::new())
        } else {
            self.test()?
        };
        Ok(if opposite { !unit } else { unit })
    }

    fn test(&mut self) -> Result<Condition> {
        let start = self.at;
        let field = match self.quoted()? {
            Some(field) => field,
            None => self.until(|c| c.is_whitespace() || "\"=!<>()[],".contains(c)).to_owned(),
        };
        if field.is_empty() && self.at == start {
            return Err(
                self.wrong("a field is missing: a name, or a JSON pointer, which begins with /")
            );
        }
        let field = Field::new(&field).map_err(|error| error.on(self.text))?;
        let (op, opposite) = self.op()?;
        self.space();
        let start = self.at;
        let value = match op {
            Op::Exists => Value::Null,
            Op::In => Value::Array(self.list(|parser| parser.value(field.kind(), true))?),
            _ => self.value(field.kind(), false)?,
        };
        let end = std::mem::replace(&mut self.at, start);
        let test = Test::new(field, op, value).map_err(|error| {
            let advice = error.advice().to_owned();
            self.wrong(error.to_string()).advise(advice)
        })?;
        self.at = end;
        let test = Condition::Test(test);
        Ok(if opposite { !test } else { test })
    }

    // The operator, and whether the opposite is meant.
    fn op(&mut self) -> Result<(Op, bool)> {
        self.space();
        let signs = [
            ("<=", Op::AtMost, false),
            (">=", Op::AtLeast, false),
            ("!=", Op::Equals, true),
            ("==", Op::Equals, false),
            ("=", Op::Equals, false),
            ("<", Op::Less, false),
            (">", Op::Greater, false),
        ];
        if let Some((_, op, opposite)) = signs.into_iter().find(|(sign, ..)| self.eat(sign)) {
            return Ok((op, opposite));
        }
        let words = [
            ("in", Op::In, false),
            ("contains", Op::Contains, false),
            ("starts-with", Op::StartsWith, false),
            ("exists", Op::Exists, false),
            ("missing", Op::Exists, true),
        ];
        match words.into_iter().find(|(word, ..)| self.eat_word(word)) {
            Some((_, op, opposite)) => Ok((op, opposite)),
            None => Err(self.wrong(
                "here has to be one of = != < <= > >= in, contains, starts-with, exists, missing",
            )),
        }
    }

    fn value(&mut self, kind: Kind, in_list: bool) -> Result<Value> {
        self.space();
        let json = kind == Kind::Json && self.rest().starts_with(['[', '{']);
        if json || self.rest().starts_with('"') {
            return self.json();
        }
        let word =
            self.until(|c| c.is_whitespace() || "\"()[]".contains(c) || (in_list && c == ','));
        match word {
            "" => Err(self.wrong("a value is missing")),
            word if kind == Kind::Json => Ok(scalar(word).unwrap_or_else(|| word.into())),
            word => Ok(word.into()),
        }
    }
}

// What JSON says of a word without quotes.
fn scalar(word: &str) -> Option<Value> {
    serde_json::from_str(word).ok()
}

pub(super) fn expressions(selection: &Selection) -> Vec<String> {
    let mut all = Vec::new();
    for (store, collections) in &selection.stores {
        if collections.is_empty() {
            all.push(format!("store={}", Name(store, true)));
        }
        all.extend(
            collections.iter().map(|name| format!("collection={}", place(store, Some(name)))),
        );
    }
    for Rule { store, collection, condition } in &selection.rules {
        all.push(match store {
            Some(store) => format!("{}: {condition}", place(store, collection.as_deref())),
            None => condition.to_string(),
        });
    }
    if selection.unmapped != Unmapped::default() {
        all.push(format!("unmapped={}", selection.unmapped.as_str()));
    }
    all
}

/// A store, or a collection of it.
pub(super) fn place(store: &str, collection: Option<&str>) -> String {
    match collection {
        Some(name) => format!("{}/{}", Name(store, false), Name(name, true)),
        None => Name(store, false).to_string(),
    }
}

// A name; whether a / may stand in it without quotes.
struct Name<'a>(&'a str, bool);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_alphanumeric() || "_-.".contains(c) || (self.1 && c == '/');
        // A pointer begins with a slash.
        if self.0.is_empty() || self.0.starts_with('/') || !self.0.chars().all(plain) {
            return f.write_str(&json_text(&self.0.into()));
        }
        f.write_str(self.0)
    }
}

pub(super) fn write_condition(f: &mut fmt::Formatter<'_>, condition: &Condition) -> fmt::Result {
    let list = |f: &mut fmt::Formatter<'_>, items: &[Condition], word: &str| {
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                write!(f, " {word} ")?;
            }
            match item {
                Condition::All(inner) | Condition::Any(inner) if !inner.is_empty() => {
                    write!(f, "({item})")?;
                }
                item => write!(f, "{item}")?,
            }
        }
        Ok(())
    };
    match condition {
        Condition::All(items) if items.is_empty() => f.write_str("true"),
        Condition::Any(items) if items.is_empty() => f.write_str("false"),
        Condition::All(items) => list(f, items, "and"),
        Condition::Any(items) => list(f, items, "or"),
        Condition::Test(test) => write_test(f, test, false),
        Condition::Not(inner) => match &**inner {
            Condition::Test(test) => write_test(f, test, true),
            inner => write!(f, "not ({inner})"),
        },
    }
}

fn write_test(f: &mut fmt::Formatter<'_>, test: &Test, opposite: bool) -> fmt::Result {
    let field = test.field().as_str();
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || "\"=!<>()[],".contains(c));
    let key = matches!(field, "store" | "collection" | "unmapped");
    let field = if key || field.is_empty() || !field.chars().all(plain) {
        json_text(&field.into())
    } else {
        field.to_owned()
    };
    let kind = test.field().kind();
    let value = || written(kind, test.value());
    match (test.op(), opposite) {
        (Op::Exists, false) => write!(f, "{field} exists"),
        (Op::Exists, true) => write!(f, "{field} missing"),
        (Op::Equals, true) => write!(f, "{field}!={}", value()),
        (op, true) => {
            f.write_str("not ")?;
            write_plain(f, &field, op, kind, test.value())
        }
        (op, false) => write_plain(f, &field, op, kind, test.value()),
    }
}

fn write_plain(
    f: &mut fmt::Formatter<'_>,
    field: &str,
    op: Op,
    kind: Kind,
    value: &Value,
) -> fmt::Result {
    let sign = op.as_str();
    match (op, value) {
        (Op::In, Value::Array(items)) => {
            let items: Vec<_> = items.iter().map(|item| written(kind, item)).collect();
            write!(f, "{field} in [{}]", items.join(", "))
        }
        (Op::Contains | Op::StartsWith, value) => {
            write!(f, "{field} {sign} {}", written(kind, value))
        }
        (_, value) => write!(f, "{field}{sign}{}", written(kind, value)),
    }
}

fn written(kind: Kind, value: &Value) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@+".contains(c);
    match value {
        Value::String(text)
            if !text.is_empty()
                && text.chars().all(plain)
                && (kind != Kind::Json || scalar(text).is_none()) =>
        {
            text.clone()
        }
        value => json_text(value),
    }
}
