//! Points as the server sends them, read no further than a record needs: a vector's values stay the
//! bytes that they are on the way, text stays where it came, and payloads are lists, not maps.
//!
//! The messages are those of Qdrant's `points.proto` and `json_with_int.proto`, with other types in
//! their place and without what a backup leaves aside. `qdrant-client` reads the same into a
//! `Vec<f32>` value by value, and into a `HashMap` for each payload; what that costs stands in
//! `docs/decisions/0060-qdrant-servers.md`.

use bytes::Bytes;
use prost::{Message, Oneof};
use qdrant_client::qdrant::PointId;

/// `ScrollResponse`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Scrolled {
    #[prost(message, optional, tag = "1")]
    pub(super) next_page_offset: Option<PointId>,
    #[prost(message, repeated, tag = "2")]
    pub(super) result: Vec<Point>,
}

/// `GetResponse`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Retrieved {
    #[prost(message, repeated, tag = "1")]
    pub(super) result: Vec<Point>,
}

/// `RetrievedPoint`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Point {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<PointId>,
    #[prost(message, repeated, tag = "2")]
    pub(super) payload: Vec<Member>,
    #[prost(message, optional, tag = "4")]
    pub(super) vectors: Option<Vectors>,
}

/// What a map of values is on the way.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Member {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) name: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Double(f64),
    #[prost(int64, tag = "3")]
    Integer(i64),
    /// UTF-8, as long as the server keeps to the protocol.
    #[prost(bytes = "bytes", tag = "4")]
    Text(Bytes),
    #[prost(bool, tag = "5")]
    Bool(bool),
    #[prost(message, tag = "6")]
    Struct(Struct),
    #[prost(message, tag = "7")]
    List(ListValue),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Struct {
    #[prost(message, repeated, tag = "1")]
    pub(super) fields: Vec<Member>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Value>,
}

/// `VectorsOutput`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Vectors {
    #[prost(oneof = "VectorsOptions", tags = "1, 2")]
    pub(super) options: Option<VectorsOptions>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum VectorsOptions {
    #[prost(message, tag = "1")]
    Unnamed(Vector),
    #[prost(message, tag = "2")]
    Named(NamedVectors),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedVectors {
    #[prost(message, repeated, tag = "1")]
    pub(super) vectors: Vec<NamedVector>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NamedVector {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) vector: Option<Vector>,
}

/// `VectorOutput`: its last field, or before 1.16 the first three.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Vector {
    #[prost(float, repeated, tag = "1")]
    pub(super) data: Vec<f32>,
    #[prost(message, optional, tag = "2")]
    pub(super) indices: Option<Indices>,
    /// How many rows `data` are.
    #[prost(uint32, optional, tag = "3")]
    pub(super) rows: Option<u32>,
    #[prost(oneof = "VectorKind", tags = "101, 102, 103")]
    pub(super) kind: Option<VectorKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum VectorKind {
    #[prost(message, tag = "101")]
    Dense(Dense),
    #[prost(message, tag = "102")]
    Sparse(Sparse),
    #[prost(message, tag = "103")]
    Multi(Multi),
}

/// Packed floats are their bytes, the least significant first.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dense {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sparse {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) values: Bytes,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) indices: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Multi {
    #[prost(message, repeated, tag = "1")]
    pub(super) vectors: Vec<Dense>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Indices {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) data: Vec<u32>,
}
