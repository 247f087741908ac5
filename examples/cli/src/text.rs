//! How results look to people: sizes, counts, times, tables.

use std::fmt::Write as _;

use backup_kit::Timestamp;

/// Bytes in binary units, three digits: `1.23 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024 takes the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number with thin groups: `12 345`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `n` things: `1 record`, `2 records`.
pub(crate) fn things(n: u64, one: &str) -> String {
    let plural = match one.strip_suffix('y') {
        Some(stem) if n != 1 => format!("{stem}ies"),
        None if n != 1 => format!("{one}s"),
        _ => one.to_owned(),
    };
    format!("{} {plural}", count(n))
}

/// To the second, in UTC: `2026-01-02 03:04:05`.
pub(crate) fn time(time: Timestamp) -> String {
    let text = time.to_string();
    let text = text.split(['.', 'Z']).next().unwrap_or(&text);
    text.replacen('T', " ", 1)
}

/// How long: `0.42 s`, `7.3 s`, `2 min 05 s`.
pub(crate) fn duration(micros: i64) -> String {
    let seconds = micros.max(0) as f64 / 1e6;
    if seconds < 1.0 {
        format!("{seconds:.2} s")
    } else if seconds < 99.95 {
        format!("{seconds:.1} s")
    } else {
        let seconds = seconds.round() as u64;
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

/// Text from a store or an archive, made safe for a terminal: control characters are escaped.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional overrides could make a path look like another one.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Where the cells of a column stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows in aligned columns.
pub(crate) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
    head: bool,
}

impl Table {
    /// A table without a head.
    pub(crate) fn bare(sides: &[Side]) -> Self {
        Self { sides: sides.to_vec(), rows: Vec::new(), head: false }
    }

    /// A table with a head.
    pub(crate) fn new(columns: &[(&str, Side)]) -> Self {
        let mut table = Self::bare(&columns.iter().map(|(_, side)| *side).collect::<Vec<_>>());
        table.rows.push(columns.iter().map(|(name, _)| (*name).to_owned()).collect());
        table.head = true;
        table
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.sides.len());
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// The lines, each after `indent`; columns that are empty throughout are left out.
    pub(crate) fn render(&self, indent: &str, style: Style) -> String {
        let body = &self.rows[usize::from(self.head)..];
        let shown: Vec<usize> = (0..self.sides.len())
            .filter(|i| body.is_empty() || body.iter().any(|row| !row[*i].is_empty()))
            .collect();
        let width = |i: usize| self.rows.iter().map(|row| row[i].chars().count()).max();
        let widths: Vec<usize> = shown.iter().map(|i| width(*i).unwrap_or(0)).collect();
        let mut out = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (i, width) in shown.iter().zip(&widths) {
                let pad = " ".repeat(width - row[*i].chars().count());
                let (before, after) = match self.sides[*i] {
                    Side::Left => ("", pad.as_str()),
                    Side::Right => (pad.as_str(), ""),
                };
                let _ = write!(line, "{before}{}{after}  ", row[*i]);
            }
            let line = line.trim_end();
            let line = if self.head && number == 0 { style.dim(line) } else { line.to_owned() };
            let _ = writeln!(out, "{indent}{line}");
        }
        out
    }
}

/// Colour, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }
    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_239, "10.0 KiB"),
            (102_399, "100 KiB"),
            (1_048_575, "1.00 MiB"),
            (2_375_000, "2.26 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(things(1, "record"), "1 record");
        assert_eq!(things(1000, "record"), "1 000 records");
        assert_eq!(things(2, "entry"), "2 entries");
        assert_eq!(time(Timestamp::from_micros(1_735_689_600_123_456)), "2025-01-01 00:00:00");
        assert_eq!(duration(421_000), "0.42 s");
        assert_eq!(duration(125_000_000), "2 min 05 s");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n\u{202e}é"), "a\\u{1b}[2Jb\\n\\u{202e}é");
    }

    #[test]
    fn columns_align_and_empty_ones_go() {
        let mut table =
            Table::new(&[("name", Side::Left), ("model", Side::Left), ("size", Side::Right)]);
        table.row(["a".into(), String::new(), "1 B".into()]);
        table.row(["längeres".into(), String::new(), "1.00 KiB".into()]);
        assert_eq!(
            table.render("  ", Style::default()),
            "  name          size\n  a              1 B\n  längeres  1.00 KiB\n"
        );
    }
}
