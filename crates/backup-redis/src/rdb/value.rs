//! A key's value in each of the forms that servers have written.

use std::io::Read;

use backup_core::{Error, Result};
use bytes::Bytes;

use super::{
    event::{Event, Kind},
    input::Input,
    pack::{Fault, Pack},
    reader::Header,
    stream::Stream,
    string::Text,
};
use crate::model::Element;

/// A value that is being read.
pub(super) enum Value {
    Text {
        text: Text,
        /// Whether no piece was given yet.
        empty: bool,
    },
    /// Strings one after another.
    Plain {
        left: u64,
        shape: Shape,
    },
    /// One block.
    Packed {
        pack: Pack,
        shape: Shape,
    },
    /// A list of blocks.
    Blocks {
        left: u64,
        pack: Option<Pack>,
        form: Blocks,
        index: u64,
    },
    Stream(Box<Stream>),
    Dump(Vec<u8>),
    End,
}

/// What the strings of a value make.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// The items of a list, counted.
    List(u64),
    Set,
    /// Scores as text behind members.
    Scores,
    /// Scores in binary.
    BinaryScores,
    Hash,
    /// Deadlines before the fields, less the smallest of them and plus one; zero is none.
    Deadlines {
        from: i64,
    },
    /// In a block: deadlines behind the values; zero is none.
    Triples,
    /// Deadlines of eight bytes behind the values; −1 is none.
    Valkey,
}

/// What the blocks of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocks {
    Ziplists,
    /// Each says whether it is a listpack or one long item.
    Listpacks,
}

impl Value {
    /// A value of this form; `None` where the form is unknown.
    pub(super) fn begin<R: Read>(
        input: &mut Input<R>,
        header: Header,
        form: u8,
    ) -> Result<Option<(Kind, Self)>> {
        let plain =
            |input: &mut Input<R>, shape| Ok::<_, Error>(Self::Plain { left: input.len()?, shape });
        let packed = |input: &mut Input<R>, open: fn(Vec<u8>) -> Result<Pack, Fault>, shape| {
            let bytes = input.string()?;
            let pack = open(bytes).map_err(|fault| input.corrupt(fault))?;
            Ok::<_, Error>(Self::Packed { pack, shape })
        };
        let blocks = |input: &mut Input<R>, form| {
            Ok::<_, Error>(Self::Blocks { left: input.len()?, pack: None, form, index: 0 })
        };
        Ok(Some(match form {
            1 => (Kind::List, plain(input, Shape::List(0))?),
            2 => (Kind::Set, plain(input, Shape::Set)?),
            3 => (Kind::SortedSet, plain(input, Shape::Scores)?),
            4 => (Kind::Hash, plain(input, Shape::Hash)?),
            5 => (Kind::SortedSet, plain(input, Shape::BinaryScores)?),
            9 => (Kind::Hash, packed(input, Pack::zipmap, Shape::Hash)?),
            10 => (Kind::List, packed(input, Pack::ziplist, Shape::List(0))?),
            11 => (Kind::Set, packed(input, Pack::intset, Shape::Set)?),
            12 => (Kind::SortedSet, packed(input, Pack::ziplist, Shape::Scores)?),
            13 => (Kind::Hash, packed(input, Pack::ziplist, Shape::Hash)?),
            14 => (Kind::List, blocks(input, Blocks::Ziplists)?),
            16 => (Kind::Hash, packed(input, Pack::listpack, Shape::Hash)?),
            17 => (Kind::SortedSet, packed(input, Pack::listpack, Shape::Scores)?),
            18 => (Kind::List, blocks(input, Blocks::Listpacks)?),
            20 => (Kind::Set, packed(input, Pack::listpack, Shape::Set)?),
            15 | 19 | 21 => {
                let version = match form {
                    15 => 1,
                    19 => 2,
                    _ => 3,
                };
                (Kind::Stream, Self::Stream(Box::new(Stream::begin(input, version)?)))
            }
            22 if header.valkey => (Kind::Hash, plain(input, Shape::Valkey)?),
            // 22 and 23 of Redis were in release candidates of 7.4 only.
            24 if !header.valkey => {
                let from = input.time()?;
                (Kind::Hash, plain(input, Shape::Deadlines { from })?)
            }
            25 if !header.valkey => {
                input.time()?;
                (Kind::Hash, packed(input, Pack::listpack, Shape::Triples)?)
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn next<R: Read>(&mut self, input: &mut Input<R>, piece: usize) -> Result<Event> {
        let event = match self {
            Self::Text { text, empty } => {
                let first = std::mem::take(empty);
                match text.piece(input, piece)? {
                    Some(piece) => Some(Event::Piece(piece)),
                    None => first.then(|| Event::Piece(Vec::new())),
                }
            }
            Self::Plain { left: 0, .. } => None,
            Self::Plain { left, shape } => {
                *left -= 1;
                Some(Event::Element(shape.plain(input)?))
            }
            Self::Packed { pack, shape } => {
                let element = shape.packed(pack).map_err(|fault| input.corrupt(fault))?;
                element.map(Event::Element)
            }
            Self::Blocks { left, pack, form, index } => next_of_blocks(input, left, pack, *form)?
                .map(|value| {
                    *index += 1;
                    Event::Element(Element::At { index: *index - 1, value: value.into() })
                }),
            Self::Stream(stream) => stream.next(input)?,
            Self::Dump(payload) => {
                let payload = std::mem::take(payload);
                *self = Self::End;
                Some(Event::Dump(payload))
            }
            Self::End => None,
        };
        Ok(event.unwrap_or(Event::End))
    }
}

fn next_of_blocks<R: Read>(
    input: &mut Input<R>,
    left: &mut u64,
    pack: &mut Option<Pack>,
    form: Blocks,
) -> Result<Option<Vec<u8>>> {
    loop {
        if let Some(open) = pack {
            match open.text().map_err(|fault| input.corrupt(fault))? {
                Some(item) => return Ok(Some(item)),
                None => *pack = None,
            }
        }
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        let container = if form == Blocks::Listpacks { input.len()? } else { 2 };
        let bytes = input.string()?;
        let open = match (form, container) {
            (_, 1) => return Ok(Some(bytes)),
            (Blocks::Ziplists, _) => Pack::ziplist(bytes),
            (Blocks::Listpacks, 2) => Pack::listpack(bytes),
            _ => Err("a list has a block of an unknown form"),
        };
        *pack = Some(open.map_err(|fault| input.corrupt(fault))?);
    }
}

impl Shape {
    fn plain<R: Read>(&mut self, input: &mut Input<R>) -> Result<Element> {
        if let Self::Deadlines { from } = *self {
            let after = input.len()?;
            let expires_at = match after {
                0 => None,
                _ => Some(deadline(from, after - 1).ok_or_else(|| input.corrupt(FAR))?),
            };
            let (name, value) = (input.string()?.into(), input.string()?.into());
            return Ok(Element::Field { name, value, expires_at });
        }
        let first: Bytes = input.string()?.into();
        Ok(match self {
            Self::List(index) => {
                *index += 1;
                Element::At { index: *index - 1, value: first }
            }
            Self::Set => Element::Member(first),
            Self::Scores => Element::Scored { member: first, score: text_score(input)? },
            Self::BinaryScores => {
                let score = f64::from_le_bytes(input.array()?);
                if score.is_nan() {
                    return Err(input.corrupt(NO_SCORE));
                }
                Element::Scored { member: first, score }
            }
            Self::Hash => {
                Element::Field { name: first, value: input.string()?.into(), expires_at: None }
            }
            Self::Valkey => {
                let value = input.string()?.into();
                let at = input.time()?;
                Element::Field { name: first, value, expires_at: (at != -1).then_some(at) }
            }
            Self::Deadlines { .. } | Self::Triples => {
                return Err(input.corrupt("a value has no such form"));
            }
        })
    }

    fn packed(&mut self, pack: &mut Pack) -> Result<Option<Element>, Fault> {
        let Some(first) = pack.text()? else { return Ok(None) };
        let first: Bytes = first.into();
        Ok(Some(match self {
            Self::List(index) => {
                *index += 1;
                Element::At { index: *index - 1, value: first }
            }
            Self::Set => Element::Member(first),
            Self::Scores => {
                let score = parse_score(&pack.wanted()?).ok_or(NO_SCORE)?;
                Element::Scored { member: first, score }
            }
            Self::Hash => {
                Element::Field { name: first, value: pack.wanted()?.into(), expires_at: None }
            }
            Self::Triples => {
                let value = pack.wanted()?.into();
                let at = pack.number()?;
                Element::Field { name: first, value, expires_at: (at != 0).then_some(at) }
            }
            Self::BinaryScores | Self::Deadlines { .. } | Self::Valkey => {
                return Err("a value has no such form");
            }
        }))
    }
}

const NO_SCORE: Fault = "a sorted set has a score that is no number";
const FAR: Fault = "a field expires beyond all time";

fn deadline(from: i64, after: u64) -> Option<i64> {
    from.checked_add(i64::try_from(after).ok()?)
}

/// A score as text behind its length; the largest three lengths are not lengths.
fn text_score<R: Read>(input: &mut Input<R>) -> Result<f64> {
    let score = match input.byte()? {
        255 => Some(f64::NEG_INFINITY),
        254 => Some(f64::INFINITY),
        253 => None,
        len => parse_score(&input.bytes(len.into())?),
    };
    score.ok_or_else(|| input.corrupt(NO_SCORE))
}

fn parse_score(text: &[u8]) -> Option<f64> {
    let score: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!score.is_nan()).then_some(score)
}
