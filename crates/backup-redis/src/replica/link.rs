//! The way to a snapshot: password, what a replica can, and the request for everything.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    thread,
    time::{Duration, Instant},
};

use backup_core::{Error, ErrorKind, Result};
use redis::Cmd;

use super::{
    body::{Body, Frame, MARK},
    socket::{Socket, Stop},
};
use crate::{client::Peer, error};

/// Longest line that a server sends before a snapshot.
const LINE: u64 = 4096;
/// Until a server is asked again that gave an earlier snapshot.
const AGAIN: Duration = Duration::from_millis(200);

/// Where in a server's replication stream a snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) id: String,
    pub(crate) offset: u64,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.id, self.offset)
    }
}

/// Asks for a snapshot of a moment at which the stream had come to `after`, or further. Returns
/// when the server has forked. `on_disk`: it is to write the snapshot to its disk first.
///
/// # Errors
/// [`Busy`](ErrorKind::Busy): there was none by `until`.
pub(crate) fn begin(
    peer: &Peer,
    on_disk: bool,
    after: u64,
    until: Instant,
    stop: &Stop,
) -> Result<(Mark, Link)> {
    let on = |error: Error| error.on(&peer.addr);
    loop {
        let mut link = Link::open(peer, on_disk, until, stop)?;
        let mark = link.sync().map_err(on)?;
        if mark.offset >= after {
            return Ok((mark, link));
        }
        // One that was begun earlier, for another replica: the next one may be ours.
        drop(link);
        if Instant::now() + AGAIN >= until {
            return Err(on(late()));
        }
        thread::sleep(AGAIN);
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Busy, "the server did not begin a snapshot in time").advise(
        "allow a longer time: the server waits for other snapshots to end, and for \
         `repl-diskless-sync-delay` seconds",
    )
}

/// A connection on which a snapshot was asked for.
pub(crate) struct Link {
    input: BufReader<Socket>,
    until: Option<Instant>,
    timeout: Duration,
}

impl Link {
    fn open(peer: &Peer, on_disk: bool, until: Instant, stop: &Stop) -> Result<Self> {
        let socket = Socket::connect(peer, stop)?;
        let input = BufReader::with_capacity(64 << 10, socket);
        let mut link = Self { input, until: Some(until), timeout: peer.timeout };
        let on = |error: Error| error.on(&peer.addr);
        if let Some(password) = &peer.password {
            let mut auth = redis::cmd("AUTH");
            if let Some(name) = &peer.username {
                auth.arg(name);
            }
            let answer = link.ask(auth.arg(password)).map_err(on)?;
            refused(&answer).map_err(on)?;
        }
        if !on_disk {
            link.tell("capa", "eof").map_err(on)?;
        }
        link.tell("rdb-only", "1").map_err(on)?;
        Ok(link)
    }

    /// Says what this replica can. A server that does not know of it does without.
    fn tell(&mut self, name: &str, value: &str) -> Result<()> {
        let answer = self.ask(redis::cmd("REPLCONF").arg(name).arg(value))?;
        if answer.starts_with("-ERR Unrecognized REPLCONF") { Ok(()) } else { refused(&answer) }
    }

    fn sync(&mut self) -> Result<Mark> {
        let answer = self.ask(redis::cmd("PSYNC").arg("?").arg(-1))?;
        refused(&answer)?;
        let mut words = answer.split(' ');
        let mark = (|| {
            let ("+FULLRESYNC", Some(id), Some(offset)) =
                (words.next()?, words.next(), words.next())
            else {
                return None;
            };
            let id = Some(id).filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()))?;
            Some(Mark { id: id.to_owned(), offset: offset.parse().ok()? })
        })();
        mark.ok_or_else(odd)
    }

    /// The snapshot. A server that writes it to its disk first says now and then that it does.
    pub(crate) fn body(mut self) -> Result<Body> {
        self.until = None;
        let line = self.line()?;
        refused(&line)?;
        let text = line.strip_prefix('$').ok_or_else(odd)?;
        let frame = match text.strip_prefix("EOF:") {
            Some(mark) => {
                let mark: [u8; MARK] = mark.as_bytes().try_into().map_err(|_| odd())?;
                Frame::until(mark)
            }
            None => Frame::of(text.parse().map_err(|_| odd())?),
        };
        Ok(Body::new(self.input, frame))
    }

    fn ask(&mut self, command: &Cmd) -> Result<String> {
        let sent = self.input.get_mut().write_all(&command.get_packed_command());
        let sent = sent.and_then(|()| self.input.get_mut().flush());
        // What the server said before it hung up counts more.
        match (sent, self.line()) {
            (Err(error), Err(_)) => Err(broke(error)),
            (_, line) => line,
        }
    }

    /// The next line; empty ones only say that the server is there.
    fn line(&mut self) -> Result<String> {
        loop {
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(late());
            }
            let wait = left.map_or(self.timeout, |left| left.min(self.timeout));
            let wait = self.input.get_ref().wait(wait);
            wait.map_err(|e| Error::io("a connection cannot be given a deadline", e))?;
            let mut line = Vec::new();
            match self.input.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) => return Err(broke(io::ErrorKind::UnexpectedEof.into())),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) && self.until.is_some_and(|until| Instant::now() >= until) =>
                {
                    return Err(late());
                }
                Err(error) => return Err(broke(error)),
            }
            let text = line.trim_ascii_end();
            if !text.is_empty() {
                return String::from_utf8(text.to_vec()).map_err(|_| odd());
            }
        }
    }
}

fn broke(error: io::Error) -> Error {
    Error::new(ErrorKind::Unreachable, "the connection for a snapshot broke").because(error)
}

fn odd() -> Error {
    Error::new(ErrorKind::Unsupported, "the server answered a replica with what is unknown")
        .advise(OTHERWISE)
}

const OTHERWISE: &str =
    "back up with the consistency `paused` or `fuzzy`, which ask nothing that replicas ask";

/// The error that stands in place of an answer.
fn refused(line: &str) -> Result<()> {
    let Some(said) = line.strip_prefix('-') else { return Ok(()) };
    let (code, detail) = said.split_once(' ').unwrap_or((said, ""));
    let refused = error::refused("the server gives no snapshot", code, detail);
    Err(match (code, refused.kind()) {
        ("NOMASTERLINK", _) => Error::new(ErrorKind::Unreachable, "the server gives no snapshot")
            .because(refused)
            .advise("this replica is not connected with its primary: wait, or ask the primary"),
        // Servers of providers do not let replicas in.
        ("NOPERM", _) => {
            refused.advise(format!("give the user the rights `+psync +replconf`, or {OTHERWISE}"))
        }
        ("ERR", _) => Error::new(ErrorKind::Unsupported, "the server gives no snapshot")
            .because(refused)
            .advise(OTHERWISE),
        _ => refused,
    })
}
