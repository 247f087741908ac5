//! Points.

use std::sync::Arc;

use axum::extract::{Path, State as Ext};
use axum::response::Response;
use qdrant_edge::{
    CountRequest, Filter, PayloadOps, PointId, PointInsertOperations, PointOperations,
    ScrollRequest, SetPayloadOp, UpdateOperation, WithPayloadInterface, WithVector,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answers::{Body_, work};
use super::{Params, Server};
use crate::collection::{Collection, Shown, Updated};
use crate::error::{Error, Result};
use crate::search::{Found, Nearest};
use crate::sharding::{Keyed, Selector};

#[derive(Deserialize)]
pub(super) struct Retrieve {
    ids: Vec<PointId>,
    with_payload: Option<WithPayloadInterface>,
    #[serde(default, alias = "with_vectors")]
    with_vector: Option<WithVector>,
    shard_key: Option<Selector>,
}

pub(super) async fn retrieve(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<Retrieve>,
) -> Response {
    work(move || {
        let vector = body.with_vector.unwrap_or(WithVector::Bool(false));
        let records = state.collection(&name)?.retrieve(
            &body.ids,
            body.with_payload,
            vector,
            body.shard_key.as_ref(),
        )?;
        Ok(records.into_iter().map(Shown::from).collect::<Vec<_>>())
    })
    .await
}

pub(super) async fn retrieve_one(
    Ext(state): Ext<Server>,
    Path((name, id)): Path<(String, String)>,
) -> Response {
    work(move || {
        let id: PointId = id
            .parse()
            .map_err(|()| Error::bad_input(format!("Can not recognize \"{id}\" as point id")))?;
        let records =
            state.collection(&name)?.retrieve(&[id], None, WithVector::Bool(true), None)?;
        let record = records.into_iter().next().map(Shown::from);
        record.ok_or_else(|| Error::not_found(format!("Point with id {id} does not exists!")))
    })
    .await
}

pub(super) async fn scroll(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(Keyed { shard_key, body }): Body_<Keyed<ScrollRequest>>,
) -> Response {
    #[derive(Serialize)]
    struct Points {
        points: Vec<Shown>,
        next_page_offset: Option<PointId>,
    }
    work(move || {
        check_limit("JSON body", body.limit)?;
        let page = state.collection(&name)?.scroll(body, shard_key.as_ref())?;
        let points = page.records.into_iter().map(Shown::from).collect();
        Ok(Points { points, next_page_offset: page.next })
    })
    .await
}

pub(super) async fn query(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(body): Body_<Nearest>,
) -> Response {
    #[derive(Serialize)]
    struct Points {
        points: Vec<Found>,
    }
    work(move || {
        check_limit("JSON body", Some(body.limit))?;
        Ok(Points { points: state.collection(&name)?.search(body)? })
    })
    .await
}

pub(crate) fn check_limit(place: &str, limit: Option<usize>) -> Result<()> {
    match limit {
        Some(0) => Err(Error::validation(format!(
            "Validation error in {place}: [limit: value 0 invalid, must be 1 or larger]"
        ))),
        _ => Ok(()),
    }
}

pub(super) async fn count(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    Body_(Keyed { shard_key, body }): Body_<Keyed<CountRequest>>,
) -> Response {
    work(move || {
        let count = state.collection(&name)?.count(&body, shard_key.as_ref())?;
        Ok(json!({ "count": count }))
    })
    .await
}

#[derive(Deserialize)]
pub(super) struct Upsert {
    #[serde(flatten)]
    points: PointInsertOperations,
}

#[derive(Deserialize)]
#[serde(untagged)]
#[serde(expecting = "Expected points or a filter")]
pub(super) enum Selected {
    Points { points: Vec<PointId> },
    Filter { filter: Filter },
}

impl From<Upsert> for UpdateOperation {
    fn from(upsert: Upsert) -> Self {
        let points = PointInsertOperations::PointsList(upsert.points.into_point_vec());
        Self::PointOperation(PointOperations::UpsertPoints(points))
    }
}

impl From<Selected> for UpdateOperation {
    fn from(selected: Selected) -> Self {
        Self::PointOperation(match selected {
            Selected::Points { points } => PointOperations::DeletePoints { ids: points },
            Selected::Filter { filter } => PointOperations::DeletePointsByFilter(filter),
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Batch {
    operations: Vec<BatchOperation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BatchOperation {
    Upsert(Keyed<Upsert>),
    Delete(Keyed<Selected>),
    SetPayload(Keyed<SetPayloadOp>),
    OverwritePayload(Keyed<SetPayloadOp>),
}

impl BatchOperation {
    fn split(self) -> (UpdateOperation, Option<Selector>) {
        match self {
            Self::Upsert(upsert) => (upsert.body.into(), upsert.shard_key),
            Self::Delete(selected) => (selected.body.into(), selected.shard_key),
            Self::SetPayload(op) => {
                let set = PayloadOps::SetPayload(op.body);
                (UpdateOperation::PayloadOperation(set), op.shard_key)
            }
            Self::OverwritePayload(op) => {
                let overwrite = PayloadOps::OverwritePayload(op.body);
                (UpdateOperation::PayloadOperation(overwrite), op.shard_key)
            }
        }
    }
}

fn waits(params: &Params) -> bool {
    params.get("wait").is_some_and(|wait| wait == "true")
}

async fn change(
    state: Server,
    name: String,
    params: Params,
    operation: BatchOperation,
) -> Response {
    let (operation, keys) = operation.split();
    work(move || state.collection(&name)?.update(operation, keys.as_ref(), waits(&params))).await
}

pub(super) async fn upsert(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<Upsert>>,
) -> Response {
    change(state, name, params, BatchOperation::Upsert(body)).await
}

pub(super) async fn delete_points(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<Selected>>,
) -> Response {
    change(state, name, params, BatchOperation::Delete(body)).await
}

pub(super) async fn set_payload(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<SetPayloadOp>>,
) -> Response {
    change(state, name, params, BatchOperation::SetPayload(body)).await
}

pub(super) async fn overwrite_payload(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Keyed<SetPayloadOp>>,
) -> Response {
    change(state, name, params, BatchOperation::OverwritePayload(body)).await
}

pub(super) async fn batch(
    Ext(state): Ext<Server>,
    Path(name): Path<String>,
    params: Params,
    Body_(body): Body_<Batch>,
) -> Response {
    work(move || {
        let collection: Arc<Collection> = state.collection(&name)?;
        let operations = body.operations.into_iter().map(BatchOperation::split);
        operations
            .map(|(operation, keys)| collection.update(operation, keys.as_ref(), waits(&params)))
            .collect::<Result<Vec<Updated>>>()
    })
    .await
}
