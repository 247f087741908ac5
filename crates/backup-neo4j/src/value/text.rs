//! Dates, times, durations and points as text, and back.

use std::fmt::Write;

use backup_core::record::canonical::Writer;

use super::{Moment, Value};

const DAY: i64 = 86_400;
const BILLION: i64 = 1_000_000_000;

impl Value {
    /// The text and the name of the type, of what is carried as tagged text.
    pub(super) fn tagged(&self) -> Option<(&'static str, String)> {
        let name = match self {
            Self::Date(_) => "Date",
            Self::Time(..) => "Time",
            Self::LocalTime(_) => "LocalTime",
            Self::LocalDateTime(_) => "LocalDateTime",
            Self::OffsetDateTime(..) => "OffsetDateTime",
            Self::ZonedDateTime(..) => "ZonedDateTime",
            Self::Duration(_) => "Duration",
            Self::Point(..) | Self::Point3D(..) => "Point",
            Self::Vector(..) => "Vector",
            _ => return None,
        };
        Some((name, self.text()?))
    }

    /// The text of what is carried as tagged text, as the server reads it, too.
    pub(crate) fn text(&self) -> Option<String> {
        let mut out = String::with_capacity(40);
        match self {
            Self::Date(days) => date(&mut out, *days),
            Self::Time(nanos, east) => {
                time(&mut out, *nanos);
                offset(&mut out, *east);
            }
            Self::LocalTime(nanos) => time(&mut out, *nanos),
            Self::LocalDateTime(moment) => date_time(&mut out, *moment),
            Self::OffsetDateTime(moment, east) => {
                date_time(&mut out, moment.later(i64::from(*east)));
                offset(&mut out, *east);
            }
            Self::ZonedDateTime(moment, zone) => {
                date_time(&mut out, *moment);
                let _ = write!(out, "Z[{zone}]");
            }
            Self::Duration(parts) => duration(&mut out, *parts),
            Self::Point(srid, coordinates) => point(&mut out, *srid, "POINT", coordinates),
            Self::Point3D(srid, coordinates) => point(&mut out, *srid, "POINT Z", coordinates),
            Self::Vector(kind, data) => vector(&mut out, *kind, data)?,
            _ => return None,
        }
        Some(out)
    }

    /// Reads what [`tagged`](Self::tagged) gives.
    pub(super) fn from_tagged(name: &str, text: &str) -> Option<Self> {
        let mut left = text;
        let value = match name {
            "Date" => Self::Date(read_date(&mut left)?),
            "Time" => Self::Time(read_time(&mut left)?, read_offset(&mut left)?),
            "LocalTime" => Self::LocalTime(read_time(&mut left)?),
            "LocalDateTime" => Self::LocalDateTime(read_date_time(&mut left)?),
            "OffsetDateTime" => {
                let (clock, east) = (read_date_time(&mut left)?, read_offset(&mut left)?);
                Self::OffsetDateTime(clock.later(-i64::from(east)), east)
            }
            "ZonedDateTime" => {
                let moment = read_date_time(&mut left)?;
                let zone = left.strip_prefix("Z[")?.strip_suffix(']')?;
                left = "";
                Self::ZonedDateTime(moment, zone.to_owned())
            }
            "Duration" => Self::Duration(read_duration(&mut left)?),
            "Point" => read_point(&mut left)?,
            "Vector" => read_vector(&mut left)?,
            _ => return None,
        };
        left.is_empty().then_some(value)
    }
}

impl Moment {
    fn later(self, seconds: i64) -> Self {
        Self { seconds: self.seconds.saturating_add(seconds), nanos: self.nanos }
    }
}

/// The day that a number of days since 1970 is: year, month, day of a month.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that a leap day is the last of its year; an era has 400 years.
    let days = i128::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    ((year + i128::from(month <= 2)) as i64, month as i64, day as i64)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date(out: &mut String, days: i64) {
    let (year, month, day) = civil(days);
    let _ = match year {
        0..=9999 => write!(out, "{year:04}"),
        -9999..=-1 => write!(out, "-{:04}", -year),
        _ => write!(out, "{year:+}"),
    };
    let _ = write!(out, "-{month:02}-{day:02}");
}

fn time(out: &mut String, nanos: i64) {
    let (seconds, nanos) = (nanos / BILLION, nanos % BILLION);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    fraction(out, nanos);
}

fn fraction(out: &mut String, nanos: i64) {
    if nanos != 0 {
        let digits = format!("{nanos:09}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

fn date_time(out: &mut String, moment: Moment) {
    date(out, moment.seconds.div_euclid(DAY));
    out.push('T');
    time(out, moment.seconds.rem_euclid(DAY) * BILLION + i64::from(moment.nanos));
}

fn offset(out: &mut String, east: i32) {
    if east == 0 {
        out.push('Z');
        return;
    }
    let sign = if east < 0 { '-' } else { '+' };
    let east = east.abs();
    let _ = write!(out, "{sign}{:02}:{:02}", east / 3600, east / 60 % 60);
    if east % 60 != 0 {
        let _ = write!(out, ":{:02}", east % 60);
    }
}

fn duration(out: &mut String, [months, days, seconds, nanos]: [i64; 4]) {
    let _ = write!(out, "P{months}M{days}DT");
    // The server counts nanoseconds upwards from the second below: −1.5 s is −2 s and 500 ms.
    let total = i128::from(seconds) * i128::from(BILLION) + i128::from(nanos);
    if total < 0 {
        out.push('-');
    }
    let (whole, nanos) = (total.abs() / i128::from(BILLION), total.abs() % i128::from(BILLION));
    let _ = write!(out, "{whole}");
    fraction(out, nanos as i64);
    out.push('S');
}

fn point(out: &mut String, srid: i64, name: &str, coordinates: &[f64]) {
    let _ = write!(out, "SRID={srid};{name}(");
    for (at, coordinate) in coordinates.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        number(out, *coordinate);
    }
    out.push(')');
}

fn number(out: &mut String, value: f64) {
    if value.is_finite() {
        let mut digits = Vec::with_capacity(24);
        Writer::new(&mut digits).float(value);
        out.push_str(&String::from_utf8_lossy(&digits));
    } else if value.is_nan() {
        out.push_str("NaN");
    } else {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
}

/// Types of a vector's elements: Bolt's byte, the name, the bytes of one.
const ELEMENTS: [(u8, &str, usize); 6] = [
    (0xc8, "INT8", 1),
    (0xc9, "INT16", 2),
    (0xca, "INT32", 4),
    (0xcb, "INT64", 8),
    (0xc6, "FLOAT32", 4),
    (0xc1, "FLOAT64", 8),
];

fn vector(out: &mut String, kind: u8, data: &[u8]) -> Option<()> {
    let (_, name, size) = ELEMENTS.iter().find(|element| element.0 == kind)?;
    let _ = write!(out, "{name}[");
    for (at, bytes) in data.chunks(*size).enumerate() {
        if at > 0 {
            out.push(',');
        }
        match kind {
            // The shortest digits of the float itself, not of the double that it becomes.
            0xc6 => {
                let value = f32::from_be_bytes(bytes.try_into().ok()?);
                if value.is_finite() {
                    let _ = write!(out, "{value:?}");
                } else {
                    number(out, value.into());
                }
            }
            0xc1 => number(out, f64::from_be_bytes(bytes.try_into().ok()?)),
            _ => {
                let sign = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
                let mut wide = [sign; 8];
                wide[8 - bytes.len()..].copy_from_slice(bytes);
                let _ = write!(out, "{}", i64::from_be_bytes(wide));
            }
        }
    }
    out.push(']');
    Some(())
}

fn read_vector(left: &mut &str) -> Option<Value> {
    let name = take(left, |c| c.is_ascii_alphanumeric())?;
    let (kind, _, size) = *ELEMENTS.iter().find(|element| element.1 == name)?;
    let inner = left.strip_prefix('[')?.strip_suffix(']')?;
    *left = "";
    let mut data = Vec::new();
    for item in inner.split(',').filter(|item| !item.is_empty()) {
        match kind {
            0xc6 => data.extend_from_slice(&item.parse::<f32>().ok()?.to_be_bytes()),
            0xc1 => data.extend_from_slice(&item.parse::<f64>().ok()?.to_be_bytes()),
            _ => {
                let wide = item.parse::<i64>().ok()?;
                let bits = 64 - 8 * size as u32;
                if (wide << bits) >> bits != wide {
                    return None;
                }
                data.extend_from_slice(&wide.to_be_bytes()[8 - size..]);
            }
        }
    }
    Some(Value::Vector(kind, data.into()))
}

/// Takes `literal` from the front.
fn eat(left: &mut &str, literal: &str) -> Option<()> {
    *left = left.strip_prefix(literal)?;
    Some(())
}

/// Takes what `accept` accepts from the front: at least one character.
fn take<'a>(left: &mut &'a str, accept: impl Fn(char) -> bool) -> Option<&'a str> {
    let end = left.find(|c| !accept(c)).unwrap_or(left.len());
    let (taken, rest) = left.split_at(end);
    *left = rest;
    (!taken.is_empty()).then_some(taken)
}

fn two(left: &mut &str, below: i64) -> Option<i64> {
    let (digits, rest) = (left.get(..2)?, left.get(2..)?);
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    *left = rest;
    (number < below).then_some(number)
}

fn read_date(left: &mut &str) -> Option<i64> {
    let sign = if eat(left, "-").is_some() {
        -1
    } else {
        let _ = eat(left, "+");
        1
    };
    let digits = take(left, |c| c.is_ascii_digit())?;
    let year: i64 = digits.parse().ok().filter(|year| (0..=999_999_999).contains(year))?;
    if digits.len() < 4 {
        return None;
    }
    eat(left, "-")?;
    let month = two(left, 13).filter(|month| *month > 0)?;
    eat(left, "-")?;
    let day = two(left, 32).filter(|day| *day > 0)?;
    let days = days(sign * year, month, day);
    // The 31st of February is none.
    (civil(days) == (sign * year, month, day)).then_some(days)
}

fn read_time(left: &mut &str) -> Option<i64> {
    let hours = two(left, 24)?;
    eat(left, ":")?;
    let minutes = two(left, 60)?;
    eat(left, ":")?;
    let seconds = two(left, 60)?;
    let nanos = read_fraction(left)?;
    Some((hours * 3600 + minutes * 60 + seconds) * BILLION + nanos)
}

fn read_fraction(left: &mut &str) -> Option<i64> {
    if eat(left, ".").is_none() {
        return Some(0);
    }
    let digits = take(left, |c| c.is_ascii_digit()).filter(|digits| digits.len() <= 9)?;
    format!("{digits:0<9}").parse().ok()
}

fn read_date_time(left: &mut &str) -> Option<Moment> {
    let days = read_date(left)?;
    eat(left, "T")?;
    let time = read_time(left)?;
    Some(Moment { seconds: days * DAY + time / BILLION, nanos: (time % BILLION) as u32 })
}

fn read_offset(left: &mut &str) -> Option<i32> {
    if eat(left, "Z").is_some() {
        return Some(0);
    }
    let sign = if eat(left, "-").is_some() { -1 } else { eat(left, "+").map(|()| 1)? };
    let hours = two(left, 19)?;
    eat(left, ":")?;
    let minutes = two(left, 60)?;
    let seconds = if eat(left, ":").is_some() { two(left, 60)? } else { 0 };
    i32::try_from(sign * (hours * 3600 + minutes * 60 + seconds)).ok()
}

fn read_duration(left: &mut &str) -> Option<[i64; 4]> {
    let number = |left: &mut &str, unit: &str| {
        let digits = take(left, |c| c.is_ascii_digit() || c == '-')?.parse::<i64>().ok()?;
        eat(left, unit).map(|()| digits)
    };
    eat(left, "P")?;
    let months = number(left, "M")?;
    let days = number(left, "D")?;
    eat(left, "T")?;
    let negative = eat(left, "-").is_some();
    let whole: i128 = take(left, |c| c.is_ascii_digit())?.parse().ok()?;
    let nanos = read_fraction(left)?;
    eat(left, "S")?;
    let total = whole.checked_mul(BILLION.into())? + i128::from(nanos);
    let total = if negative { -total } else { total };
    let seconds = i64::try_from(total.div_euclid(BILLION.into())).ok()?;
    Some([months, days, seconds, total.rem_euclid(BILLION.into()) as i64])
}

fn read_point(left: &mut &str) -> Option<Value> {
    eat(left, "SRID=")?;
    let srid = take(left, |c| c.is_ascii_digit())?.parse().ok()?;
    eat(left, ";POINT")?;
    let deep = eat(left, " Z").is_some();
    let inner = left.strip_prefix('(')?.strip_suffix(')')?;
    *left = "";
    let numbers = inner.split(' ').map(|c| c.parse::<f64>().ok()).collect::<Option<Vec<_>>>()?;
    match (numbers.as_slice(), deep) {
        ([x, y], false) => Some(Value::Point(srid, [*x, *y])),
        ([x, y, z], true) => Some(Value::Point3D(srid, [*x, *y, *z])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_those_of_the_server() {
        let moment = |seconds, nanos| Moment { seconds, nanos };
        for (value, name, text) in [
            (Value::Date(0), "Date", "1970-01-01"),
            (Value::Date(-719_528), "Date", "0000-01-01"),
            (Value::Date(-719_529), "Date", "-0001-12-31"),
            (Value::Date(365_241_780_471), "Date", "+999999999-12-31"),
            (Value::Date(-365_243_219_162), "Date", "-999999999-01-01"),
            (Value::LocalTime(45_035_556_000_000), "LocalTime", "12:30:35.556"),
            (Value::Time(0, -64_800), "Time", "00:00:00-18:00"),
            (
                Value::OffsetDateTime(moment(951_782_400 - 3601, 1), 3601),
                "OffsetDateTime",
                "2000-02-29T00:00:00.000000001+01:00:01",
            ),
            (Value::LocalDateTime(moment(-1, 0)), "LocalDateTime", "1969-12-31T23:59:59"),
            (
                Value::ZonedDateTime(moment(1_445_733_000, 0), "Europe/London".to_owned()),
                "ZonedDateTime",
                "2015-10-25T00:30:00Z[Europe/London]",
            ),
            (Value::Duration([14, -3, -2, 500_000_000]), "Duration", "P14M-3DT-1.5S"),
            (Value::Duration([0; 4]), "Duration", "P0M0DT0S"),
            (Value::Point(7203, [1.0, -0.0]), "Point", "SRID=7203;POINT(1.0 -0.0)"),
            (
                Value::Point3D(9157, [1e300, f64::INFINITY, 0.5]),
                "Point",
                "SRID=9157;POINT Z(1e300 Infinity 0.5)",
            ),
            (Value::Vector(0xc8, vec![1, 0xfe].into()), "Vector", "INT8[1,-2]"),
            (
                Value::Vector(0xc6, [0.1_f32, -2.0].map(f32::to_be_bytes).concat().into()),
                "Vector",
                "FLOAT32[0.1,-2.0]",
            ),
            (Value::Vector(0xc1, Vec::new().into()), "Vector", "FLOAT64[]"),
        ] {
            assert_eq!(value.tagged(), Some((name, text.to_owned())));
            assert_eq!(Value::from_tagged(name, text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for (name, text) in [
            ("Date", "2015-02-29"),
            ("Date", "2015-13-01"),
            ("Date", "15-01-01"),
            ("Date", "2015-01-01x"),
            ("Date", "9999999999-01-01"),
            ("LocalTime", "24:00:00"),
            ("Time", "00:00:00"),
            ("Duration", "P1M"),
            ("Duration", "P0M0DT99999999999999999999S"),
            ("Point", "SRID=1;POINT(1.0)"),
            ("ZonedDateTime", "2015-01-01T00:00:00[x"),
            ("Vector", "INT8[128]"),
            ("Vector", "INT9[1]"),
            ("Unheard", "1"),
            ("Time", "00:00:00+é"),
        ] {
            assert_eq!(Value::from_tagged(name, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_day_comes_back(days in -365_243_219_162_i64..=365_241_780_471) {
            let value = Value::Date(days);
            prop_assert_eq!(Value::from_tagged("Date", &value.text().unwrap()), Some(value));
        }

        #[test]
        fn any_moment_comes_back(
            seconds in -31_557_014_135_596_799_i64..31_556_889_832_780_799,
            nanos in 0_u32..1_000_000_000,
            east in -64_800_i32..=64_800,
        ) {
            let value = Value::OffsetDateTime(Moment { seconds, nanos }, east);
            let text = value.text().unwrap();
            prop_assert_eq!(Value::from_tagged("OffsetDateTime", &text), Some(value));
        }

        #[test]
        fn any_duration_comes_back(months: i64, days: i64, seconds: i64, nanos in 0_i64..1_000_000_000) {
            let value = Value::Duration([months, days, seconds, nanos]);
            let text = value.text().unwrap();
            prop_assert_eq!(Value::from_tagged("Duration", &text), Some(value));
        }

        #[test]
        fn no_text_is_too_odd(name in "Date|Time|LocalTime|Duration|Point|ZonedDateTime|Vector", text: String) {
            let _ = Value::from_tagged(&name, &text);
        }
    }
}
