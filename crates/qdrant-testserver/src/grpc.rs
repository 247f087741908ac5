//! The gRPC side of the server: points, and the health check that clients begin with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_server::Points;
use qdrant_client::qdrant::qdrant_server::Qdrant;
use qdrant_client::qdrant::vectors_output::VectorsOptions as OutputOptions;
use qdrant_client::qdrant::{self as proto, point_id, value, vector, vector_output, vectors};
use qdrant_client::qdrant::{with_payload_selector, with_vectors_selector};
use qdrant_edge::{
    CountRequest, Payload, PointId, PointInsertOperations, PointOperations, PointStructPersisted,
    ScrollRequest, SparseVector, UpdateOperation, VectorInternal, VectorPersisted,
    VectorStructInternal, VectorStructPersisted, WithPayloadInterface, WithVector,
};
use serde_json::{Map, Number, Value, json};
use tonic::{Request, Response, Status};

use crate::collection::{Placed, UpdateStatus, Updated};
use crate::faults::{Action, Match};
use crate::filter::filter_from_proto;
use crate::rest::{blocking, check_limit};
use crate::sharding::{Selector, ShardKey};
use crate::state::State;
use crate::{COMMIT, TITLE};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<State>);

impl Service {
    /// Does the work of a request on a thread where it may block; `work` is also told when the
    /// request came. Checks the key first, and shows faults.
    async fn answer<Q, T>(
        &self,
        method: &str,
        request: Request<Q>,
        work: impl FnOnce(&State, Q, Instant) -> Result<T, Status> + Send + 'static,
    ) -> Answer<T>
    where
        Q: Send + 'static,
        T: Send + 'static,
    {
        let started = Instant::now();
        let metadata = request.metadata();
        let header = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        self.0.options.check_key(header).map_err(Status::unauthenticated)?;
        let mut lost = false;
        match self.0.options.faults.take(&Match::grpc(method)) {
            Some(Action::Status(status, text)) => return Err(status_of_http(status, text)),
            Some(Action::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Action::Cut(_)) => lost = true,
            Some(Action::Corrupt(_)) | None => {}
        }
        let (state, request) = (Arc::clone(&self.0), request.into_inner());
        let answer = blocking(move || Ok(work(&state, request, started))).await??;
        if lost {
            return Err(Status::unavailable("error reading a body from connection"));
        }
        Ok(Response::new(answer))
    }
}

fn status_of_http(status: u16, text: String) -> Status {
    let code = match status {
        400 | 422 => tonic::Code::InvalidArgument,
        401 => tonic::Code::Unauthenticated,
        403 => tonic::Code::PermissionDenied,
        404 => tonic::Code::NotFound,
        408 => tonic::Code::DeadlineExceeded,
        409 => tonic::Code::AlreadyExists,
        429 | 507 => tonic::Code::ResourceExhausted,
        503 => tonic::Code::Unavailable,
        _ => tonic::Code::Internal,
    };
    Status::new(code, text)
}

#[tonic::async_trait]
impl Qdrant for Service {
    async fn health_check(
        &self,
        _: Request<proto::HealthCheckRequest>,
    ) -> Answer<proto::HealthCheckReply> {
        Ok(Response::new(proto::HealthCheckReply {
            title: TITLE.to_owned(),
            version: self.0.options.version.clone(),
            commit: Some(COMMIT.to_owned()),
        }))
    }
}

fn scroll(
    state: &State,
    request: proto::ScrollPoints,
    started: Instant,
) -> Result<proto::ScrollResponse, Status> {
    let limit = request.limit.map(|limit| limit as usize);
    check_limit("body", limit)?;
    if request.order_by.is_some() {
        return Err(Status::unimplemented("This server orders points over REST only"));
    }
    let scroll = ScrollRequest {
        offset: request.offset.map(point_id).transpose()?,
        limit,
        filter: request.filter.map(filter_from_proto).transpose()?,
        with_payload: with_payload(request.with_payload)?,
        with_vector: with_vectors(request.with_vectors),
        order_by: None,
    };
    let keys = request.shard_key_selector.map(selector).transpose()?;
    let page = state.collection(&request.collection_name)?.scroll(scroll, keys.as_ref())?;
    Ok(proto::ScrollResponse {
        next_page_offset: page.next.map(point_id_to_proto),
        result: page.records.into_iter().map(record_to_proto).collect(),
        time: started.elapsed().as_secs_f64(),
        usage: None,
    })
}

fn get(
    state: &State,
    request: proto::GetPoints,
    started: Instant,
) -> Result<proto::GetResponse, Status> {
    let ids = request.ids.into_iter().map(point_id).collect::<Result<Vec<_>, _>>()?;
    let payload = with_payload(request.with_payload)?;
    let vector = with_vectors(request.with_vectors);
    let keys = request.shard_key_selector.map(selector).transpose()?;
    let collection = state.collection(&request.collection_name)?;
    let records = collection.retrieve(&ids, payload, vector, keys.as_ref())?;
    Ok(proto::GetResponse {
        result: records.into_iter().map(record_to_proto).collect(),
        time: started.elapsed().as_secs_f64(),
        usage: None,
    })
}

fn count(
    state: &State,
    request: proto::CountPoints,
    started: Instant,
) -> Result<proto::CountResponse, Status> {
    let count = CountRequest {
        filter: request.filter.map(filter_from_proto).transpose()?,
        exact: request.exact.unwrap_or(true),
    };
    let keys = request.shard_key_selector.map(selector).transpose()?;
    let collection = state.collection(&request.collection_name)?;
    let count = collection.count(&count, keys.as_ref())? as u64;
    Ok(proto::CountResponse {
        result: Some(proto::CountResult { count }),
        time: started.elapsed().as_secs_f64(),
        usage: None,
    })
}

fn upsert(
    state: &State,
    request: proto::UpsertPoints,
    started: Instant,
) -> Result<proto::PointsOperationResponse, Status> {
    if request.update_filter.is_some() || request.update_mode.is_some_and(|mode| mode != 0) {
        return Err(Status::unimplemented("This server upserts without conditions only"));
    }
    let points = request.points.into_iter().map(point).collect::<Result<Vec<_>, _>>()?;
    let points = PointInsertOperations::PointsList(points);
    let operation = UpdateOperation::PointOperation(PointOperations::UpsertPoints(points));
    let keys = request.shard_key_selector.map(selector).transpose()?;
    let collection = state.collection(&request.collection_name)?;
    let wait = request.wait.unwrap_or(false);
    Ok(updated(collection.update(operation, keys.as_ref(), wait)?, started))
}

fn delete(
    state: &State,
    request: proto::DeletePoints,
    started: Instant,
) -> Result<proto::PointsOperationResponse, Status> {
    let selected = request.points.and_then(|points| points.points_selector_one_of);
    let operation = match selected {
        None => return Err(Status::invalid_argument("PointSelector is missing")),
        Some(PointsSelectorOneOf::Points(points)) => PointOperations::DeletePoints {
            ids: points.ids.into_iter().map(point_id).collect::<Result<_, _>>()?,
        },
        Some(PointsSelectorOneOf::Filter(filter)) => {
            PointOperations::DeletePointsByFilter(filter_from_proto(filter)?)
        }
    };
    let operation = UpdateOperation::PointOperation(operation);
    let keys = request.shard_key_selector.map(selector).transpose()?;
    let collection = state.collection(&request.collection_name)?;
    let wait = request.wait.unwrap_or(false);
    Ok(updated(collection.update(operation, keys.as_ref(), wait)?, started))
}

fn updated(updated: Updated, started: Instant) -> proto::PointsOperationResponse {
    let status = match updated.status {
        UpdateStatus::Acknowledged => proto::UpdateStatus::Acknowledged,
        UpdateStatus::Completed => proto::UpdateStatus::Completed,
    };
    proto::PointsOperationResponse {
        result: Some(proto::UpdateResult {
            operation_id: Some(updated.operation_id),
            status: status.into(),
        }),
        time: started.elapsed().as_secs_f64(),
        usage: None,
    }
}

pub(crate) fn point_id(id: proto::PointId) -> Result<PointId, Status> {
    match id.point_id_options {
        Some(point_id::PointIdOptions::Num(number)) => Ok(PointId::NumId(number)),
        Some(point_id::PointIdOptions::Uuid(text)) => match text.parse() {
            Ok(uuid) => Ok(PointId::Uuid(uuid)),
            Err(_) => Err(Status::invalid_argument(format!("Unable to parse UUID: {text}"))),
        },
        None => Err(Status::invalid_argument("No ID options provided")),
    }
}

fn point_id_to_proto(id: PointId) -> proto::PointId {
    let id = match id {
        PointId::NumId(number) => point_id::PointIdOptions::Num(number),
        PointId::Uuid(uuid) => point_id::PointIdOptions::Uuid(uuid.to_string()),
    };
    proto::PointId { point_id_options: Some(id) }
}

fn with_payload(
    selector: Option<proto::WithPayloadSelector>,
) -> Result<Option<WithPayloadInterface>, Status> {
    use with_payload_selector::SelectorOptions;
    let Some(selector) = selector else { return Ok(None) };
    let selector = match selector.selector_options {
        None => return Err(Status::invalid_argument("No PayloadSelector")),
        Some(SelectorOptions::Enable(enabled)) => json!(enabled),
        Some(SelectorOptions::Include(fields)) => json!({"include": fields.fields}),
        Some(SelectorOptions::Exclude(fields)) => json!({"exclude": fields.fields}),
    };
    serde_json::from_value(selector).map(Some).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn with_vectors(selector: Option<proto::WithVectorsSelector>) -> WithVector {
    use with_vectors_selector::SelectorOptions;
    match selector.and_then(|selector| selector.selector_options) {
        None => WithVector::Bool(false),
        Some(SelectorOptions::Enable(enabled)) => WithVector::Bool(enabled),
        Some(SelectorOptions::Include(include)) => WithVector::Selector(include.names),
    }
}

fn point(point: proto::PointStruct) -> Result<PointStructPersisted, Status> {
    let id = point.id.ok_or_else(|| Status::invalid_argument("Empty ID is not allowed"))?;
    let vectors = point.vectors.ok_or_else(|| Status::invalid_argument("Expected some vectors"))?;
    let payload = Some(point.payload).filter(|payload| !payload.is_empty());
    Ok(PointStructPersisted {
        id: point_id(id)?,
        vector: point_vectors(vectors)?,
        payload: payload.map(json_object).transpose()?.map(Payload),
    })
}

fn point_vectors(vectors: proto::Vectors) -> Result<VectorStructPersisted, Status> {
    use vectors::VectorsOptions;
    match vectors.vectors_options {
        None => Err(Status::invalid_argument("No Vector Provided")),
        Some(VectorsOptions::Vector(vector)) => match point_vector(vector)? {
            VectorPersisted::Dense(dense) => Ok(VectorStructPersisted::Single(dense)),
            VectorPersisted::MultiDense(rows) => Ok(VectorStructPersisted::MultiDense(rows)),
            VectorPersisted::Sparse(_) => {
                Err(Status::invalid_argument("Sparse vector must be named"))
            }
        },
        Some(VectorsOptions::Vectors(named)) => {
            let named = named.vectors.into_iter();
            let named = named.map(|(name, vector)| Ok((name, point_vector(vector)?)));
            Ok(VectorStructPersisted::Named(named.collect::<Result<_, Status>>()?))
        }
    }
}

/// A vector as clients send it, in the form of today or in that of before 1.16.
#[expect(deprecated)]
fn point_vector(vector: proto::Vector) -> Result<VectorPersisted, Status> {
    match vector.vector {
        Some(vector::Vector::Dense(dense)) => return Ok(VectorPersisted::Dense(dense.data)),
        Some(vector::Vector::Sparse(sparse)) => {
            let proto::SparseVector { indices, values } = sparse;
            return Ok(VectorPersisted::Sparse(SparseVector { indices, values }));
        }
        Some(vector::Vector::MultiDense(multi)) => {
            let rows = multi.vectors.into_iter().map(|row| row.data);
            return Ok(VectorPersisted::MultiDense(rows.collect()));
        }
        Some(_) => return Err(Status::unimplemented("This server makes no vectors of texts")),
        None => {}
    }
    if let Some(indices) = vector.indices {
        let (indices, values) = (indices.data, vector.data);
        return Ok(VectorPersisted::Sparse(SparseVector { indices, values }));
    }
    match vector.vectors_count {
        None => Ok(VectorPersisted::Dense(vector.data)),
        Some(rows) => {
            let dim = vector.data.len().checked_div(rows as usize).filter(|dim| *dim > 0);
            let dim = dim.ok_or_else(|| {
                Status::invalid_argument("Unable to convert to multi-dense vector: it is empty")
            })?;
            let rows = vector.data.chunks(dim).map(<[f32]>::to_vec);
            Ok(VectorPersisted::MultiDense(rows.collect()))
        }
    }
}

fn selector(selector: proto::ShardKeySelector) -> Result<Selector, Status> {
    use proto::shard_key::Key;
    if selector.fallback.is_some() {
        return Err(Status::unimplemented("This server falls back to no shard key"));
    }
    let keys = selector.shard_keys.into_iter().filter_map(|key| key.key).map(|key| match key {
        Key::Keyword(keyword) => ShardKey::Keyword(keyword),
        Key::Number(number) => ShardKey::Number(number),
    });
    Ok(Selector::Several(keys.collect()))
}

fn key_to_proto(key: ShardKey) -> proto::ShardKey {
    use proto::shard_key::Key;
    let key = match key {
        ShardKey::Keyword(keyword) => Key::Keyword(keyword),
        ShardKey::Number(number) => Key::Number(number),
    };
    proto::ShardKey { key: Some(key) }
}

fn record_to_proto(Placed { record, key }: Placed) -> proto::RetrievedPoint {
    let payload = record.payload.map(|payload| payload.0).unwrap_or_default();
    proto::RetrievedPoint {
        id: Some(point_id_to_proto(record.id)),
        payload: payload.into_iter().map(|(key, value)| (key, json_to_proto(value))).collect(),
        vectors: record.vector.map(vectors_to_proto),
        shard_key: key.map(key_to_proto),
        order_value: None,
    }
}

fn vectors_to_proto(vectors: VectorStructInternal) -> proto::VectorsOutput {
    let options = match vectors {
        VectorStructInternal::Single(vector) => {
            OutputOptions::Vector(vector_to_proto(VectorInternal::Dense(vector)))
        }
        VectorStructInternal::MultiDense(vector) => {
            OutputOptions::Vector(vector_to_proto(VectorInternal::MultiDense(vector)))
        }
        VectorStructInternal::Named(named) => {
            let vectors = named.into_iter().map(|(name, vector)| (name, vector_to_proto(vector)));
            OutputOptions::Vectors(proto::NamedVectorsOutput { vectors: vectors.collect() })
        }
    };
    proto::VectorsOutput { vectors_options: Some(options) }
}

#[expect(deprecated)]
fn vector_to_proto(vector: VectorInternal) -> proto::VectorOutput {
    let vector = match vector {
        VectorInternal::Dense(data) => vector_output::Vector::Dense(proto::DenseVector { data }),
        VectorInternal::Sparse(SparseVector { indices, values }) => {
            vector_output::Vector::Sparse(proto::SparseVector { values, indices })
        }
        VectorInternal::MultiDense(multi) => {
            let rows = multi.into_multi_vectors().into_iter();
            let vectors = rows.map(|data| proto::DenseVector { data }).collect();
            vector_output::Vector::MultiDense(proto::MultiDenseVector { vectors })
        }
    };
    proto::VectorOutput { data: vec![], indices: None, vectors_count: None, vector: Some(vector) }
}

/// Integers that do not fit into 64 bits with a sign become floats, as they do on a real server.
fn json_to_proto(json: Value) -> proto::Value {
    let kind = match json {
        Value::Null => value::Kind::NullValue(0),
        Value::Bool(bool) => value::Kind::BoolValue(bool),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => value::Kind::IntegerValue(integer),
            None => value::Kind::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => value::Kind::StringValue(text),
        Value::Array(items) => value::Kind::ListValue(proto::ListValue {
            values: items.into_iter().map(json_to_proto).collect(),
        }),
        Value::Object(members) => value::Kind::StructValue(proto::Struct {
            fields: members.into_iter().map(|(key, value)| (key, json_to_proto(value))).collect(),
        }),
    };
    proto::Value { kind: Some(kind) }
}

fn json_object(fields: HashMap<String, proto::Value>) -> Result<Map<String, Value>, Status> {
    fields.into_iter().map(|(key, value)| Ok((key, json_from_proto(value)?))).collect()
}

fn json_from_proto(value: proto::Value) -> Result<Value, Status> {
    Ok(match value.kind {
        None | Some(value::Kind::NullValue(_)) => Value::Null,
        Some(value::Kind::DoubleValue(double)) => Value::Number(
            Number::from_f64(double)
                .ok_or_else(|| Status::invalid_argument("cannot convert to json number"))?,
        ),
        Some(value::Kind::IntegerValue(integer)) => integer.into(),
        Some(value::Kind::StringValue(text)) => text.into(),
        Some(value::Kind::BoolValue(bool)) => bool.into(),
        Some(value::Kind::StructValue(fields)) => Value::Object(json_object(fields.fields)?),
        Some(value::Kind::ListValue(list)) => {
            list.values.into_iter().map(json_from_proto).collect::<Result<_, _>>()?
        }
    })
}

/// The methods of the service: those that do something, and those that only say they do not.
macro_rules! points_service {
    (
        does { $($done:ident $name:literal $request:ident $answer:ident,)* }
        leaves { $($left:ident $left_request:ident $left_answer:ident,)* }
    ) => {
        #[tonic::async_trait]
        impl Points for Service {
            $(async fn $done(
                &self,
                request: Request<proto::$request>,
            ) -> Answer<proto::$answer> {
                self.answer($name, request, $done).await
            })*
            $(async fn $left(
                &self,
                _: Request<proto::$left_request>,
            ) -> Answer<proto::$left_answer> {
                Err(Status::unimplemented("Not part of this server"))
            })*
        }
    };
}

points_service! {
    does {
    upsert "Upsert" UpsertPoints PointsOperationResponse,
    delete "Delete" DeletePoints PointsOperationResponse,
    get "Get" GetPoints GetResponse,
    scroll "Scroll" ScrollPoints ScrollResponse,
    count "Count" CountPoints CountResponse,
    }
    leaves {
    update_vectors UpdatePointVectors PointsOperationResponse,
    delete_vectors DeletePointVectors PointsOperationResponse,
    set_payload SetPayloadPoints PointsOperationResponse,
    overwrite_payload SetPayloadPoints PointsOperationResponse,
    delete_payload DeletePayloadPoints PointsOperationResponse,
    clear_payload ClearPayloadPoints PointsOperationResponse,
    create_field_index CreateFieldIndexCollection PointsOperationResponse,
    delete_field_index DeleteFieldIndexCollection PointsOperationResponse,
    create_vector_name CreateVectorNameRequest PointsOperationResponse,
    delete_vector_name DeleteVectorNameRequest PointsOperationResponse,
    search SearchPoints SearchResponse,
    search_batch SearchBatchPoints SearchBatchResponse,
    search_groups SearchPointGroups SearchGroupsResponse,
    recommend RecommendPoints RecommendResponse,
    recommend_batch RecommendBatchPoints RecommendBatchResponse,
    recommend_groups RecommendPointGroups RecommendGroupsResponse,
    discover DiscoverPoints DiscoverResponse,
    discover_batch DiscoverBatchPoints DiscoverBatchResponse,
    update_batch UpdateBatchPoints UpdateBatchResponse,
    query QueryPoints QueryResponse,
    query_batch QueryBatchPoints QueryBatchResponse,
    query_groups QueryPointGroups QueryGroupsResponse,
    facet FacetCounts FacetResponse,
    search_matrix_pairs SearchMatrixPoints SearchMatrixPairsResponse,
    search_matrix_offsets SearchMatrixPoints SearchMatrixOffsetsResponse,
    }
}
