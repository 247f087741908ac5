//! The suite that every adapter runs.

use std::collections::{BTreeMap, HashMap};

use backup_conformance::{Asked, Dataset, Harness, Row, Rows};
use backup_core::{
    Error, ErrorKind, Result, async_trait,
    record::{ElementType, VectorColumn, VectorShape, tagged::Scalar},
};
use backup_qdrant::edge::{EdgeStore, qdrant_edge::*};
use serde_json::{Map, Value, json};

use super::kit::{Place, dump, names, put};

struct Edge;

fn json_of(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(b) => json!(b),
        Scalar::Integer(i) => match i64::try_from(*i) {
            Ok(i) => json!(i),
            Err(_) => json!(u64::try_from(*i).unwrap()),
        },
        Scalar::Float(f) => json!(f),
        Scalar::Text(text) => json!(text),
        Scalar::Bytes(_) => panic!("not held"),
    }
}

fn id(row: &Row) -> PointId {
    match row.key.scalars().as_deref() {
        Some([Scalar::Integer(number)]) => PointId::NumId(u64::try_from(*number).unwrap()),
        _ => panic!("not held"),
    }
}

fn vector(column: &VectorColumn) -> Vector {
    let bytes = column.row_bytes(0);
    let half = |b: &[u8]| half::f16::from_le_bytes([b[0], b[1]]).to_f32();
    let values: Vec<f32> = match column.element() {
        ElementType::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        ElementType::F16 => bytes.chunks(2).map(half).collect(),
        _ => column.row_f32(0),
    };
    match column.shape() {
        VectorShape::Sparse { .. } => {
            Vector::new_sparse(column.sparse_indices(0).to_vec(), values).unwrap()
        }
        VectorShape::Multi { dim, .. } => {
            let rows: Vec<Vec<f32>> = values.chunks(*dim).map(<[f32]>::to_vec).collect();
            Vector::new_multi(rows).unwrap()
        }
        _ => Vector::new_dense(values),
    }
}

fn config(rows: &Rows) -> EdgeConfig {
    let mut config = EdgeConfig::default();
    let columns: BTreeMap<&str, &VectorColumn> =
        rows.rows.iter().flat_map(|row| &row.vectors).map(|v| (v.name(), v)).collect();
    for (name, column) in columns {
        let (dim, multi) = match column.shape() {
            VectorShape::Sparse { .. } => {
                config.sparse_vectors.insert(name.to_owned(), EdgeSparseVectorParams::default());
                continue;
            }
            VectorShape::Multi { dim, .. } => (*dim, true),
            VectorShape::Dense { dim } => (*dim, false),
            other => panic!("{other:?}"),
        };
        let mut params = EdgeVectorParams::builder(dim, Distance::Dot).build();
        params.datatype = Some(match column.element() {
            ElementType::F16 => VectorStorageDatatype::Float16,
            ElementType::U8 => VectorStorageDatatype::Uint8,
            _ => VectorStorageDatatype::Float32,
        });
        let comparator = MultiVectorComparator::MaxSim;
        params.multivector_config = multi.then_some(MultiVectorConfig { comparator });
        config.vectors.insert(name.to_owned(), params);
    }
    config
}

#[async_trait(?Send)]
impl Harness for Edge {
    type Place = Place;
    type Store = EdgeStore;

    async fn place(&self) -> Result<Place> {
        Ok(Place::new())
    }

    // Only one handle of the engine can have a shard open: what another process finds is tested
    // with a crash.
    async fn open(&self, place: &Place) -> Result<EdgeStore> {
        // A case may restore other vectors than those that it filled in.
        Ok(place.store.clone().accept_other_vectors())
    }

    async fn fill(&self, place: &Place, data: &Dataset) -> Result<()> {
        for rows in &data.collections {
            assert!(place.store.create(config(rows))?);
            for chunk in rows.rows.chunks(1000) {
                let points = chunk.iter().map(|row| {
                    let payload: Map<_, _> =
                        row.fields.iter().map(|(name, v)| (name.clone(), json_of(v))).collect();
                    let vectors: HashMap<String, Vector> =
                        row.vectors.iter().map(|v| (v.name().to_owned(), vector(v))).collect();
                    PointStruct::new(id(row), vectors, Value::Object(payload))
                });
                put(&place.store, points.collect());
            }
        }
        Ok(())
    }

    async fn change(&self, place: &Place) -> Result<()> {
        let names = HashMap::<String, Vector>::new();
        let number = place.store.shard()?.info().points_count as u64 + 1_000_000;
        let point = PointStruct::new(number, names, json!({"changed": number}));
        let list = PointInsertOperations::PointsList(vec![point.into()]);
        let update = UpdateOperation::PointOperation(PointOperations::UpsertPoints(list));
        place.store.shard()?.update(update).map_err(|e| {
            Error::new(ErrorKind::Io, "could not change the shard").because(e.to_string())
        })
    }

    async fn dump(&self, place: &Place) -> Result<Option<Vec<String>>> {
        Ok(Some(dump(&place.store)))
    }

    async fn trace(&self, place: &Place) -> Result<Option<Vec<String>>> {
        let mut names = names(place.dir.path());
        names.retain(|name| name != "notes");
        Ok(Some(names))
    }

    fn holds(&self, what: Asked<'_>) -> bool {
        match what {
            Asked::Key(key) => matches!(
                key.scalars().as_deref(),
                Some([Scalar::Integer(number)]) if u64::try_from(*number).is_ok()
            ),
            Asked::Value(value) => match value {
                Scalar::Bytes(_) => false,
                Scalar::Float(f) => f.is_finite(),
                _ => true,
            },
            Asked::Vector(column) => {
                let sparse = matches!(column.shape(), VectorShape::Sparse { .. });
                !column.name().contains(['/', '\\'])
                    && (!sparse || column.element() == ElementType::F32)
            }
            _ => true,
        }
    }
}

#[test]
fn an_embedded_shard_conforms() {
    backup_conformance::run(&Edge);
}
