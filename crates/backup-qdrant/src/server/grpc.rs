//! Points in bulk, over gRPC.

use std::collections::HashMap;

use backup_core::{
    Error, ErrorKind, Result,
    record::{canonical::Writer, tagged},
};
use qdrant_client::qdrant::{
    CountPoints, DeletePoints, DenseVector, Filter, GetPoints, ListValue, MultiDenseVector,
    NamedVectors, PointId, PointStruct, PointsIdsList, ScrollPoints, SparseVector, Struct,
    UpsertPoints, Value, Vector as Sent, Vectors, WithPayloadSelector, WithVectorsSelector,
    point_id, points_selector::PointsSelectorOneOf, value::Kind, vector::Vector as SentKind,
    vectors::VectorsOptions, with_payload_selector, with_vectors_selector,
};
use serde_json::Value as Json;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    answer,
    connect::Points,
    place::Place,
    rest::{full, refused},
    scroll::Read,
};
use crate::points::{Encoder, Floats, Id, Point, Vector, VectorRef};

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
    pub(super) points: Vec<answer::Point>,
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
    let answer: answer::Scrolled =
        client.read("/qdrant.Points/Scroll", request).await.map_err(|e| failed(&e).on(place))?;
    Ok(Page { points: answer.result, next: answer.next_page_offset })
}

/// Those of the points that are there, in any order.
pub(super) async fn retrieve(
    client: &Points,
    place: &Place,
    ids: &[Id],
    of: Of,
) -> Result<Vec<answer::Point>> {
    let request = GetPoints {
        collection_name: place.collection.clone(),
        ids: ids.iter().copied().map(write_id).collect(),
        with_payload: of.payload(),
        with_vectors: of.vectors(),
        shard_key_selector: place.selector(),
        ..GetPoints::default()
    };
    let answer: answer::Retrieved =
        client.read("/qdrant.Points/Get", request).await.map_err(|e| failed(&e).on(place))?;
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
    client.client().delete(request).await.map_err(|e| failed(&e).on(place))?;
    Ok(())
}

pub(super) async fn count(client: &Points, collection: &str) -> Result<u64> {
    let request = CountPoints {
        collection_name: collection.to_owned(),
        exact: Some(true),
        ..CountPoints::default()
    };
    let answer =
        client.client().count(request).await.map_err(|e| failed(&e).on(collection))?.into_inner();
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
    client.client().upsert(request).await.map_err(|e| failed(&e).on(place))?;
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
    match point.vectors.and_then(|vectors| vectors.options) {
        None => Ok(()),
        Some(answer::VectorsOptions::Unnamed(vector)) => put(encoder, "", &vector),
        // A map leaves out a value that is empty: it is one all the same, and refused.
        Some(answer::VectorsOptions::Named(named)) => named
            .vectors
            .into_iter()
            .try_for_each(|named| put(encoder, &named.name, &named.vector.unwrap_or_default())),
    }
}

fn put(encoder: &mut Encoder, name: &str, vector: &answer::Vector) -> Result<()> {
    use answer::VectorKind;
    let data = vector.data.as_slice();
    match (&vector.kind, &vector.indices, vector.rows) {
        (Some(VectorKind::Dense(dense)), ..) => {
            encoder.vector(name, VectorRef::Dense(Floats::Bytes(&dense.data)))
        }
        (Some(VectorKind::Sparse(sparse)), ..) => {
            let values = Floats::Bytes(&sparse.values);
            encoder.vector(name, VectorRef::Sparse(&sparse.indices, values))
        }
        (Some(VectorKind::Multi(multi)), ..) => {
            let rows: Vec<_> = multi.vectors.iter().map(|row| Floats::Bytes(&row.data)).collect();
            encoder.vector(name, VectorRef::Multi(&rows))
        }
        (None, Some(indices), _) => {
            encoder.vector(name, VectorRef::Sparse(&indices.data, Floats::Values(data)))
        }
        // Rows stand one after the other, as they do in a record.
        (None, None, Some(_)) => encoder.vector(name, VectorRef::Multi(&[Floats::Values(data)])),
        (None, None, None) => encoder.vector(name, VectorRef::Dense(Floats::Values(data))),
    }
}

fn write_struct(json: &mut Writer<'_>, members: &[answer::Member]) -> Result<()> {
    let named = members.iter().map(|member| Ok((text(&member.name)?, &member.value)));
    tagged::object(json, named.collect::<Result<_>>()?, |json, value| match value {
        Some(value) => write_value(json, value),
        None => {
            json.null();
            Ok(())
        }
    })
}

fn write_value(json: &mut Writer<'_>, value: &answer::Value) -> Result<()> {
    use answer::Kind;
    match &value.kind {
        None | Some(Kind::Null(_)) => json.null(),
        Some(Kind::Bool(value)) => json.bool(*value),
        Some(Kind::Integer(value)) => tagged::integer(json, *value),
        Some(Kind::Double(value)) => json.float(*value),
        Some(Kind::Text(value)) => json.string(text(value)?),
        Some(Kind::List(list)) => {
            json.begin_array()?;
            for value in &list.values {
                write_value(json, value)?;
            }
            json.end_array();
        }
        Some(Kind::Struct(members)) => return write_struct(json, &members.fields),
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|e| {
        Error::new(ErrorKind::Mismatch, "Qdrant sent text that is not UTF-8").because(e)
    })
}

/// Whether a payload may have held an integer of 2^63 or more, which gRPC turned into a float.
pub(super) fn perhaps_rounded(payload: &[answer::Member]) -> bool {
    fn value(of: &answer::Value) -> bool {
        match &of.kind {
            Some(answer::Kind::Double(float)) => {
                *float >= 9_223_372_036_854_775_808.0 && *float <= 18_446_744_073_709_551_616.0
            }
            Some(answer::Kind::List(list)) => list.values.iter().any(value),
            Some(answer::Kind::Struct(members)) => perhaps_rounded(&members.fields),
            _ => false,
        }
    }
    payload.iter().filter_map(|member| member.value.as_ref()).any(value)
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

#[cfg(test)]
mod tests {
    use backup_core::record::ElementType;
    use prost::Message as _;
    use qdrant_client::qdrant::{
        NamedVectorsOutput, RetrievedPoint, ScrollResponse, SparseIndices, VectorOutput,
        VectorsOutput, vector_output::Vector as Output, vectors_output::VectorsOptions as Outputs,
    };
    use serde_json::json;

    use super::*;
    use crate::schema::{Layout, VectorForm};

    fn forms() -> Vec<VectorForm> {
        let form = |name: &str, element, layout| VectorForm {
            name: name.to_owned(),
            element,
            layout,
            distance: None,
        };
        vec![
            form("d", ElementType::F32, Layout::Dense { dim: 3 }),
            form("h", ElementType::F16, Layout::Dense { dim: 2 }),
            form("m", ElementType::F32, Layout::Multi { dim: 2 }),
            form("s", ElementType::F32, Layout::Sparse),
            form("u", ElementType::U8, Layout::Dense { dim: 2 }),
        ]
    }

    // What the client's own types send is what comes out, of this protocol's form and of the one
    // before 1.16.
    #[allow(deprecated)]
    #[test]
    fn points_are_read_as_they_were_sent() {
        let odd = f32::from_bits(0x7fc0_1234);
        let new = |vector| VectorOutput { vector: Some(vector), ..VectorOutput::default() };
        let old = |data: &[f32]| VectorOutput { data: data.to_vec(), ..VectorOutput::default() };
        let dense = |data: &[f32]| DenseVector { data: data.to_vec() };
        let rows = vec![dense(&[1.0, 2.0]), dense(&[3.0, 4.0])];
        let sparse = SparseVector { values: vec![2.5, 1.5], indices: vec![9, 4] };
        let today = [
            ("d", new(Output::Dense(dense(&[1.5, -0.0, odd])))),
            ("h", new(Output::Dense(dense(&[0.5, -2.0])))),
            ("m", new(Output::MultiDense(MultiDenseVector { vectors: rows }))),
            ("s", new(Output::Sparse(sparse))),
            ("u", new(Output::Dense(dense(&[0.0, 255.0])))),
        ];
        let indices = Some(SparseIndices { data: vec![9, 4] });
        let before = [
            ("d", old(&[1.5, -0.0, odd])),
            ("h", old(&[0.5, -2.0])),
            ("m", VectorOutput { vectors_count: Some(2), ..old(&[1.0, 2.0, 3.0, 4.0]) }),
            ("s", VectorOutput { indices, ..old(&[2.5, 1.5]) }),
            ("u", old(&[0.0, 255.0])),
        ];
        let payload = json!({
            "z": [1, -9_007_199_254_740_993_i64, 1.5, null, true, "x\n\"é"],
            "": {"$type": "Date", "b": {"a": []}, "a": {}},
            "e": "",
        });
        let fields = payload.as_object().unwrap().clone().into_iter();
        let fields: HashMap<_, _> = fields.map(|(name, value)| (name, from_json(value))).collect();
        let mut written = Vec::new();
        for vectors in [today, before] {
            let vectors = vectors.into_iter().map(|(name, v)| (name.to_owned(), v)).collect();
            let named = Outputs::Vectors(NamedVectorsOutput { vectors });
            let point = RetrievedPoint {
                id: Some(write_id(Id::Number(7))),
                payload: fields.clone(),
                vectors: Some(VectorsOutput { vectors_options: Some(named) }),
                ..RetrievedPoint::default()
            };
            let next = Some(write_id(Id::Uuid(Uuid::nil())));
            let sent = ScrollResponse {
                result: vec![point],
                next_page_offset: next.clone(),
                time: 1.0,
                ..ScrollResponse::default()
            };
            let read = answer::Scrolled::decode(sent.encode_to_vec().as_slice()).unwrap();
            assert_eq!(read.next_page_offset, next);
            let [point] = <[_; 1]>::try_from(read.result).unwrap();
            assert!(!perhaps_rounded(&point.payload));
            let id = read_id(point.id.clone()).unwrap();
            let mut encoder = Encoder::new("c", &forms());
            encode(&mut encoder, Read { id, key: id.key(), point, exact: None }).unwrap();
            written.push(encoder.finish().unwrap());
        }
        let mut expected = Vec::new();
        tagged::escaped(&mut Writer::new(&mut expected), &payload).unwrap();
        for batch in written {
            assert_eq!(batch.get(0).value_json().as_bytes(), expected);
            let [d, h, m, s, u] = batch.columns() else { panic!("{:?}", batch.columns()) };
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&d.row_f32(0)), bits(&[1.5, -0.0, odd]));
            assert_eq!(h.row_bytes(0), [0x00, 0x38, 0x00, 0xc0]);
            assert_eq!(m.row_f32(0), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(s.row_f32(0), [1.5, 2.5]);
            assert_eq!(u.row_bytes(0), [0, 255]);
        }
    }

    #[test]
    fn a_vector_without_values_is_not_passed_over() {
        let vectors = HashMap::from([("d".to_owned(), VectorOutput::default())]);
        let named = Outputs::Vectors(NamedVectorsOutput { vectors });
        let sent = RetrievedPoint {
            vectors: Some(VectorsOutput { vectors_options: Some(named) }),
            ..RetrievedPoint::default()
        };
        let point = answer::Point::decode(sent.encode_to_vec().as_slice()).unwrap();
        let id = Id::Number(1);
        let read = Read { id, key: id.key(), point, exact: None };
        assert!(encode(&mut Encoder::new("c", &forms()), read).is_err());
    }

    #[test]
    fn what_is_no_text_or_no_vector_is_refused() {
        let text = |name: &'static [u8], value: &'static [u8]| answer::Member {
            name: name.into(),
            value: Some(answer::Value { kind: Some(answer::Kind::Text(value.into())) }),
        };
        let point = |payload, data: &'static [u8]| {
            let dense = answer::VectorKind::Dense(answer::Dense { data: data.into() });
            let vector = answer::Vector { kind: Some(dense), ..Default::default() };
            let options = Some(answer::VectorsOptions::Unnamed(vector));
            answer::Point { id: None, payload, vectors: Some(answer::Vectors { options }) }
        };
        for (payload, data) in [
            (vec![text(b"\xff", b"x")], &[0; 8][..]),
            (vec![text(b"a", b"\xff")], &[0; 8]),
            (vec![text(b"a", b"x"), text(b"a", b"y")], &[0; 8]),
            (vec![], &[0; 4]),
            (vec![], &[0; 9]),
            (vec![], &[0; 11]),
        ] {
            for element in [ElementType::F32, ElementType::F16] {
                let layout = Layout::Dense { dim: 2 };
                let form = VectorForm { name: String::new(), element, layout, distance: None };
                let mut encoder = Encoder::new("c", &[form]);
                let (id, point) = (Id::Number(1), point(payload.clone(), data));
                let read = Read { id, key: id.key(), point, exact: None };
                assert!(encode(&mut encoder, read).is_err(), "{payload:?} {data:?}");
            }
        }
    }
}
