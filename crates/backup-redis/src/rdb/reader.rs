//! The file's outer form: header, facts, databases, keys, checksum.

use std::io::Read;

use backup_core::{Error, ErrorKind, Result};

use super::{
    event::{Event, Key, Kind},
    input::{CRC, Input},
    string::Text,
    value::Value,
};

/// The newest version of Redis's own that is known: of Redis 8.2.
const NEWEST_REDIS: u32 = 12;
/// The only one of Valkey's own, of Valkey 9.0. Valkey 7 and 8 write Redis's version 11.
const VALKEY: u32 = 80;

/// Longest element that is held whole: as long as a server takes by default.
pub(crate) const LONGEST_ELEMENT: u64 = 512 << 20;

/// Reads an RDB, one [`Event`] after another.
pub(crate) struct Reader<R> {
    input: Input<R>,
    /// Bytes of each piece of a string.
    piece: usize,
    header: Option<Header>,
    database: u32,
    value: Option<Value>,
    done: bool,
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) valkey: bool,
}

impl<R: Read> Reader<R> {
    /// Strings come in pieces of `piece` bytes.
    pub(crate) fn new(inner: R, piece: usize) -> Self {
        Self {
            input: Input::new(inner, LONGEST_ELEMENT),
            piece: piece.max(1),
            header: None,
            database: 0,
            value: None,
            done: false,
        }
    }

    /// The next event; `None` behind the checksum, which then has been compared.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt): a snapshot that is cut or damaged.
    /// [`UnknownVersion`](ErrorKind::UnknownVersion): one of a newer server.
    /// [`LimitExceeded`](ErrorKind::LimitExceeded): an element that is longer than a server
    /// takes. After an error the reader gives no more.
    pub(crate) fn next(&mut self) -> Result<Option<Event>> {
        if self.done {
            return Ok(None);
        }
        let event = self.step();
        self.done = !matches!(event, Ok(Some(_)));
        event
    }

    /// Refuses what stands behind the end.
    pub(super) fn at_end(&mut self) -> Result<()> {
        if self.input.is_over()? {
            return Ok(());
        }
        Err(self.input.corrupt("something stands behind the end of a snapshot"))
    }

    fn step(&mut self) -> Result<Option<Event>> {
        let header = match self.header {
            Some(header) => header,
            None => *self.header.insert(header(&mut self.input)?),
        };
        if let Some(value) = &mut self.value {
            let event = value.next(&mut self.input, self.piece)?;
            if event == Event::End {
                self.value = None;
            }
            return Ok(Some(event));
        }
        let mut expires_at = None;
        loop {
            match self.input.byte()? {
                // How long it was not used, or how often: not carried, as no other form has it.
                248 => drop(self.input.len()?),
                249 => drop(self.input.byte()?),
                252 => expires_at = Some(self.input.time()?),
                253 => {
                    expires_at = Some(i64::from(i32::from_le_bytes(self.input.array()?)) * 1000);
                }
                kind if kind < 242 => return self.key(header, kind, expires_at).map(Some),
                _ if expires_at.is_some() => {
                    return Err(self.input.corrupt("an expiry stands before what is no key"));
                }
                244 => (0..3).try_for_each(|_| self.input.len().map(drop))?,
                245 => {
                    self.input.skip_string()?;
                    return Ok(Some(Event::Function));
                }
                247 => self.module_aux()?,
                250 => {
                    (0..2).try_for_each(|_| self.input.skip_string())?;
                    return Ok(Some(Event::Aux));
                }
                251 => (0..2).try_for_each(|_| self.input.len().map(drop))?,
                254 => {
                    let number = self.input.len()?;
                    self.database = u32::try_from(number)
                        .map_err(|_| self.input.corrupt("a database has too large a number"))?;
                }
                255 => return self.end(header).map(|()| None),
                other => return Err(unknown(&self.input, "an instruction", other)),
            }
        }
    }

    fn end(&mut self, header: Header) -> Result<()> {
        if header.version < 5 {
            return Ok(());
        }
        let computed = self.input.checksum();
        let said = u64::from_le_bytes(self.input.array()?);
        // Zero: the server does not compute it.
        if said != 0 && said != computed {
            return Err(self.input.corrupt("the checksum of a snapshot is wrong"));
        }
        Ok(())
    }

    fn key(&mut self, header: Header, kind: u8, expires_at: Option<i64>) -> Result<Event> {
        let key = self.input.string()?;
        let database = self.database;
        if kind == 7 {
            return self.module(header, key, expires_at);
        }
        let (kind, value) = if kind == 0 {
            let text = Text::begin(&mut self.input)?;
            (Kind::String(text.len()), Value::Text { text, empty: true })
        } else {
            let begun = Value::begin(&mut self.input, header, kind)?;
            begun.ok_or_else(|| unknown(&self.input, "a value", kind))?
        };
        self.value = Some(value);
        Ok(Event::Key(Key { database, key, expires_at, kind }))
    }

    /// A module's value is kept as it is: only the module knows what it means.
    fn module(&mut self, header: Header, key: Vec<u8>, expires_at: Option<i64>) -> Result<Event> {
        self.input.keep(7);
        let name = module_name(self.input.len()?);
        self.module_items()?;
        let mut payload = self.input.kept();
        payload.extend_from_slice(&(header.version as u16).to_le_bytes());
        let sum = CRC.checksum(&payload);
        payload.extend_from_slice(&sum.to_le_bytes());
        self.value = Some(Value::Dump(payload));
        Ok(Event::Key(Key { database: self.database, key, expires_at, kind: Kind::Module(name) }))
    }

    /// What a module keeps beside its keys: passed over, since no other form has it.
    fn module_aux(&mut self) -> Result<()> {
        self.input.len()?;
        self.module_items()
    }

    fn module_items(&mut self) -> Result<()> {
        loop {
            match self.input.len()? {
                0 => return Ok(()),
                1 | 2 => drop(self.input.len()?),
                3 => drop(self.input.array::<4>()?),
                4 => drop(self.input.array::<8>()?),
                5 => self.input.skip_string()?,
                _ => return Err(self.input.corrupt("a module's value has an unknown item")),
            }
        }
    }
}

fn header<R: Read>(input: &mut Input<R>) -> Result<Header> {
    let first: [u8; 9] = input.array()?;
    let (digits, valkey) = match (first.strip_prefix(b"REDIS"), first.strip_prefix(b"VALKEY")) {
        (Some(digits), _) => (digits, false),
        (_, Some(digits)) => (digits, true),
        _ => return Err(input.corrupt("this is not a snapshot of Redis or Valkey")),
    };
    let version = std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u32>().ok())
        .ok_or_else(|| input.corrupt("a snapshot has no version"))?;
    let known = if valkey { version == VALKEY } else { (1..=NEWEST_REDIS).contains(&version) };
    if !known {
        let what = format!("a snapshot has version {version}, which this build does not know");
        return Err(Error::new(ErrorKind::UnknownVersion, what).advise(
            "use a newer version of backup-kit, or back up with the consistency `paused`, which \
             needs no snapshot",
        ));
    }
    Ok(Header { version, valkey })
}

fn unknown<R: Read>(input: &Input<R>, what: &str, code: u8) -> Error {
    let what = format!("{what} of a snapshot has a form, {code}, that this build does not know");
    Error::new(ErrorKind::UnknownVersion, what).on(format_args!("RDB, byte {}", input.position()))
}

/// Nine characters of six bits, then ten bits for the version of the encoding.
pub(super) fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).rev().map(|n| char::from(LETTERS[(id >> (10 + 6 * n) & 0x3f) as usize])).collect()
}
