//! What has to hold of a record.

use std::{fmt, ops::Not, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{text, value};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    manifest::FieldMapping,
    record::canonical,
};

/// What has to hold of a record; see [`Selection`](super::Selection) for what is compared how.
///
/// ```
/// use backup_core::{Condition, Op};
///
/// let condition = Condition::new("/meta/lang", Op::In, ["en", "de"])?
///     .and(!Condition::exists("/deleted_at")?);
/// assert_eq!(condition.to_string(), "/meta/lang in [de, en] and /deleted_at missing");
/// assert_eq!(condition, condition.to_string().parse()?);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Condition {
    /// All of them; with none, `true`.
    All(Vec<Condition>),
    /// At least one of them; with none, `false`.
    Any(Vec<Condition>),
    /// The opposite.
    Not(Box<Condition>),
    /// One field.
    #[serde(untagged)]
    Test(Test),
}

/// A field, how it is compared, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WireTest", into = "WireTest")]
pub struct Test {
    field: Field,
    op: Op,
    value: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTest {
    field: Field,
    op: Op,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    value: Value,
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Op {
    /// It is the value.
    #[serde(rename = "=")]
    Equals,
    /// It is one of the values of a list.
    In,
    /// It comes before the value.
    #[serde(rename = "<")]
    Less,
    /// It is the value or comes before it.
    #[serde(rename = "<=")]
    AtMost,
    /// It comes after the value.
    #[serde(rename = ">")]
    Greater,
    /// It is the value or comes after it.
    #[serde(rename = ">=")]
    AtLeast,
    /// It is a list that has the value, or a text that has it inside.
    Contains,
    /// It is a text that begins with the value.
    StartsWith,
    /// It is there and not `null`.
    Exists,
}

impl Op {
    /// As in an expression.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equals => "=",
            Self::In => "in",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
            Self::Contains => "contains",
            Self::StartsWith => "starts-with",
            Self::Exists => "exists",
        }
    }
}

/// Where a condition looks: a JSON pointer into the record's value, or a name that the
/// collection's [`FieldMapping`] knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Field(String);

/// How the values of a field are compared; [`Selection`](super::Selection) has the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// As moments: `created_at`, `updated_at`.
    Time,
    /// As texts, of a list each item: `project`, `title` and the like.
    Label,
    /// The same, and a text is a list.
    Tags,
    /// As what JSON says: at a pointer, or a name of the host's own.
    Json,
}

impl Field {
    /// A JSON pointer, which begins with `/` or is empty (the whole value), or a name: `project`,
    /// `category`, `tags`, `created_at`, `updated_at`, `title`, `content`, `model`, or one of the
    /// host's own. `tag`, `created` and `updated` are the same as the longer names.
    ///
    /// # Errors
    /// A name with other characters than letters, digits, `_`, `-` and `.`; a pointer in which `~`
    /// is not followed by `0` or `1`.
    pub fn new(text: &str) -> Result<Self> {
        let name = match text {
            "tag" => "tags",
            "created" => "created_at",
            "updated" => "updated_at",
            other => other,
        };
        let what = if name.is_empty() || name.starts_with('/') {
            let escapes = name.split('~').skip(1);
            if escapes.into_iter().all(|rest| rest.starts_with(['0', '1'])) {
                return Ok(Self(name.to_owned()));
            }
            "in a JSON pointer, ~ is written as ~0 and a / within a name as ~1"
        } else if text::is_word(name) {
            return Ok(Self(name.to_owned()));
        } else {
            "a field is a JSON pointer, which begins with /, or the name of one"
        };
        Err(Error::new(ErrorKind::InvalidInput, what).on(text))
    }

    pub(super) fn project() -> Self {
        Self("project".into())
    }
    pub(super) fn category() -> Self {
        Self("category".into())
    }
    pub(super) fn tags() -> Self {
        Self("tags".into())
    }
    pub(super) fn created_at() -> Self {
        Self("created_at".into())
    }
    pub(super) fn updated_at() -> Self {
        Self("updated_at".into())
    }

    /// The pointer or the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The JSON pointer, where the collection with these fields has one.
    #[must_use]
    pub fn pointer<'a>(&'a self, fields: &'a FieldMapping) -> Option<&'a str> {
        if self.0.is_empty() || self.0.starts_with('/') {
            return Some(&self.0);
        }
        fields.get(&self.0)
    }

    /// How its values are compared.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.0.as_str() {
            "created_at" | "updated_at" => Kind::Time,
            "project" | "category" | "title" | "content" | "model" => Kind::Label,
            "tags" => Kind::Tags,
            _ => Kind::Json,
        }
    }
}

impl From<Field> for String {
    fn from(field: Field) -> Self {
        field.0
    }
}

impl TryFrom<String> for Field {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl Test {
    /// Checks that the value is one that the field can be compared with.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): a time that is none, a list where one value is
    /// meant, and the like.
    pub fn new(field: Field, op: Op, value: impl Into<Value>) -> Result<Self> {
        let kind = field.kind();
        let wrong = |what: &str| {
            Err(Error::new(ErrorKind::InvalidInput, what.to_owned()).on(format!(
                "{} {}",
                field.0,
                op.as_str()
            )))
        };
        let value = match (op, value.into()) {
            (Op::Exists, Value::Null) => return Ok(Self { field, op, value: Value::Null }),
            (Op::Exists, _) => return wrong("this takes no value"),
            (Op::In, Value::Array(mut items)) => {
                items = items.into_iter().map(|item| kind.checked(item)).collect::<Result<_>>()?;
                items.sort_by_cached_key(Value::to_string);
                items.dedup();
                Value::Array(items)
            }
            (Op::In, _) => return wrong("this takes a list, such as [a, b]"),
            (Op::Contains | Op::StartsWith, _) if kind == Kind::Time => {
                return wrong("a time is compared with =, <, <=, > or >=");
            }
            (Op::StartsWith, value) if !value.is_string() => return wrong("this takes a text"),
            (Op::Less | Op::AtMost | Op::Greater | Op::AtLeast, value)
                if !value::is_ordered(&value) =>
            {
                return wrong("this takes a number or a text");
            }
            (_, value) => kind.checked(value)?,
        };
        match value {
            Value::Array(mut one) if op == Op::In && one.len() == 1 => {
                Ok(Self { field, op: Op::Equals, value: one.remove(0) })
            }
            value => Ok(Self { field, op, value }),
        }
    }

    /// Where it looks.
    #[must_use]
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// How it compares.
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// With what: a list for [`Op::In`], `null` for [`Op::Exists`].
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }
}

impl Kind {
    // One value of a condition.
    fn checked(self, item: Value) -> Result<Value> {
        let wrong = |what: &str, item: &Value| {
            Err(Error::new(ErrorKind::InvalidInput, what.to_owned()).on(item))
        };
        match (self, item) {
            (Self::Json, item) => Ok(item),
            (Self::Time, item) => match item.as_str().and_then(value::span) {
                Some(_) => Ok(item),
                None => wrong("not a time: write 2026-01-31 or 2026-01-31T12:00:00Z", &item),
            },
            (Self::Label | Self::Tags, Value::Number(number)) => Ok(number.to_string().into()),
            (Self::Label | Self::Tags, item) if item.is_string() => Ok(item),
            (Self::Label | Self::Tags, item) => wrong("this field is compared with a text", &item),
        }
    }
}

impl TryFrom<WireTest> for Test {
    type Error = Error;
    fn try_from(wire: WireTest) -> Result<Self> {
        Self::new(wire.field, wire.op, wire.value)
    }
}

impl From<Test> for WireTest {
    fn from(Test { field, op, value }: Test) -> Self {
        Self { field, op, value }
    }
}

impl Condition {
    /// A test of one field: a JSON pointer or a name, as [`Field::new`] takes it.
    ///
    /// # Errors
    /// As [`Field::new`] and [`Test::new`].
    pub fn new(field: &str, op: Op, value: impl Into<Value>) -> Result<Self> {
        Ok(Self::Test(Test::new(Field::new(field)?, op, value)?))
    }

    /// The field is there and not `null`.
    ///
    /// # Errors
    /// As [`Field::new`].
    pub fn exists(field: &str) -> Result<Self> {
        Self::new(field, Op::Exists, Value::Null)
    }

    /// The field is neither less than `low` nor greater than `high`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn between(field: &str, low: impl Into<Value>, high: impl Into<Value>) -> Result<Self> {
        Ok(Self::new(field, Op::AtLeast, low)?.and(Self::new(field, Op::AtMost, high)?))
    }

    // For fields that hold text.
    pub(super) fn label(field: Field, values: impl IntoIterator<Item = String>) -> Self {
        let values: Vec<_> = values.into_iter().map(Value::from).collect();
        Self::Test(Test::new(field, Op::In, values).expect("texts"))
    }

    pub(super) fn time(field: Field, op: Op, time: Timestamp) -> Self {
        Self::Test(Test { field, op, value: time.to_string().into() })
    }

    /// This and that.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::All(vec![self, other]).canonical()
    }

    /// This or that.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Any(vec![self, other]).canonical()
    }

    /// Without lists in lists of the same kind, lists of one, and double negation.
    #[must_use]
    pub fn canonical(self) -> Self {
        let flat = |items: Vec<Self>, inner: fn(Self) -> Result<Vec<Self>, Self>| {
            let items = items.into_iter().map(Self::canonical);
            items.flat_map(|item| inner(item).unwrap_or_else(|item| vec![item])).collect::<Vec<_>>()
        };
        let (mut items, wrap): (_, fn(_) -> _) = match self {
            Self::All(items) => {
                let inner = |item| if let Self::All(items) = item { Ok(items) } else { Err(item) };
                (flat(items, inner), Self::All)
            }
            Self::Any(items) => {
                let inner = |item| if let Self::Any(items) = item { Ok(items) } else { Err(item) };
                (flat(items, inner), Self::Any)
            }
            Self::Not(inner) => {
                return match inner.canonical() {
                    Self::Not(inner) => *inner,
                    other => Self::Not(Box::new(other)),
                };
            }
            Self::Test(test) => return Self::Test(test),
        };
        if items.len() == 1 { items.remove(0) } else { wrap(items) }
    }

    // Every test, from the left to the right.
    pub(super) fn visit<'c>(&'c self, see: &mut impl FnMut(&'c Test)) {
        match self {
            Self::All(items) | Self::Any(items) => {
                for item in items {
                    item.visit(see);
                }
            }
            Self::Not(inner) => inner.visit(see),
            Self::Test(test) => see(test),
        }
    }

    /// What all have to hold for this to hold.
    pub(super) fn conjuncts(&self) -> &[Self] {
        match self {
            Self::All(items) => items,
            other => std::slice::from_ref(other),
        }
    }

    pub(super) fn is_mapped(&self, fields: &FieldMapping) -> bool {
        let mut mapped = true;
        self.visit(&mut |test| mapped &= test.field.pointer(fields).is_some());
        mapped
    }
}

impl Not for Condition {
    type Output = Self;
    fn not(self) -> Self {
        Self::Not(Box::new(self)).canonical()
    }
}

impl FromStr for Condition {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text::condition(text)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::write_condition(f, self)
    }
}

// Canonical text, for values that came from JSON and so have one.
pub(super) fn json_text(value: &Value) -> String {
    let mut out = Vec::new();
    match canonical::Writer::new(&mut out).value(value) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => value.to_string(),
    }
}
