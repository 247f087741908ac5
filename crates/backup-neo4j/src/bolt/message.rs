//! What goes to the server and what comes back.

use backup_core::{Error, Result};
use bytes::{Bytes, BytesMut};

use super::packstream::{self, Reader, head, unreadable, write, write_text};
use crate::{error, value::Value};

/// Members of an object of a message.
pub(super) type Extra = Vec<(String, Value)>;

/// A request. A request's fields are values.
pub(super) enum Request<'a> {
    Hello(Extra),
    Logon(Extra),
    Reset,
    Run { statement: &'a str, parameters: &'a [(String, Value)], extra: Extra },
    Pull(i64),
    Begin(Extra),
    Commit,
    Rollback,
}

/// An answer.
pub(super) enum Answer {
    /// What the server adds to it.
    Success(Value),
    /// Not read yet.
    Row(Bytes),
    /// Because one before it failed.
    Ignored,
    Failure(Error),
}

impl Request<'_> {
    pub(super) fn write(&self, to: &mut BytesMut) {
        match self {
            Self::Hello(extra) => with_extra(to, 0x01, extra),
            Self::Logon(extra) => with_extra(to, 0x6a, extra),
            Self::Reset => head(to, 0x0f, 0),
            Self::Run { statement, parameters, extra } => {
                head(to, 0x10, 3);
                write_text(to, statement);
                map(to, parameters);
                map(to, extra);
            }
            Self::Pull(rows) => {
                with_extra(to, 0x3f, &vec![("n".to_owned(), Value::Integer(*rows))]);
            }
            Self::Begin(extra) => with_extra(to, 0x11, extra),
            Self::Commit => head(to, 0x12, 0),
            Self::Rollback => head(to, 0x13, 0),
        }
    }
}

fn with_extra(to: &mut BytesMut, tag: u8, extra: &Extra) {
    head(to, tag, 1);
    map(to, extra);
}

fn map(to: &mut BytesMut, members: &[(String, Value)]) {
    packstream::map_head(to, members.len());
    for (name, value) in members {
        write_text(to, name);
        write(to, value);
    }
}

impl Answer {
    pub(super) fn read(bytes: Bytes) -> Result<Self> {
        let mut from = Reader::new(&bytes);
        let answer = match from.message()? {
            0x70 => Self::Success(from.value()?),
            // Left to whoever wants it.
            0x71 => return Ok(Self::Row(bytes.slice(bytes.len() - from.len()..))),
            0x7e => return Ok(Self::Ignored),
            0x7f => {
                let told = from.value()?;
                let text = |name: &str| told.member(name).and_then(Value::as_text);
                // The name of the code has changed with version 5.7.
                let code = text("neo4j_code").or_else(|| text("code")).unwrap_or_default();
                Self::Failure(error::failed(code, text("message").unwrap_or_default()))
            }
            _ => return Err(unreadable("an answer is of an unknown kind")),
        };
        from.end()?;
        Ok(answer)
    }
}

/// The columns of a row, read.
pub(crate) fn columns(row: &[u8]) -> Result<Vec<Value>> {
    let mut from = Reader::new(row);
    let Value::List(columns) = from.value()? else { return Err(unreadable("a row is no list")) };
    from.end()?;
    Ok(columns)
}
