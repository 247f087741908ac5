//! The points nearest to a vector: what `points/query` is asked for most.

use qdrant_edge::{
    DEFAULT_VECTOR_NAME, Filter, NamedQuery, Payload, PointId, QueryEnum, SearchRequest,
    WithPayloadInterface,
};
use serde::{Deserialize, Serialize};

use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::sharding::Selector;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nearest {
    query: Vec<f32>,
    #[serde(default)]
    using: Option<String>,
    #[serde(default)]
    filter: Option<Filter>,
    #[serde(default = "ten")]
    pub(crate) limit: usize,
    #[serde(default)]
    with_payload: Option<WithPayloadInterface>,
    #[serde(default)]
    pub(crate) shard_key: Option<Selector>,
}

const fn ten() -> usize {
    10
}

impl From<Nearest> for SearchRequest {
    fn from(body: Nearest) -> Self {
        let vector = body.using.unwrap_or_else(|| DEFAULT_VECTOR_NAME.to_owned());
        Self {
            query: QueryEnum::Nearest(NamedQuery::new(body.query.into(), vector)),
            filter: body.filter,
            params: None,
            limit: body.limit,
            offset: 0,
            with_payload: body.with_payload,
            with_vector: None,
            score_threshold: None,
        }
    }
}

/// A point that was found, as REST shows it.
#[derive(Serialize)]
pub(crate) struct Found {
    id: PointId,
    version: u64,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
}

impl Collection {
    pub(crate) fn search(&self, nearest: Nearest) -> Result<Vec<Found>> {
        let live = self.read()?;
        let [shard] = live.shards_to_read(nearest.shard_key.as_ref())?[..] else {
            return Err(Error::bad_request("This server searches only one shard"));
        };
        let request = SearchRequest::from(nearest);
        let found = shard.edge.search(request)?.into_iter();
        Ok(found
            .map(|point| Found {
                id: point.id,
                version: point.version,
                score: point.score,
                payload: point.payload,
            })
            .collect())
    }
}
