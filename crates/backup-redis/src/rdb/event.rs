//! What a reader gives, one at a time.

use crate::model::{Element, StreamHead};

/// One step through an RDB.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A fact about the file: the server's version, when it was made.
    Aux,
    /// A library of functions.
    Function,
    /// A key begins; its content follows, up to [`Event::End`].
    Key(Key),
    /// The next piece of a string's bytes, of the size that was asked for but for the last.
    Piece(Vec<u8>),
    /// The next element. Never a [`Range`](Element::Range).
    Element(Element),
    /// What a stream has beside its entries; comes before them.
    Stream(StreamHead),
    /// A value that is carried as `DUMP` would give it.
    Dump(Vec<u8>),
    /// The key has no more.
    End,
}

/// The beginning of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// The logical database.
    pub(crate) database: u32,
    pub(crate) key: Vec<u8>,
    /// Milliseconds since 1970.
    pub(crate) expires_at: Option<i64>,
    pub(crate) kind: Kind,
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string of so many bytes.
    String(u64),
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
    /// The name of a module's type: nine characters.
    Module(String),
}
