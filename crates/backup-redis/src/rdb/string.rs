//! A string of an RDB: plain, a number, or compressed; whole or in pieces.

use std::io::Read;

use backup_core::Result;

use super::{
    input::{Input, Len},
    lzf::{Step, Window},
};

/// A string that is being read.
pub(super) struct Text {
    len: u64,
    form: Form,
}

enum Form {
    Number(Vec<u8>),
    Plain { left: u64 },
    Lzf { compressed: u64, made: u64, window: Window },
}

impl Text {
    pub(super) fn begin<R: Read>(input: &mut Input<R>) -> Result<Self> {
        let number = |n: i32| {
            let text = n.to_string().into_bytes();
            Self { len: text.len() as u64, form: Form::Number(text) }
        };
        Ok(match input.encoded_len()? {
            Len::Plain(len) => Self { len, form: Form::Plain { left: len } },
            Len::Encoded(0) => number(i8::from_le_bytes(input.array()?).into()),
            Len::Encoded(1) => number(i16::from_le_bytes(input.array()?).into()),
            Len::Encoded(2) => number(i32::from_le_bytes(input.array()?)),
            Len::Encoded(3) => {
                let (compressed, len) = (input.len()?, input.len()?);
                Self { len, form: Form::Lzf { compressed, made: 0, window: Window::default() } }
            }
            Len::Encoded(_) => return Err(input.corrupt("a string has an unknown form")),
        })
    }

    /// Its length in bytes, as it says.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The next `most` bytes, or fewer at its end; `None` behind it.
    pub(super) fn piece<R: Read>(
        &mut self,
        input: &mut Input<R>,
        most: usize,
    ) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        match &mut self.form {
            Form::Number(text) => out = std::mem::take(text),
            Form::Plain { left } => {
                let n = (*left).min(most as u64);
                input.append(&mut out, n)?;
                *left -= n;
            }
            Form::Lzf { compressed, made, window } => {
                while window.untaken() < most && *compressed > 0 {
                    *made += decompress(input, compressed, window)? as u64;
                    if *made > self.len {
                        return Err(input.corrupt("a compressed string is longer than it says"));
                    }
                }
                out = window.take(most);
                if out.is_empty() && *made < self.len {
                    return Err(input.corrupt("a compressed string is shorter than it says"));
                }
            }
        }
        Ok((!out.is_empty()).then_some(out))
    }

    /// All of it, up to the limit.
    pub(super) fn whole<R: Read>(mut self, input: &mut Input<R>) -> Result<Vec<u8>> {
        input.check(self.len)?;
        match &mut self.form {
            Form::Number(text) => return Ok(std::mem::take(text)),
            Form::Plain { left } => return input.bytes(*left),
            Form::Lzf { .. } => {}
        }
        let mut out = Vec::new();
        while let Some(piece) = self.piece(input, 64 << 10)? {
            if out.is_empty() {
                out = piece;
            } else {
                out.extend_from_slice(&piece);
            }
        }
        Ok(out)
    }
}

/// One step; how many bytes it made.
fn decompress<R: Read>(
    input: &mut Input<R>,
    compressed: &mut u64,
    window: &mut Window,
) -> Result<usize> {
    let mut left = *compressed;
    let mut byte = |input: &mut Input<R>| match left.checked_sub(1) {
        Some(less) => {
            left = less;
            input.byte()
        }
        None => Err(input.corrupt("a compressed string ends within a step")),
    };
    let made = match Step::of(byte(input)?) {
        Step::Literal(n) => {
            if n as u64 > left {
                return Err(input.corrupt("a compressed string ends within a step"));
            }
            let mut wanted = n;
            while wanted > 0 {
                let bytes = input.some(wanted as u64)?;
                wanted -= bytes.len();
                window.literal(bytes);
            }
            left -= n as u64;
            n
        }
        Step::Copy { long, short, high } => {
            let len = if long { short + usize::from(byte(input)?) } else { short };
            let back = (high | usize::from(byte(input)?)) + 1;
            if !window.copy(back, len) {
                return Err(input.corrupt("a compressed string refers to before its beginning"));
            }
            len
        }
    };
    *compressed = left;
    Ok(made)
}

impl<R: Read> Input<R> {
    /// A string, held whole.
    pub(super) fn string(&mut self) -> Result<Vec<u8>> {
        Text::begin(self)?.whole(self)
    }

    /// Passes over a string.
    pub(super) fn skip_string(&mut self) -> Result<()> {
        let mut text = Text::begin(self)?;
        while text.piece(self, 64 << 10)?.is_some() {}
        Ok(())
    }
}
