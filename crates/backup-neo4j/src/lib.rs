//! Neo4j for backup-kit: the graph of a running server, read and written over Bolt.
//!
//! A [`Neo4jStore`] is one database of one server, 5.x or later, of any edition. It needs a Tokio
//! runtime, in which it is made and which has to go on running while it is used.
//!
//! A [`Neo4jDump`] is a database that is stopped, in the server's own form.
//!
//! # Nodes
//! Nodes with the same set of labels are a **collection**, named after the labels in the order of
//! their bytes, with a colon between them: `Person`, `Employee:Person`. Nodes without a label are the
//! collection `()`. A label that has a colon or a backtick in it, or begins with `(` or `[`, stands in
//! backticks, and a backtick in it is doubled.
//!
//! A node's **value** is the object of its properties, nothing else; so `/year` in a condition is the
//! property `year`. (Where a property is called `$type` the object is wrapped as
//! [tagged values](backup_core::record::tagged) are.)
//!
//! A node's **key** is, where one is known, what the application itself finds the node by: the
//! properties of a uniqueness or key constraint on one of its labels, or those that
//! [`Neo4jOptions::key`] names. Of several constraints that fit, the one with the fewest properties
//! counts, then the first by label and properties. One property is a plain key, several are a list:
//! `"a@b.example"`, `["berlin",10115]`. A node to which none of them applies, because it lacks one of
//! the properties, has its internal number: `{"$type":"Node","_value":"17"}`. Such a key names the
//! node within one archive, and means nothing in another database.
//!
//! # Relationships
//! Relationships of one type are a collection whose name is that of the type in brackets:
//! `[LINKS_TO]`. Within the brackets only a backtick is special, and doubled, where the name stands
//! in backticks because it has a bracket or a backtick in it.
//!
//! A relationship's **value** is `{"from":E,"properties":{…},"to":E}`, in which `E` names a node as
//! `[collection,key]`: `["Person","a@b.example"]`. So a property is found at `/properties/since`.
//!
//! Its **key** is `[E,E,n]`: where it begins, where it ends, and which of the parallel ones between
//! the two it is. These are numbered from 0 in the order of the text of their properties, so that
//! equal graphs have equal keys whatever order they were built in. A loop begins where it ends.
//!
//! # Constraints and indexes
//! The schema document of a collection has the constraints and indexes of its labels or its type;
//! the collection `(schema)`, which has no records, has all of them. Provider and options stand as
//! the server tells them.
//!
//! # Property types
//! Text, booleans, integers of 64 bits, floats (NaN, infinities and −0.0 too), bytes, dates, times and
//! date-times with offsets and zones, durations, points in every reference system, and lists. What
//! JSON lacks is tagged after Neo4j's own typed JSON:
//!
//! | `$type` | `_value`, for instance |
//! |---|---|
//! | `Date`, `LocalTime`, `Time` | `2015-03-26`, `12:50:35.556`, `12:50:35.556+01:00` |
//! | `LocalDateTime`, `OffsetDateTime` | `2015-11-21T21:40:32.142`, `2015-11-21T21:40:32.142+01:00` |
//! | `ZonedDateTime` | `2015-11-21T20:40:32.142Z[Europe/Berlin]`: the time in UTC, and the zone |
//! | `Duration` | `P14M3DT-5.000000001S` |
//! | `Point` | `SRID=7203;POINT(1.0 2.0)`, `SRID=4979;POINT Z(12.9 55.6 7.0)` |
//! | `Vector` | `FLOAT32[1.0,2.5]` |
//!
//! # Restoring
//! What is restored is staged in the database that the application uses, under labels and types of its own
//! (`backup-kit:staged:Person`). The switch gives it those of the application and hides what was live
//! in the same manner; an undo does the opposite. Until the restore has ended, the database needs room for
//! both. The switch is one transaction as long as that needs no more than half of the memory that the
//! server lets a transaction have ([`Neo4jOptions::transaction_memory`]); else it goes in batches, a
//! plan says so, and whatever breaks off is gone on with or taken back from a journal in the database.
//!
//! Constraints and indexes that live and archive share stay throughout. Others are dropped before the switch
//! and made after it; that the server takes them, and that the records keep to them, is proved before anything
//! live is touched. What the Community edition does not have (keys, existence, types) is refused there.
//!
//! # Merging
//! Nodes are the same on both sides where their labels and their key are. A collection whose nodes have
//! no key, or another one here than in the archive, is refused. A relationship is the same where it has the
//! same type and ends and is the same of the parallel ones, by their order; so of several between two
//! nodes, compare what a rule such as `skip` makes of them with what was meant. Ends of relationships
//! may be live only.
//!
//! A live node gets the properties of the archive's and keeps its identity, its labels and every
//! relationship that is not in the archive. A record that was changed since it was compared is
//! refused, and nothing is changed. Live constraints and indexes stay; those of the archive are added where
//! nothing live has their labels or types.
//!
//! Names that begin with `backup-kit:` belong to restores. `CALL db.propertyKeys()` goes on listing some
//! afterwards, because a server never forgets a name; nothing has them. Nodes keep their internal number
//! when they become live, and relationships are made at the switch. A node without a key has
//! another internal number than in the archive.
//!
//! The user needs the right to read and write, to create and drop constraints and indexes, and to create new
//! names. Collections of a graph cannot be given other names, because relationships name those of their ends.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod bolt;
mod client;
mod describe;
mod dump;
mod error;
mod marks;
mod names;
mod options;
mod read;
mod records;
mod schema;
mod sink;
mod source;
#[cfg(test)]
mod testing;
mod value;

pub use dump::Neo4jDump;
pub use options::{Neo4jOptions, Neo4jStore};

/// What the manifest calls a store of Neo4j.
pub(crate) const KIND: &str = "neo4j";
