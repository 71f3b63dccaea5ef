use proptest::prelude::*;
use sagitta_engine::index::{PreparedQuery, ScalarKernel, Similarities, inverse_norm};
use sagitta_model::Metric;

use super::{CodeRows, Encoding, Kernels, QueryCode, f32_bytes, half};

const DIMENSIONS: [usize; 16] = [1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 64, 96, 127, 128, 384, 1000];

fn encode(encoding: Encoding, values: &[f32]) -> Vec<u8> {
    match encoding {
        Encoding::U8 => values.iter().map(|&value| value as u8).collect(),
        Encoding::F16 => {
            values.iter().flat_map(|&value| half::exactly_from_f32(value).unwrap().to_le_bytes()).collect()
        }
        Encoding::F32 => f32_bytes(values).to_vec(),
    }
}

/// Whole numbers of 0 to 255 are exact in every encoding.
fn bytes_as_floats(dim: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(0u8..=255, dim).prop_map(|bytes| bytes.into_iter().map(f32::from).collect())
}

#[test]
fn every_level_scores_as_the_reference_in_every_encoding() {
    for dim in DIMENSIONS {
        let case = (proptest::collection::vec(-1e3f32..1e3, dim), bytes_as_floats(dim));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(16));
        runner
            .run(&case, |(query, mut row)| {
                row[0] = row[0].max(1.0);
                for metric in Metric::ALL {
                    let Ok(query) = PreparedQuery::new(metric, &query) else {
                        continue;
                    };
                    let norm = inverse_norm(&row);
                    let expected = ScalarKernel::one(&query, &row, norm);
                    for level in Kernels::available() {
                        for encoding in [Encoding::U8, Encoding::F16, Encoding::F32] {
                            let similarity = level.similarity(&query, encoding, &encode(encoding, &row), norm);
                            prop_assert_eq!(
                                similarity.to_bits(),
                                expected.to_bits(),
                                "{}, {:?}, {}, {} dimensions",
                                level.name(),
                                encoding,
                                metric,
                                dim
                            );
                        }
                    }
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn every_level_compares_many_rows_as_the_reference() {
    for dim in DIMENSIONS {
        let rows: Vec<f32> = (0..dim * 9).map(|at| (at as f32 * 0.37).sin() * 3.0 + 0.01).collect();
        let norms: Vec<f32> = rows.chunks(dim).map(inverse_norm).collect();
        let vector: Vec<f32> = (0..dim).map(|at| (at as f32 * 0.71).cos() + 0.01).collect();
        for metric in Metric::ALL {
            let query = PreparedQuery::new(metric, &vector).unwrap();
            let (mut expected, mut found) = ([0.0; 9], [0.0; 9]);
            ScalarKernel.many(&query, &rows, &norms, &mut expected);
            for level in Kernels::available() {
                level.many(&query, &rows, &norms, &mut found);
                assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{}, {metric}, {dim}", level.name());
            }
        }
    }
}

#[test]
fn every_level_multiplies_codes_exactly() {
    for dim in DIMENSIONS {
        let stride = dim + 3;
        let rows = 11;
        let case = (
            proptest::collection::vec(-127i8..=127, dim),
            proptest::collection::vec(0u8..=255, CodeRows::bytes_needed(dim, stride, rows)),
            proptest::collection::vec(0u32..rows as u32, 0..20),
        );
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(16));
        runner
            .run(&case, |(query, codes, wanted)| {
                let product = |row: u32| -> i32 {
                    let code = &codes[row as usize * stride..][..dim];
                    query.iter().zip(code).map(|(&q, &c)| i32::from(q) * i32::from(c)).sum()
                };
                let expected: Vec<i32> = wanted.iter().map(|&row| product(row)).collect();
                for level in Kernels::available() {
                    let mut found = vec![0; wanted.len()];
                    let codes = CodeRows::new(&codes, dim, stride, rows);
                    level.dots(&QueryCode::new(&query), &codes, &wanted, &mut found);
                    prop_assert_eq!(&found, &expected, "{}, {} dimensions", level.name(), dim);
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn extreme_codes_do_not_overflow_at_the_largest_dimension() {
    let dim = sagitta_model::limits::MAX_DIMENSION;
    let codes = vec![255; CodeRows::bytes_needed(dim, dim, 1)];
    for level in Kernels::available() {
        let mut found = [0];
        level.dots(&QueryCode::new(&vec![-127; dim]), &CodeRows::new(&codes, dim, dim, 1), &[0], &mut found);
        assert_eq!(found[0], -127 * 255 * dim as i32, "{}", level.name());
    }
}

#[test]
fn every_half_comes_back_from_its_value() {
    for half in (0..=u16::MAX).filter(|half| half & 0x7c00 != 0x7c00) {
        let value = half::to_f32(half);
        assert_eq!(half::exactly_from_f32(value), Some(half), "{half:#06x} = {value}");
    }
}

#[test]
fn a_value_between_two_halves_has_no_half() {
    for half in (0..0x7bffu16).chain(0x8000..0xfbff) {
        let (here, next) = (half::to_f32(half), half::to_f32(half + 1));
        for between in [(here + next) / 2.0, here.next_up(), here.next_down()] {
            assert_eq!(half::exactly_from_f32(between), None, "{between} near {half:#06x}");
        }
    }
    for value in [65_520.0, -1e9, f32::MAX, f32::MIN_POSITIVE, f32::from_bits(1), 1e-8] {
        assert_eq!(half::exactly_from_f32(value), None, "{value}");
    }
}

#[test]
fn known_halves_have_their_values() {
    for (half, value) in
        [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65_504.0), (0x0001, 2f32.powi(-24)), (0x0400, 2f32.powi(-14))]
    {
        assert_eq!(half::to_f32(half), value);
    }
}

#[test]
#[should_panic(expected = "a row outside the codes")]
fn a_row_outside_the_codes_is_never_read() {
    let codes = [0; 128];
    Kernels::get().dots(&QueryCode::new(&[1; 64]), &CodeRows::new(&codes, 64, 64, 1), &[1], &mut [0]);
}
