//! Vectors that the engine would change.
//!
//! For the cosine distance the engine scales every vector to length one before it stores it.
//! A `float32` vector that has this length already, to one part in a million, is left alone.
//! A `float16` one, read back, is the unit vector after rounding: its length is no longer one,
//! so it would be scaled and rounded a second time, and in about one case in a hundred another
//! number would come out. So the engine is given a vector of length one that rounds to what is
//! to be stored.

use half::f16;

/// Lengths so close to one are left alone; the engine's own limit is 1e-6, of the square.
const CLOSE: f64 = 2e-7;

/// Moves `values`, which are exact in `float16`, to a vector of length one that rounds to them;
/// leaves them as they are where there is none: they were then not stored by that rule.
pub(crate) fn unit_that_rounds_to(values: &mut [f32]) {
    let targets: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    let mut point: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let bounds: Vec<(f64, f64)> = targets.iter().map(|t| interval(*t)).collect();
    // Each step goes to the nearest vector of length one, then to the nearest that rounds right.
    for _ in 0..64 {
        let squares: f64 = point.iter().map(|v| v * v).sum();
        if squares == 0.0 || !squares.is_finite() {
            return;
        }
        let scale = squares.sqrt().recip();
        for (value, (low, high)) in point.iter_mut().zip(&bounds) {
            *value = (*value * scale).clamp(*low, *high);
        }
        let near: Vec<f32> = point.iter().map(|v| *v as f32).collect();
        if near.iter().zip(&targets).all(|(v, t)| f16::from_f32(*v) == *t) && is_unit(&near) {
            values.copy_from_slice(&near);
            return;
        }
    }
}

fn is_unit(values: &[f32]) -> bool {
    // The engine adds up in `f32`.
    let engine: f32 = values.iter().map(|v| v * v).sum();
    let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    (squares - 1.0).abs() <= CLOSE && (engine - 1.0).abs() <= 8e-7
}

/// What rounds to `target`, without the borders.
fn interval(target: f16) -> (f64, f64) {
    let value = target.to_f64();
    let toward = |next: f16| {
        let border = f64::midpoint(value, next.to_f64());
        // A little inside, since a border may round away, and `f32` rounds once more.
        value + (border - value) * 0.999
    };
    let bits = target.to_bits();
    let magnitude_up = f16::from_bits(bits + 1);
    let magnitude_down = if bits & 0x7fff == 0 { -magnitude_up } else { f16::from_bits(bits - 1) };
    let (a, b) = (toward(magnitude_up), toward(magnitude_down));
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the engine does with a vector for the cosine distance, then with its type.
    fn stored(values: &[f32]) -> Vec<f16> {
        let length: f32 = values.iter().map(|v| v * v).sum();
        let unchanged = length < f32::EPSILON || (length - 1.0).abs() <= 1.0e-6;
        let scale = if unchanged { 1.0 } else { length.sqrt() };
        values.iter().map(|v| f16::from_f32(if unchanged { *v } else { v / scale })).collect()
    }

    #[test]
    fn what_was_stored_is_stored_again() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let (mut plain, mut moved) = (0, 0);
        for dim in [1, 2, 3, 4, 8, 16, 64, 384] {
            for _ in 0..500 {
                let original: Vec<f32> = (0..dim).map(|_| random()).collect();
                let first = stored(&original);
                let read: Vec<f32> = first.iter().map(|v| v.to_f32()).collect();
                plain += usize::from(stored(&read) != first);
                let mut given = read;
                unit_that_rounds_to(&mut given);
                moved += usize::from(stored(&given) != first);
            }
        }
        assert!(plain > 0, "the rule is not needed");
        assert_eq!(moved, 0);
    }

    #[test]
    fn nothing_is_not_moved() {
        let mut zero = [0.0; 4];
        unit_that_rounds_to(&mut zero);
        assert_eq!(zero, [0.0; 4]);
        let mut long = [2.0, 0.0];
        unit_that_rounds_to(&mut long);
        assert_eq!(long, [2.0, 0.0]);
    }
}
