//! Vector columns as `.npy` arrays (NumPy format 1.0), little-endian and in C order.
//!
//! As with tar headers, the reader compares a header with what the writer would have
//! written, and parses none.

use bytes::Bytes;

use super::entry::VectorRole;
use crate::{
    error::{Error, ErrorKind, Result},
    record::{ElementType, VectorColumn, VectorShape},
};

/// One array of a column: its role, its shape, and the whole file.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) role: VectorRole,
    pub(super) shape: Vec<u64>,
    pub(super) file: Vec<u8>,
}

/// The arrays of a column, in the order of the archive.
pub(super) fn arrays(column: &VectorColumn) -> Vec<Array> {
    let element = column.element();
    let array = |role: VectorRole, shape: Vec<u64>, data: &[u8]| {
        let mut file = header(role, element, &shape);
        file.extend_from_slice(data);
        Array { role, shape, file }
    };
    let u64s = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let rows = column.rows() as u64;
    let data = column.data();
    let mut arrays = match column.shape() {
        VectorShape::Dense { dim } => {
            vec![array(VectorRole::Dense, vec![rows, *dim as u64], data)]
        }
        VectorShape::Multi { dim, offsets } => vec![
            array(VectorRole::Multi, vec![offsets[column.rows()], *dim as u64], data),
            array(VectorRole::Offsets, vec![rows + 1], &u64s(offsets)),
        ],
        VectorShape::Sparse { offsets, indices } => {
            let total = indices.len() as u64;
            let places: Vec<u8> = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
            vec![
                array(VectorRole::Sparse, vec![total], data),
                array(VectorRole::Offsets, vec![rows + 1], &u64s(offsets)),
                array(VectorRole::Indices, vec![total], &places),
            ]
        }
    };
    if let Some(mask) = column.presence() {
        let mask: Vec<u8> = mask.iter().map(|p| u8::from(*p)).collect();
        arrays.push(array(VectorRole::Present, vec![rows], &mask));
    }
    arrays
}

/// Puts a column together again from its arrays.
pub(super) fn column(
    name: &str,
    element: ElementType,
    rows: usize,
    arrays: Vec<(VectorRole, Vec<u64>, Bytes)>,
) -> Result<VectorColumn> {
    let corrupt =
        |what: &'static str| Error::new(ErrorKind::Corrupt, what).on(format!("vector {name:?}"));
    let mut values = None;
    let (mut offsets, mut indices, mut present) = (None, None, None);
    for (role, shape, file) in arrays {
        let head = header(role, element, &shape);
        if !file.starts_with(&head) {
            return Err(corrupt("an array's header is not what it should be"));
        }
        let data = file.slice(head.len()..);
        let count = shape.iter().try_fold(1_u64, |n, dim| n.checked_mul(*dim));
        let size = count.and_then(|n| n.checked_mul(item_size(role, element)));
        if size != Some(data.len() as u64) {
            return Err(corrupt("an array does not have the length of its shape"));
        }
        match role {
            VectorRole::Dense | VectorRole::Multi | VectorRole::Sparse => {
                values = Some((role, shape, data));
            }
            VectorRole::Offsets => offsets = Some(le(&data, u64::from_le_bytes)),
            VectorRole::Indices => indices = Some(le(&data, u32::from_le_bytes)),
            VectorRole::Present => {
                if data.iter().any(|b| *b > 1) {
                    return Err(corrupt("a presence mask is not made of booleans"));
                }
                present = Some(data.iter().map(|b| *b == 1).collect::<Vec<_>>());
            }
        }
    }
    let (shape, data) = match (values, offsets, indices) {
        (Some((VectorRole::Dense, shape, data)), None, None) => {
            let [_, dim] = shape[..] else { return Err(corrupt("a dense array has two lengths")) };
            (VectorShape::Dense { dim: dim as usize }, data)
        }
        (Some((VectorRole::Multi, shape, data)), Some(offsets), None) => {
            let [_, dim] = shape[..] else { return Err(corrupt("a multi array has two lengths")) };
            (VectorShape::Multi { dim: dim as usize, offsets }, data)
        }
        (Some((VectorRole::Sparse, _, data)), Some(offsets), Some(indices)) => {
            (VectorShape::Sparse { offsets, indices }, data)
        }
        _ => return Err(corrupt("a vector column does not have the arrays that it needs")),
    };
    VectorColumn::from_arrays(name, element, shape, data, present, rows)
}

fn le<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N).map(|c| read(c.try_into().expect("chunks are exact"))).collect()
}

fn item_size(role: VectorRole, element: ElementType) -> u64 {
    match role {
        VectorRole::Dense | VectorRole::Multi | VectorRole::Sparse => element.size() as u64,
        VectorRole::Offsets => 8,
        VectorRole::Indices => 4,
        VectorRole::Present => 1,
    }
}

fn header(role: VectorRole, element: ElementType, shape: &[u64]) -> Vec<u8> {
    let descr = match (role, element) {
        (VectorRole::Offsets, _) => "<u8",
        (VectorRole::Indices, _) => "<u4",
        (VectorRole::Present, _) => "|b1",
        (_, ElementType::F32) => "<f4",
        (_, ElementType::F16) => "<f2",
        (_, ElementType::U8) => "|u1",
    };
    let shape = match shape {
        [one] => format!("({one},)"),
        many => format!("({})", many.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; spaces and a line feed fill to 64.
    let len = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(len as u16).to_le_bytes());
    out.extend_from_slice(dict.as_bytes());
    out.resize(10 + len - 1, b' ');
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, Key};

    #[test]
    fn columns_of_every_shape_come_back() {
        let mut builder = BatchBuilder::new("c");
        let dense = builder.dense("d", ElementType::F16, 3);
        let multi = builder.multi("m", ElementType::U8, 2);
        let sparse = builder.sparse("s", ElementType::F32);
        let full = builder.dense("f", ElementType::F32, 1);
        for row in 0..3 {
            builder.push_json(&Key::from(row), b"{}").unwrap();
            builder.set_f32(full, &[row as f32]).unwrap();
            if row != 1 {
                builder.set(dense, &[row as u8; 6]).unwrap();
                builder.set(multi, &[1, 2, 3, 4]).unwrap();
                builder.set_sparse(sparse, &[9], &1.5_f32.to_le_bytes()).unwrap();
            }
        }
        for original in builder.finish().unwrap().columns() {
            let read = |arrays: Vec<Array>| {
                let arrays = arrays.into_iter().map(|a| (a.role, a.shape, a.file.into())).collect();
                column(original.name(), original.element(), 3, arrays)
            };
            assert_eq!(&read(arrays(original)).unwrap(), original);
            let mut damaged = arrays(original);
            damaged[0].shape[0] += 1;
            assert!(read(damaged).is_err());
            assert!(read(arrays(original).into_iter().skip(1).collect()).is_err());
        }
    }

    #[test]
    fn the_header_is_aligned_and_names_type_and_shape() {
        let bytes = header(VectorRole::Dense, ElementType::F32, &[10_000, 384]);
        assert_eq!(bytes.len() % 64, 0);
        let text = String::from_utf8_lossy(&bytes[10..]);
        assert_eq!(
            text.trim_end(),
            "{'descr': '<f4', 'fortran_order': False, 'shape': (10000, 384), }"
        );
    }
}
