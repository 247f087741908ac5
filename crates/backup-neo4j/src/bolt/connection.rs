//! One connection: requests go out in a row, answers come back in the same.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    message::{Answer, Extra, Request},
    stream::Stream,
};
use crate::{options::Secret, value::Value};

/// Longest message that is read: longer than any property that a record could hold.
const MAX_MESSAGE: usize = 2 << 30;

/// Most bytes of one piece of a message.
const CHUNK: usize = 0xffff;

/// The versions that are offered: 6.0, and 5.8 down to 5.1.
const HANDSHAKE: [u8; 20] =
    [0x60, 0x60, 0xb0, 0x17, 0, 0, 0, 6, 0, 7, 8, 5, 0, 0, 0, 0, 0, 0, 0, 0];

/// Where a server is and who asks.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) patience: Duration,
}

/// A connection to a server, authenticated.
pub(crate) struct Connection {
    stream: Stream,
    patience: Duration,
    /// What was received and not read yet.
    input: BytesMut,
    /// What is to be sent.
    output: BytesMut,
    scratch: BytesMut,
    /// Answers that are still to come, so that only a connection without any is used again.
    pending: usize,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let mut stream = Stream::connect(&target.host, target.port, target.tls).await?;
        stream.write(&HANDSHAKE).await?;
        let mut input = BytesMut::with_capacity(64 << 10);
        while input.len() < 4 {
            stream.read(&mut input, target.patience).await?;
        }
        let version = input.split_to(4);
        if !matches!(version[..], [0, 0, 0, 6] | [0, 0, 1..=8, 5]) {
            let what = "the server does not speak Bolt 5.1 to 5.8 or 6.0";
            return Err(Error::new(ErrorKind::Incompatible, what)
                .advise("give the address of the Bolt port of a Neo4j server, 5.5 or later"));
        }
        let patience = target.patience;
        let (output, scratch) = (BytesMut::new(), BytesMut::new());
        let mut new = Self { stream, patience, input, output, scratch, pending: 0 };
        new.greet(target).await?;
        Ok(new)
    }

    async fn greet(&mut self, target: &Target) -> Result<()> {
        let agent = concat!("backup-neo4j/", env!("CARGO_PKG_VERSION"));
        let named = Value::Map(vec![("product".to_owned(), agent.into())]);
        self.push(&Request::Hello(vec![
            ("bolt_agent".to_owned(), named),
            ("user_agent".to_owned(), agent.into()),
        ]));
        let logon = if target.password.0.is_empty() {
            vec![("scheme".to_owned(), "none".into())]
        } else {
            vec![
                ("credentials".to_owned(), target.password.0.as_str().into()),
                ("principal".to_owned(), target.user.as_str().into()),
                ("scheme".to_owned(), "basic".into()),
            ]
        };
        self.push(&Request::Logon(logon));
        self.send().await?;
        self.success().await?;
        self.success().await.map(drop)
    }

    /// Whether nothing is on the way.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending == 0 && self.output.is_empty() && self.input.is_empty()
    }

    fn push(&mut self, request: &Request<'_>) {
        self.scratch.clear();
        request.write(&mut self.scratch);
        for piece in self.scratch.chunks(CHUNK) {
            self.output.put_u16(piece.len() as u16);
            self.output.put_slice(piece);
        }
        self.output.put_u16(0);
        self.pending += 1;
    }

    /// Queues a statement of a transaction of its own, or of the one that is open.
    pub(crate) fn run(&mut self, statement: &str, parameters: &[(String, Value)], extra: Extra) {
        self.push(&Request::Run { statement, parameters, extra });
    }

    /// Queues the request for so many rows; −1: all.
    pub(crate) fn pull(&mut self, rows: i64) {
        self.push(&Request::Pull(rows));
    }

    pub(crate) fn begin(&mut self, extra: Extra) {
        self.push(&Request::Begin(extra));
    }

    pub(crate) fn commit(&mut self) {
        self.push(&Request::Commit);
    }

    pub(crate) fn rollback(&mut self) {
        self.push(&Request::Rollback);
    }

    /// Sends what is queued.
    pub(crate) async fn send(&mut self) -> Result<()> {
        let sent = self.stream.write(&self.output).await;
        self.output.clear();
        // What was large once need not stay so.
        if self.output.capacity() > 1 << 20 {
            self.output = BytesMut::new();
            self.scratch = BytesMut::new();
        }
        sent
    }

    /// The next answer.
    async fn answer(&mut self) -> Result<Answer> {
        let answer = Answer::read(self.message().await?)?;
        if !matches!(answer, Answer::Row(_)) {
            self.pending = self.pending.saturating_sub(1);
        }
        Ok(answer)
    }

    /// The end of a request that has no rows.
    pub(crate) async fn success(&mut self) -> Result<Value> {
        loop {
            match self.answer().await? {
                Answer::Success(told) => return Ok(told),
                Answer::Row(_) => {}
                Answer::Ignored => return Err(ignored()),
                Answer::Failure(error) => return Err(error),
            }
        }
    }

    /// The next row of a request that has some, or what the server says at their end.
    pub(crate) async fn row(&mut self) -> Result<Result<Bytes, Value>> {
        match self.answer().await? {
            Answer::Success(told) => Ok(Err(told)),
            Answer::Row(row) => Ok(Ok(row)),
            Answer::Ignored => Err(ignored()),
            Answer::Failure(error) => Err(error),
        }
    }

    /// After a failure: reads what is still to come, and makes the connection usable again. An
    /// open transaction is taken back.
    pub(crate) async fn reset(&mut self) -> Result<()> {
        self.push(&Request::Reset);
        self.send().await?;
        while self.pending > 1 {
            self.answer().await?;
        }
        self.success().await.map(drop)
    }

    async fn message(&mut self) -> Result<Bytes> {
        let mut whole: Option<BytesMut> = None;
        loop {
            self.fill(2).await?;
            let len = usize::from(self.input.get_u16());
            if len == 0 {
                match whole {
                    Some(message) => return Ok(message.freeze()),
                    // The server says that it is still there.
                    None => continue,
                }
            }
            self.fill(len).await?;
            let piece = self.input.split_to(len);
            match &mut whole {
                None => whole = Some(piece),
                Some(message) if message.len() + len > MAX_MESSAGE => {
                    let what = "an answer of the server is too long";
                    let len = format!("{} bytes", message.len());
                    return Err(Error::new(ErrorKind::LimitExceeded, what).on(len));
                }
                Some(message) => message.unsplit(piece),
            }
        }
    }

    async fn fill(&mut self, len: usize) -> Result<()> {
        while self.input.len() < len {
            self.input.reserve(64 << 10);
            self.stream.read(&mut self.input, self.patience).await?;
        }
        Ok(())
    }
}

fn ignored() -> Error {
    Error::new(ErrorKind::Io, "the server ignored a request because an earlier one failed")
}
