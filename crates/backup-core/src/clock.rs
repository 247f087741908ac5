//! Times and identities, injectable so that runs can be repeated.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, de::Error as _};

use crate::error::{Error, ErrorKind, Result};

/// A moment in microseconds since 1970, UTC; prints and reads as RFC 3339.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds from this time to a later one; 0 where that one is earlier.
    #[must_use]
    pub fn seconds_until(self, later: Self) -> f64 {
        later.0.saturating_sub(self.0).max(0) as f64 / 1e6
    }

    /// Now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// A form for file names, in order of time: `20260102T030405Z`.
    #[must_use]
    pub fn compact(self) -> String {
        self.to_string()
            .chars()
            .filter(|c| !matches!(c, '-' | ':'))
            .take_while(|c| !matches!(c, '.' | 'Z'))
            .chain(['Z'])
            .collect()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let time: jiff::Timestamp = text.parse().map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "not a time in RFC 3339").on(text).because(e)
        })?;
        Ok(Self(time.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The identity of an archive: a UUID, of version 7 where this library made it, so that
/// identities sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveId([u8; 16]);

impl ArchiveId {
    /// From the 16 bytes of a UUID.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(*uuid::Uuid::now_v7().as_bytes())
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ArchiveId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        uuid::Uuid::try_parse(text).map(|id| Self(id.into_bytes())).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "not an archive's id").on(text).because(e)
        })
    }
}

impl Serialize for ArchiveId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ArchiveId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Where times and identities come from.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// A new identity.
    fn new_id(&self) -> ArchiveId;
}

/// The system's clock and random identities.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn new_id(&self) -> ArchiveId {
        ArchiveId::random()
    }
}

/// A clock that stands still: for repeatable archives and tests.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock {
    /// What [`Clock::now`] returns.
    pub time: Timestamp,
    /// What [`Clock::new_id`] returns.
    pub id: ArchiveId,
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.time
    }
    fn new_id(&self) -> ArchiveId {
        self.id
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
    fn new_id(&self) -> ArchiveId {
        (**self).new_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ids_read_back() {
        let time = Timestamp::from_micros(1_735_689_600_000_001);
        assert_eq!(time.to_string(), "2025-01-01T00:00:00.000001Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert_eq!(time.compact(), "20250101T000000Z");
        let id = ArchiveId::random();
        assert_eq!(id.to_string().parse::<ArchiveId>().unwrap(), id);
        assert!(ArchiveId::random() > id);
    }
}
