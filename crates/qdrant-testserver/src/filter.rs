//! Filters as they come over gRPC, by way of the form they have in JSON.

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::{self as proto, Timestamp};
use qdrant_edge::Filter;
use serde_json::{Map, Value, json};
use tonic::Status;

use crate::grpc::point_id;

type Json = Result<Value, Status>;

pub(crate) fn filter_from_proto(filter: proto::Filter) -> Result<Filter, Status> {
    serde_json::from_value(to_json(filter)?).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn to_json(filter: proto::Filter) -> Json {
    let mut json = Map::new();
    let clauses = [("should", filter.should), ("must", filter.must), ("must_not", filter.must_not)];
    for (name, conditions) in clauses {
        if !conditions.is_empty() {
            json.insert(name.to_owned(), list(conditions)?);
        }
    }
    if let Some(min) = filter.min_should {
        let min = json!({"conditions": list(min.conditions)?, "min_count": min.min_count});
        json.insert("min_should".to_owned(), min);
    }
    Ok(json.into())
}

fn list(conditions: Vec<proto::Condition>) -> Json {
    conditions.into_iter().map(condition).collect()
}

fn condition(condition: proto::Condition) -> Json {
    let condition = condition
        .condition_one_of
        .ok_or_else(|| Status::invalid_argument("Malformed Condition type"))?;
    Ok(match condition {
        ConditionOneOf::Field(field) => field_condition(field)?,
        ConditionOneOf::IsEmpty(condition) => json!({"is_empty": {"key": condition.key}}),
        ConditionOneOf::IsNull(condition) => json!({"is_null": {"key": condition.key}}),
        ConditionOneOf::HasId(has) => {
            let ids = has.has_id.into_iter().map(point_id).collect::<Result<Vec<_>, _>>()?;
            json!({"has_id": ids})
        }
        ConditionOneOf::HasVector(has) => json!({"has_vector": has.has_vector}),
        ConditionOneOf::Filter(filter) => to_json(filter)?,
        ConditionOneOf::Nested(nested) => {
            let filter = to_json(nested.filter.unwrap_or_default())?;
            json!({"nested": {"key": nested.key, "filter": filter}})
        }
        ConditionOneOf::Slice(_) => return Err(unknown("slices")),
    })
}

fn unknown(what: &str) -> Status {
    Status::unimplemented(format!("The engine of this server knows no {what}"))
}

fn field_condition(field: proto::FieldCondition) -> Json {
    let mut json = Map::new();
    json.insert("key".to_owned(), field.key.into());
    let mut insert = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            json.insert(name.to_owned(), value);
        }
    };
    insert("match", field.r#match.map(matched).transpose()?);
    insert(
        "range",
        field.range.map(|r| json!({"lt": r.lt, "gt": r.gt, "gte": r.gte, "lte": r.lte})),
    );
    insert("range", field.datetime_range.map(datetime_range).transpose()?);
    insert("geo_bounding_box", field.geo_bounding_box.map(|bounds| {
        json!({"top_left": geo(bounds.top_left), "bottom_right": geo(bounds.bottom_right)})
    }));
    insert(
        "geo_radius",
        field.geo_radius.map(|r| json!({"center": geo(r.center), "radius": r.radius})),
    );
    insert(
        "geo_polygon",
        field.geo_polygon.map(|polygon| {
            let interiors: Vec<Value> = polygon.interiors.into_iter().map(ring).collect();
            json!({"exterior": polygon.exterior.map(ring), "interiors": interiors})
        }),
    );
    insert(
        "values_count",
        field.values_count.map(|c| json!({"lt": c.lt, "gt": c.gt, "gte": c.gte, "lte": c.lte})),
    );
    insert("is_empty", field.is_empty.map(Value::from));
    insert("is_null", field.is_null.map(Value::from));
    Ok(json.into())
}

fn matched(matched: proto::Match) -> Json {
    let value =
        matched.match_value.ok_or_else(|| Status::invalid_argument("Malformed Match condition"))?;
    Ok(match value {
        MatchValue::Keyword(value) => json!({"value": value}),
        MatchValue::Integer(value) => json!({"value": value}),
        MatchValue::Boolean(value) => json!({"value": value}),
        MatchValue::Text(text) => json!({"text": text}),
        MatchValue::Phrase(phrase) => json!({"phrase": phrase}),
        MatchValue::TextAny(text) => json!({"text_any": text}),
        MatchValue::Keywords(any) => json!({"any": any.strings}),
        MatchValue::Integers(any) => json!({"any": any.integers}),
        MatchValue::ExceptKeywords(except) => json!({"except": except.strings}),
        MatchValue::ExceptIntegers(except) => json!({"except": except.integers}),
        MatchValue::Prefix(_) | MatchValue::Substring(_) => {
            return Err(unknown("prefixes and substrings"));
        }
    })
}

fn datetime_range(range: proto::DatetimeRange) -> Json {
    let time = |time: Option<Timestamp>| match time {
        None => Ok(Value::Null),
        Some(time) => match jiff::Timestamp::new(time.seconds, time.nanos) {
            Ok(time) => Ok(time.to_string().into()),
            Err(_) => Err(Status::invalid_argument("Unable to parse datetime")),
        },
    };
    Ok(json!({
        "lt": time(range.lt)?, "gt": time(range.gt)?, "gte": time(range.gte)?,
        "lte": time(range.lte)?,
    }))
}

fn geo(point: Option<proto::GeoPoint>) -> Value {
    let point = point.unwrap_or_default();
    json!({"lon": point.lon, "lat": point.lat})
}

fn ring(line: proto::GeoLineString) -> Value {
    let points: Vec<Value> = line.points.into_iter().map(|point| geo(Some(point))).collect();
    json!({"points": points})
}
