//! The conformance kit.

use std::{collections::BTreeMap, pin::Pin};

use backup_conformance::{Asked, Dataset, Harness, Rows};
use backup_core::{
    Result, async_trait,
    record::{ElementType, VectorColumn, VectorShape, tagged::Scalar},
};
use backup_qdrant::QdrantStore;
use serde_json::{Map, Value, json};

use super::fixture::{Site, run};

struct Server;

#[async_trait(?Send)]
impl Harness for Server {
    type Place = Site;
    type Store = QdrantStore;

    async fn place(&self) -> Result<Site> {
        Ok(Site::start().await)
    }

    async fn open(&self, place: &Site) -> Result<QdrantStore> {
        place.options().open()
    }

    async fn fill(&self, place: &Site, data: &Dataset) -> Result<()> {
        for rows in &data.collections {
            place.create(&rows.name, config(rows)).await;
            for chunk in points(rows).chunks(500) {
                place.upsert(&rows.name, chunk.to_vec()).await;
            }
        }
        Ok(())
    }

    async fn change(&self, place: &Site) -> Result<()> {
        let name = place.collections().await.into_iter().next().expect("a collection");
        place
            .upsert(&name, vec![json!({"id": 999_999, "vector": {}, "payload": {"new": 1}})])
            .await;
        Ok(())
    }

    async fn dump(&self, place: &Site) -> Result<Option<Vec<String>>> {
        let all = place.all().await;
        Ok(Some(all.into_iter().filter(|line| !line.contains("backup-kit.")).collect()))
    }

    async fn trace(&self, place: &Site) -> Result<Option<Vec<String>>> {
        Ok(Some(place.traces().await))
    }

    fn holds(&self, what: Asked<'_>) -> bool {
        match what {
            Asked::Collection(name) => is_name(name),
            Asked::Key(key) => match key.scalars().as_deref() {
                Some([Scalar::Integer(number)]) => u64::try_from(*number).is_ok(),
                _ => false,
            },
            Asked::Value(Scalar::Float(value)) => value.is_finite(),
            Asked::Value(Scalar::Bytes(_)) => false,
            Asked::Vector(column) if !is_name(column.name()) => false,
            Asked::Vector(column) => {
                !matches!(column.shape(), VectorShape::Sparse { .. })
                    || column.element() == ElementType::F32
            }
            _ => true,
        }
    }

    fn block_on(&self, case: Pin<Box<dyn Future<Output = ()> + '_>>) {
        run(case);
    }
}

fn is_name(name: &str) -> bool {
    let odd = |c: char| c.is_control() || "<>:\"/\\|?*".contains(c);
    !name.is_empty() && name.len() <= 255 && !name.contains(odd)
}

/// A collection that can hold these rows; of a distance that leaves vectors as they are.
fn config(rows: &Rows) -> Value {
    let (mut dense, mut sparse) = (Map::new(), Map::new());
    for column in rows.rows.iter().flat_map(|row| &row.vectors) {
        let datatype = match column.element() {
            ElementType::F16 => "float16",
            ElementType::U8 => "uint8",
            _ => "float32",
        };
        let vector = |dim: &usize| json!({"size": dim, "distance": "Dot", "datatype": datatype});
        match column.shape() {
            VectorShape::Multi { dim, .. } => {
                let mut vector = vector(dim);
                vector["multivector_config"] = json!({"comparator": "max_sim"});
                dense.insert(column.name().to_owned(), vector);
            }
            VectorShape::Sparse { .. } => {
                sparse.insert(column.name().to_owned(), json!({}));
            }
            VectorShape::Dense { dim } => {
                dense.insert(column.name().to_owned(), vector(dim));
            }
            other => panic!("no shape of Qdrant: {other:?}"),
        }
    }
    json!({"vectors": dense, "sparse_vectors": sparse})
}

fn points(rows: &Rows) -> Vec<Value> {
    let point = |row: &backup_conformance::Row| {
        let vectors: BTreeMap<_, _> =
            row.vectors.iter().map(|column| (column.name(), vector(column))).collect();
        let id: Value = match row.key.scalars().as_deref() {
            Some([Scalar::Integer(number)]) => json!(u64::try_from(*number).expect("held")),
            other => panic!("not held: {other:?}"),
        };
        let payload: Map<String, Value> =
            row.fields.iter().map(|(name, value)| (name.clone(), scalar(value))).collect();
        json!({"id": id, "vector": vectors, "payload": payload})
    };
    rows.rows.iter().map(point).collect()
}

fn scalar(value: &Scalar) -> Value {
    match value {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => json!(value),
        Scalar::Integer(value) => match i64::try_from(*value) {
            Ok(value) => json!(value),
            Err(_) => json!(u64::try_from(*value).expect("held")),
        },
        Scalar::Float(value) => json!(value),
        Scalar::Text(text) => json!(text),
        other => panic!("not held: {other:?}"),
    }
}

fn vector(column: &VectorColumn) -> Value {
    let bytes = column.row_bytes(0);
    let values: Vec<f32> = match column.element() {
        ElementType::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        ElementType::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        _ => column.row_f32(0),
    };
    match column.shape() {
        VectorShape::Sparse { indices, .. } => json!({"indices": indices, "values": values}),
        VectorShape::Multi { dim, .. } => {
            json!(values.chunks_exact(*dim).map(<[f32]>::to_vec).collect::<Vec<_>>())
        }
        _ => json!(values),
    }
}

#[test]
fn a_server_conforms() {
    backup_conformance::run(&Server);
}
