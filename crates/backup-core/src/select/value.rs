//! How values are compared.

use std::cmp::Ordering;

use jiff::{Timestamp, ToSpan as _, civil, tz::TimeZone};
use serde_json::Value;

use crate::record::tagged::{self, Scalar};

/// Whether two values are the same; numbers by what they are worth.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (tagged::scalar(a), tagged::scalar(b)) {
        (Some(a), Some(b)) => compare(&a, &b).map_or_else(|| a == b, Ordering::is_eq),
        (None, None) => match (a, b) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Which of two numbers or two texts comes first.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    compare(&tagged::scalar(a)?, &tagged::scalar(b)?)
}

pub(super) fn is_ordered(value: &Value) -> bool {
    let scalar = tagged::scalar(value);
    matches!(scalar, Some(Scalar::Integer(_) | Scalar::Float(_) | Scalar::Text(_)))
}

fn compare(a: &Scalar, b: &Scalar) -> Option<Ordering> {
    match (a, b) {
        (Scalar::Text(a), Scalar::Text(b)) => Some(a.cmp(b)),
        (Scalar::Integer(a), Scalar::Integer(b)) => Some(a.cmp(b)),
        (Scalar::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
        (Scalar::Integer(a), Scalar::Float(b)) => compare_mixed(*a, *b),
        (Scalar::Float(a), Scalar::Integer(b)) => compare_mixed(*b, *a).map(Ordering::reverse),
        _ => None,
    }
}

// Exact: an integer that a float would round is compared as the integer that it is.
fn compare_mixed(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // The conversion saturates, and no integer of a record is that large.
    let whole = a.cmp(&(b.trunc() as i128));
    Some(whole.then_with(|| 0.0.partial_cmp(&b.fract()).unwrap_or(Ordering::Equal)))
}

/// What a text field says: a number by its digits.
pub(super) fn label(value: &Value) -> Option<String> {
    match tagged::scalar(value)? {
        Scalar::Text(text) => Some(text),
        Scalar::Integer(number) => Some(number.to_string()),
        Scalar::Bool(flag) => Some(flag.to_string()),
        Scalar::Float(_) => Some(value.to_string()),
        Scalar::Null | Scalar::Bytes(_) => None,
    }
}

/// The items of a list that stands in a text: a JSON list, or words between commas.
pub(super) fn items(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => items,
        _ => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(Value::from).collect()
        }
    }
}

/// The first and the last moment that a condition's text means: of a date, the whole day.
pub(super) fn span(text: &str) -> Option<(Timestamp, Timestamp)> {
    if text.contains(['T', 't', ' ', ':']) {
        let time = moment(text)?;
        return Some((time, time));
    }
    let day: civil::Date = text.parse().ok()?;
    let start = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let last = start.checked_add(24.hours()).ok()?.checked_sub(1.nanosecond()).ok()?;
    Some((start, last))
}

/// The moment that a record's value means.
pub(crate) fn time(value: &Value) -> Option<Timestamp> {
    match tagged::scalar(value) {
        Some(Scalar::Text(text)) => moment(&text),
        Some(Scalar::Integer(number)) => {
            let unit = unit(number as f64);
            Timestamp::from_nanosecond(number.checked_mul(unit)?).ok()
        }
        Some(Scalar::Float(number)) => {
            let nanos = number * unit(number) as f64;
            let known = nanos.is_finite().then_some(nanos as i128)?;
            Timestamp::from_nanosecond(known).ok()
        }
        // The dates of other engines, tagged.
        None => moment(value.get("_value")?.as_str()?),
        _ => None,
    }
}

// Nanoseconds in the unit in which a number of this size counts.
fn unit(number: f64) -> i128 {
    match number.abs() {
        n if n < 1e11 => 1_000_000_000,
        n if n < 1e14 => 1_000_000,
        n if n < 1e17 => 1_000,
        _ => 1,
    }
}

fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    // A zone without an offset would need the zones' rules.
    if text.contains('[') {
        return None;
    }
    let local: civil::DateTime = text.parse().ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}
