//! The values of properties: as the server sends them, and as they stand in records.
//!
//! What JSON has stands as JSON; integers beyond 2^53, NaN, infinities and bytes are tagged as
//! everywhere in an archive. The rest follows Neo4j's typed JSON:
//!
//! | `$type` | `_value`, for instance |
//! |---|---|
//! | `Date` | `2015-03-26` |
//! | `Time`, `LocalTime` | `12:50:35.556+01:00`, `12:50:35.556` |
//! | `LocalDateTime` | `2015-11-21T21:40:32.142` |
//! | `OffsetDateTime` | `2015-11-21T21:40:32.142+01:00` |
//! | `ZonedDateTime` | `2015-11-21T20:40:32.142Z[Europe/Berlin]`: the time in UTC, and the zone |
//! | `Duration` | `P14M3DT-5.000000001S` |
//! | `Point` | `SRID=7203;POINT(1.0 2.0)`, `SRID=4979;POINT Z(12.9 55.6 7.0)` |
//! | `Vector` | `FLOAT32[1.0,2.5]`, `INT8[1,-2]` |
//!
//! Fractions of seconds have as many digits as they need. A year has four digits, or a sign and
//! more. A duration is months, days and seconds, each of its own sign.

mod json;
mod text;

use bytes::Bytes;

pub(crate) use json::{WriteJson, text};

/// A value of a property, or a map of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
    List(Vec<Value>),
    /// In the order of the names' bytes.
    Map(Vec<(String, Value)>),
    /// Days since 1970.
    Date(i64),
    /// Nanoseconds since midnight, and seconds east of UTC.
    Time(i64, i32),
    LocalTime(i64),
    LocalDateTime(Moment),
    /// In UTC, and seconds east of it.
    OffsetDateTime(Moment, i32),
    /// In UTC, and the zone. So it needs no table of zones to be exact.
    ZonedDateTime(Moment, String),
    /// Months, days, seconds, nanoseconds.
    Duration([i64; 4]),
    /// Reference system and coordinates.
    Point(i64, [f64; 2]),
    Point3D(i64, [f64; 3]),
    /// Bolt's byte for the type of its elements, and these, the most significant byte first.
    Vector(u8, Bytes),
}

/// Seconds since 1970 and nanoseconds, of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

impl Value {
    /// A member of a map.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Map(members) = self else { return None };
        let at = members.binary_search_by(|member| member.0.as_str().cmp(name)).ok()?;
        Some(&members[at].1)
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of texts; none where it is null.
    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Null => Some(Vec::new()),
            Self::List(items) => {
                items.iter().map(|item| item.as_text().map(str::to_owned)).collect()
            }
            _ => None,
        }
    }

    /// The texts of a list.
    pub(crate) fn into_texts(self) -> Vec<String> {
        let Self::List(items) = self else { return Vec::new() };
        let text = |item| match item {
            Self::Text(text) => Some(text),
            _ => None,
        };
        items.into_iter().filter_map(text).collect()
    }

    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}
