//! What goes to the server and what comes back.

use backup_core::{Error, Result};
use bytes::{Bytes, BytesMut};

use super::packstream::{self, Fault, Reader, head, unreadable, write, write_text};
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
        Self::parse(bytes).map_err(unreadable)
    }

    fn parse(bytes: Bytes) -> Result<Self, Fault> {
        let mut from = Reader::new(&bytes);
        let tag = from.message()?;
        // Rows are left to whoever wants them.
        if tag == 0x71 {
            let head = bytes.len() - from.len();
            return Ok(Self::Row(bytes.slice(head..)));
        }
        let answer = match tag {
            0x70 => Self::Success(from.value()?),
            0x7e => return Ok(Self::Ignored),
            0x7f => {
                let told = from.value()?;
                let text = |name: &str| told.member(name).and_then(Value::as_text);
                // The name of the code has changed with version 5.7.
                let code = text("neo4j_code").or_else(|| text("code")).unwrap_or_default();
                Self::Failure(error::failed(code, text("message").unwrap_or_default()))
            }
            _ => return Err("an answer is of an unknown kind"),
        };
        if from.len() == 0 { Ok(answer) } else { Err(LONGER) }
    }
}

const LONGER: Fault = "an answer goes on after its end";

/// The columns of a row, read.
pub(crate) fn columns(row: &[u8]) -> Result<Vec<Value>> {
    let mut from = Reader::new(row);
    let columns = match from.value() {
        Ok(Value::List(_)) if from.len() > 0 => Err(LONGER),
        Ok(Value::List(columns)) => Ok(columns),
        Ok(_) => Err("a row is no list"),
        Err(fault) => Err(fault),
    };
    columns.map_err(unreadable)
}
