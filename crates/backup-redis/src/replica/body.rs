//! A snapshot on its way: so many bytes, or up to a mark.

use std::io::{self, BufReader, Read};

use backup_core::{Error, ErrorKind};

use super::socket::Socket;

/// Bytes of the mark behind a snapshot whose length nobody knew.
pub(super) const MARK: usize = 40;

/// The bytes of a snapshot, and no more. Where the connection ends before, that is an error.
pub(crate) struct Body<R = BufReader<Socket>> {
    input: R,
    frame: Frame,
}

/// How a snapshot ends.
pub(super) enum Frame {
    Length { left: u64 },
    Mark(Box<Marked>),
}

pub(super) struct Marked {
    mark: [u8; MARK],
    /// What came; the last bytes are held back, since they may be the mark.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl Frame {
    pub(super) fn of(left: u64) -> Self {
        Self::Length { left }
    }

    pub(super) fn until(mark: [u8; MARK]) -> Self {
        let buffer = vec![0; 128 << 10];
        Self::Mark(Box::new(Marked { mark, buffer, start: 0, end: 0, ended: false }))
    }
}

impl<R> Body<R> {
    pub(super) fn new(input: R, frame: Frame) -> Self {
        Self { input, frame }
    }

    /// Its length, where the server knew it.
    pub(crate) fn len(&self) -> Option<u64> {
        match &self.frame {
            Frame::Length { left } => Some(*left),
            Frame::Mark(_) => None,
        }
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        match &mut self.frame {
            Frame::Length { left: 0 } => Ok(0),
            Frame::Length { left } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
                let n = some(&mut self.input, &mut out[..most])?;
                *left -= n as u64;
                Ok(n)
            }
            Frame::Mark(marked) => marked.read(&mut self.input, out),
        }
    }
}

impl Marked {
    fn read(&mut self, input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let held = if self.ended { 0 } else { MARK };
            let free = (self.end - self.start).saturating_sub(held);
            if free > 0 {
                let n = free.min(out.len());
                out[..n].copy_from_slice(&self.buffer[self.start..self.start + n]);
                self.start += n;
                return Ok(n);
            }
            if self.ended {
                return Ok(0);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.end += some(input, &mut self.buffer[self.end..])?;
            if self.buffer[..self.end].ends_with(&self.mark) {
                self.end -= MARK;
                self.ended = true;
            }
        }
    }
}

/// At least one byte.
fn some(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(out) {
            Ok(0) => return Err(cut(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cut(error)),
        }
    }
}

fn cut(error: io::Error) -> io::Error {
    Error::new(ErrorKind::Unreachable, "the server's snapshot broke off before its end")
        .because(error)
        .advise(
            "the server's log says why: it ends the connection of a replica that is slower than \
             `repl-timeout` or `client-output-buffer-limit replica` allow. Raise them for the time \
             of the backup, or have the snapshot written to the server's disk first \
             (`snapshot_on_disk`)",
        )
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: [u8; MARK] = *b"0123456789abcdef0123456789abcdef01234567";

    /// Gives so many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    fn read(sent: &[u8], step: usize, frame: Frame) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        let read = Body::new(Slow(sent, step), frame).read_to_end(&mut all);
        read.map(|_| all).map_err(|e| Error::io("reading", e))
    }

    #[test]
    fn a_mark_ends_a_snapshot_wherever_it_falls() {
        for len in [0, 1, 39, 40, 41, 100, 5000] {
            // Beginnings of the mark within it are not the mark.
            let text: Vec<u8> = END[..39].iter().copied().cycle().take(len).collect();
            let sent = [&text[..], &END].concat();
            for step in [1, 7, 39, 40, 41, 1 << 20] {
                assert_eq!(read(&sent, step, Frame::until(END)).unwrap(), text, "{len} {step}");
                for cut in [1, 20, 40] {
                    let cut = &sent[..sent.len() - cut];
                    let error = read(cut, step, Frame::until(END)).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Unreachable);
                }
            }
        }
    }

    #[test]
    fn a_length_is_kept() {
        assert_eq!(read(b"snapshot and more", 3, Frame::of(8)).unwrap(), b"snapshot");
        let error = read(b"snapsh", 3, Frame::of(8)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.advice().contains("client-output-buffer-limit"), "{error:?}");
    }
}
