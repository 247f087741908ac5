//! Points in bulk, over gRPC.

use std::collections::HashMap;

use backup_core::{
    Error, ErrorKind, Result,
    record::{canonical::Writer, tagged},
};
use qdrant_client::qdrant::{
    CountPoints, DeletePoints, DenseVector, Filter, GetPoints, ListValue, MultiDenseVector,
    NamedVectors, PointId, PointStruct, PointsIdsList, RetrievedPoint, ScrollPoints, SparseVector,
    Struct, UpsertPoints, Value, Vector as Sent, VectorOutput, Vectors, WithPayloadSelector,
    WithVectorsSelector, point_id, points_selector::PointsSelectorOneOf, value::Kind,
    vector::Vector as SentKind, vector_output::Vector as Got, vectors::VectorsOptions,
    vectors_output::VectorsOptions as GotVectors, with_payload_selector, with_vectors_selector,
};
use serde_json::Value as Json;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    connect::Points,
    place::Place,
    rest::{full, refused},
    scroll::Read,
};
use crate::points::{Encoder, Id, Point, Vector, VectorRef};

/// What is wanted of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Whole,
    Ids,
}

impl Of {
    fn payload(self) -> Option<WithPayloadSelector> {
        let enable = with_payload_selector::SelectorOptions::Enable(self == Self::Whole);
        Some(WithPayloadSelector { selector_options: Some(enable) })
    }

    fn vectors(self) -> Option<WithVectorsSelector> {
        let enable = with_vectors_selector::SelectorOptions::Enable(self == Self::Whole);
        Some(WithVectorsSelector { selector_options: Some(enable) })
    }
}

/// One page of a collection, in the order of the ids.
pub(super) struct Page {
    pub(super) points: Vec<RetrievedPoint>,
    pub(super) next: Option<PointId>,
}

pub(super) async fn scroll(
    client: &Points,
    place: &Place,
    offset: Option<PointId>,
    limit: u32,
    filter: Option<Filter>,
    of: Of,
) -> Result<Page> {
    let request = ScrollPoints {
        collection_name: place.collection.clone(),
        offset,
        filter,
        limit: Some(limit),
        with_payload: of.payload(),
        with_vectors: of.vectors(),
        shard_key_selector: place.selector(),
        ..ScrollPoints::default()
    };
    let answer =
        client.clone().scroll(request).await.map_err(|e| failed(&e).on(place))?.into_inner();
    Ok(Page { points: answer.result, next: answer.next_page_offset })
}

/// Those of the points that are there, in any order.
pub(super) async fn retrieve(
    client: &Points,
    place: &Place,
    ids: &[Id],
    of: Of,
) -> Result<Vec<RetrievedPoint>> {
    let request = GetPoints {
        collection_name: place.collection.clone(),
        ids: ids.iter().copied().map(write_id).collect(),
        with_payload: of.payload(),
        with_vectors: of.vectors(),
        shard_key_selector: place.selector(),
        ..GetPoints::default()
    };
    let answer = client.clone().get(request).await.map_err(|e| failed(&e).on(place))?.into_inner();
    Ok(answer.result)
}

pub(super) async fn delete(client: &Points, place: &Place, ids: &[Id]) -> Result<()> {
    let ids = ids.iter().copied().map(write_id).collect();
    let request = DeletePoints {
        collection_name: place.collection.clone(),
        wait: Some(true),
        points: Some(PointsSelectorOneOf::Points(PointsIdsList { ids }).into()),
        shard_key_selector: place.selector(),
        ..DeletePoints::default()
    };
    client.clone().delete(request).await.map_err(|e| failed(&e).on(place))?;
    Ok(())
}

pub(super) async fn count(client: &Points, collection: &str) -> Result<u64> {
    let request = CountPoints {
        collection_name: collection.to_owned(),
        exact: Some(true),
        ..CountPoints::default()
    };
    let answer =
        client.clone().count(request).await.map_err(|e| failed(&e).on(collection))?.into_inner();
    Ok(answer.result.map_or(0, |result| result.count))
}

pub(super) async fn upsert(client: &Points, place: &Place, points: Vec<PointStruct>) -> Result<()> {
    let request = UpsertPoints {
        collection_name: place.collection.clone(),
        wait: Some(true),
        points,
        shard_key_selector: place.selector(),
        ..UpsertPoints::default()
    };
    client.clone().upsert(request).await.map_err(|e| failed(&e).on(place))?;
    Ok(())
}

pub(super) fn failed(status: &Status) -> Error {
    let said = status.message();
    let kind = match status.code() {
        _ if full(said) => ErrorKind::NoSpace,
        // A message that is longer than either end allows.
        Code::OutOfRange => ErrorKind::LimitExceeded,
        Code::Unauthenticated | Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::NotFound => ErrorKind::NotFound,
        // As a server says it of a shard key.
        Code::InvalidArgument if said.contains("Shard key") && said.ends_with("not found") => {
            ErrorKind::NotFound
        }
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::ResourceExhausted => ErrorKind::Busy,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            ErrorKind::Unreachable
        }
        // Not what the server said, but a connection that broke.
        Code::Internal if std::error::Error::source(status).is_some() => ErrorKind::Unreachable,
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => {
            ErrorKind::Incompatible
        }
        _ => ErrorKind::Io,
    };
    refused(kind, said)
}

pub(super) fn read_id(id: Option<PointId>) -> Result<Id> {
    let odd = || Error::new(ErrorKind::Mismatch, "Qdrant sent a point without a usable id");
    match id.and_then(|id| id.point_id_options) {
        Some(point_id::PointIdOptions::Num(number)) => Ok(Id::Number(number)),
        Some(point_id::PointIdOptions::Uuid(text)) => {
            Uuid::parse_str(&text).map(Id::Uuid).map_err(|e| odd().because(e))
        }
        None => Err(odd()),
    }
}

fn write_id(id: Id) -> PointId {
    let option = match id {
        Id::Number(number) => point_id::PointIdOptions::Num(number),
        Id::Uuid(uuid) => point_id::PointIdOptions::Uuid(uuid.as_hyphenated().to_string()),
    };
    PointId { point_id_options: Some(option) }
}

/// Adds a point to a batch.
pub(super) fn encode(encoder: &mut Encoder, read: Read) -> Result<()> {
    let Read { key, point, exact, .. } = read;
    match exact {
        Some(payload) => {
            encoder.point(&key, |json| crate::points::write_payload(json, payload))?;
        }
        None => encoder.point(&key, |json| write_struct(json, &point.payload))?,
    }
    match point.vectors.and_then(|vectors| vectors.vectors_options) {
        None => Ok(()),
        Some(GotVectors::Vector(vector)) => put(encoder, "", vector),
        Some(GotVectors::Vectors(named)) => {
            named.vectors.into_iter().try_for_each(|(name, vector)| put(encoder, &name, vector))
        }
    }
}

fn put(encoder: &mut Encoder, name: &str, vector: VectorOutput) -> Result<()> {
    match vector.into_vector() {
        Got::Dense(dense) => encoder.vector(name, VectorRef::Dense(&dense.data)),
        Got::Sparse(sparse) => {
            encoder.vector(name, VectorRef::Sparse(&sparse.indices, &sparse.values))
        }
        Got::MultiDense(multi) => {
            let rows: Vec<&[f32]> = multi.vectors.iter().map(|row| row.data.as_slice()).collect();
            encoder.vector(name, VectorRef::Multi(&rows))
        }
    }
}

fn write_struct(json: &mut Writer<'_>, members: &HashMap<String, Value>) -> Result<()> {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|(name, _)| name.as_str());
    // What an application stored as an object with such a member is no tag.
    let wrapped = members.iter().any(|(name, _)| name.as_str() == tagged::TYPE);
    if wrapped {
        json.begin_object()?;
        json.name(tagged::TYPE)?;
        json.string("Map");
        json.name("_value")?;
    }
    json.begin_object()?;
    for (name, value) in members {
        json.name(name)?;
        write_value(json, value)?;
    }
    json.end_object();
    if wrapped {
        json.end_object();
    }
    Ok(())
}

fn write_value(json: &mut Writer<'_>, value: &Value) -> Result<()> {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => json.null(),
        Some(Kind::BoolValue(value)) => json.bool(*value),
        Some(Kind::IntegerValue(value)) => tagged::integer(json, *value),
        Some(Kind::DoubleValue(value)) => json.float(*value),
        Some(Kind::StringValue(value)) => json.string(value),
        Some(Kind::ListValue(list)) => {
            json.begin_array()?;
            for value in &list.values {
                write_value(json, value)?;
            }
            json.end_array();
        }
        Some(Kind::StructValue(members)) => return write_struct(json, &members.fields),
    }
    Ok(())
}

/// Whether a payload may have held an integer of 2^63 or more, which gRPC turned into a float.
pub(super) fn perhaps_rounded(payload: &HashMap<String, Value>) -> bool {
    fn value(of: &Value) -> bool {
        match &of.kind {
            Some(Kind::DoubleValue(float)) => {
                *float >= 9_223_372_036_854_775_808.0 && *float <= 18_446_744_073_709_551_616.0
            }
            Some(Kind::ListValue(list)) => list.values.iter().any(value),
            Some(Kind::StructValue(members)) => members.fields.values().any(value),
            _ => false,
        }
    }
    payload.values().any(value)
}

/// A point as gRPC takes it, and its payload where gRPC cannot carry it: to be sent over REST.
pub(super) fn decode(point: Point) -> (PointStruct, Option<serde_json::Map<String, Json>>) {
    let mut named: HashMap<_, _> =
        point.vectors.into_iter().map(|(name, vector)| (name, send(vector))).collect();
    let options = match named.remove("") {
        Some(unnamed) if named.is_empty() => VectorsOptions::Vector(unnamed),
        Some(unnamed) => {
            named.insert(String::new(), unnamed);
            VectorsOptions::Vectors(NamedVectors { vectors: named })
        }
        None => VectorsOptions::Vectors(NamedVectors { vectors: named }),
    };
    let vectors = Vectors { vectors_options: Some(options) };
    let large = point.payload.values().any(too_large);
    let (sent, exact) = if large {
        (HashMap::new(), Some(point.payload))
    } else {
        (point.payload.into_iter().map(|(name, value)| (name, from_json(value))).collect(), None)
    };
    (PointStruct { id: Some(write_id(point.id)), payload: sent, vectors: Some(vectors) }, exact)
}

fn too_large(value: &Json) -> bool {
    match value {
        Json::Number(number) => number.is_u64() && !number.is_i64(),
        Json::Array(items) => items.iter().any(too_large),
        Json::Object(members) => members.values().any(too_large),
        _ => false,
    }
}

fn send(vector: Vector) -> Sent {
    let kind = match vector {
        Vector::Dense(data) => SentKind::Dense(DenseVector { data }),
        Vector::Sparse(indices, values) => SentKind::Sparse(SparseVector { values, indices }),
        Vector::Multi(rows) => SentKind::MultiDense(MultiDenseVector {
            vectors: rows.into_iter().map(|data| DenseVector { data }).collect(),
        }),
    };
    Sent { vector: Some(kind), ..Sent::default() }
}

fn from_json(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Kind::IntegerValue(integer),
            None => Kind::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(from_json).collect() })
        }
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.into_iter().map(|(name, value)| (name, from_json(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
