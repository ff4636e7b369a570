use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::{
    isa::{InstructionSet, Isa},
    kernels::cpu::{
        floats::{Bf16, F32, Float, Floats, PairsOfBf16, Rounded},
        lines::room,
        packed::PackedWeight,
        rate,
    },
};

/// `count` numbers from -1 to 1.
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// A matrix over a buffer of as many elements, its rows contiguous or its columns.
fn matrix(data: &[f32], rows: usize, columns: usize, transposed: bool) -> Matrix<'_> {
    match transposed {
        true => Matrix::new(data, 0, columns, rows, rows).transposed(),
        false => Matrix::new(data, 0, rows, columns, columns),
    }
}

/// An element of such a matrix.
fn at(data: &[f32], rows: usize, columns: usize, transposed: bool, [row, column]: [usize; 2]) -> f64 {
    f64::from(if transposed { data[column * rows + row] } else { data[row * columns + column] })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    // Every remainder of rows, of a panel's rows and columns, and of a task's columns; rows a multiple of 2 KB apart.
    #[test]
    fn products_are_those_of_f64(
        shape in (1usize..258, prop_oneof![4 => 1usize..900, 1 => Just(512), 1 => Just(1024)], 1usize..420),
        options in any::<(bool, bool, bool)>(),
        first in 0usize..420,
    ) {
        equals_f64::<f32>(shape, options, first)?;
        equals_f64::<bf16>(shape, options, first)?;
    }
}

/// Compares products with those of f64, of weights that are of the type already.
fn equals_f64<W: Float>(
    (rows, inner, columns): (usize, usize, usize),
    (lhs_transposed, rhs_transposed, biased): (bool, bool, bool),
    first: usize,
) -> Result<(), TestCaseError> {
    let (lhs, bias) = (values(rows * inner, 1), values(columns, 3));
    let rhs: Vec<f32> = values(inner * columns, 2).into_iter().map(|value| W::from_f32(value).to_f32()).collect();
    let lhs_matrix = matrix(&lhs, rows, inner, lhs_transposed);
    let rhs_matrix = matrix(&rhs, inner, columns, rhs_transposed);
    // Some of the elements, in f64.
    let places: Vec<[usize; 2]> = (0..200).map(|n| [n * 31 % rows, n * 17 % columns]).collect();
    let expected = places.iter().map(|[row, column]| {
        let products = (0..inner).map(|k| {
            at(&lhs, rows, inner, lhs_transposed, [*row, k]) * at(&rhs, inner, columns, rhs_transposed, [k, *column])
        });
        products.sum::<f64>() + if biased { f64::from(bias[*column]) } else { 0.0 }
    });
    let expected: Vec<f64> = expected.collect();
    let start = if biased { Start::Bias(&bias) } else { Start::Zero };
    // One rounding a product of partial sums of up to 1,024, at worst all in one direction.
    let close = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1024.0 * 1024.0 * 6e-8;
    for isa in Isa::available() {
        let panels = Panels::<Floats<W>>::new(isa, rhs_matrix);
        let unpacked = panels.unpack();
        let is_same = |i: usize| {
            let place = [i / columns, i % columns];
            f64::from(unpacked[i]) == at(&rhs, inner, columns, rhs_transposed, place)
        };
        prop_assert!((0..inner * columns).all(is_same), "{isa}: the matrix has changed");
        // What stood in the output must not matter, and the numbers of threads neither.
        let mut output = vec![f32::NAN; rows * columns];
        panels.parallel_product(lhs_matrix, start, Finish::Sums, &mut output);
        for ([row, column], expected) in places.iter().zip(&expected) {
            let found = output[row * columns + column];
            prop_assert!(close(found, *expected), "{isa}: {found} instead of {expected}");
        }
        let mut alone = vec![f32::NAN; rows * columns];
        panels.product(lhs_matrix, start, MatrixMut::new(&mut alone, 0, rows, columns, columns));
        prop_assert!(alone == output, "{isa}: other threads, other sums");
        // Added to what stands there, and some of the columns only.
        panels.product(lhs_matrix, Start::Output, MatrixMut::new(&mut alone, 0, rows, columns, columns));
        let first = panels.panel_start(first.min(columns - 1));
        let mut some = vec![f32::NAN; rows * (columns - first)];
        let some_matrix = MatrixMut::new(&mut some, 0, rows, columns - first, columns - first);
        let some_start = if biased { Start::Bias(&bias[first..]) } else { Start::Zero };
        panels.product_of_columns(lhs_matrix, first..columns, some_start, some_matrix);
        for ([row, column], expected) in places.iter().zip(&expected) {
            let twice = 2.0 * expected - if biased { f64::from(bias[*column]) } else { 0.0 };
            prop_assert!(close(alone[row * columns + column], twice), "{isa}: added to what stood there");
            if *column >= first {
                let found = some[row * (columns - first) + column - first];
                prop_assert!(found == output[row * columns + column], "{isa}: {found} of some columns");
            }
        }
    }
    Ok(())
}

/// The same rows with three other numbers between them, the first two before the first.
fn wide(rows: &[f32], width: usize) -> Vec<f32> {
    rows.chunks(width).flat_map(|row| [f32::NAN; 2].into_iter().chain(row.iter().copied()).chain([f32::NAN])).collect()
}

/// The instruction sets that have products of pairs of bf16; with tiles those that have a matrix unit, and two that do its work.
fn sets_with_pairs<const TILES: bool>() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| match TILES {
        true => isa.multiplies_tiles() || [Isa::narrowest(), Isa::widest()].contains(isa),
        false => isa.multiplies_bf16() || isa.set() == InstructionSet::Portable,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    // Around the lengths of groups and blocks.
    #[test]
    fn products_of_pairs_of_bf16_are_those_of_f64(
        rows in 1usize..258,
        inner in prop_oneof![1usize..20, 500usize..520, 1020usize..1030],
        columns in 1usize..70,
        options in any::<(bool, bool)>(),
    ) {
        pairs_equal_f64::<false>(rows, inner, columns, options)?;
        pairs_equal_f64::<true>(rows, inner, columns, options)?;
    }
}

/// Compares products of pairs with those of f64.
fn pairs_equal_f64<const TILES: bool>(
    rows: usize,
    inner: usize,
    columns: usize,
    (biased, transposed): (bool, bool),
) -> Result<(), TestCaseError> {
    let rounded = |values: &[f32]| values.iter().map(|value| bf16::from_f32(*value).to_f64()).collect::<Vec<_>>();
    let (x, weight, bias) = (values(rows * inner, 1), values(inner * columns, 2), values(columns, 3));
    let (exact_x, exact_weight) = (rounded(&x), rounded(&weight));
    let weight_at = |row: usize, column: usize| {
        exact_weight[if transposed { column * inner + row } else { row * columns + column }]
    };
    // As for the products of f32 above.
    let bound = (inner + 1).pow(2) as f64 * 6e-8;
    for isa in sets_with_pairs::<TILES>() {
        let panels = Panels::<PairsOfBf16<TILES>>::new(isa, matrix(&weight, inner, columns, transposed));
        let unpacked = panels.unpack().into_iter().map(f64::from);
        prop_assert!(
            unpacked.eq((0..inner * columns).map(|i| weight_at(i / columns, i % columns))),
            "{isa}: the matrix has changed"
        );
        let mut output = vec![f32::NAN; rows * columns];
        let start = if biased { Start::Bias(&bias) } else { Start::Zero };
        panels.map(&x, start, Finish::Sums, &mut output);
        // The same operand out of a wider matrix, in a buffer that something else was in.
        let (wide, mut buffer) = (wide(&x, inner), Vec::new());
        room::<bf16>(&mut buffer, 1000).fill(bf16::NAN);
        let part = Matrix::new(&wide, 2, rows, inner, inner + 3);
        let mut again = vec![f32::NAN; rows * columns];
        panels.product(
            PairsOfBf16::<TILES>::operand(isa, part, &mut buffer),
            start,
            MatrixMut::new(&mut again, 0, rows, columns, columns),
        );
        prop_assert!(again == output, "{isa}: another operand");
        // And out of one whose columns lie in rows.
        let columns_of_x: Vec<f32> = (0..rows * inner).map(|i| x[i % rows * inner + i / rows]).collect();
        let transposed = matrix(&columns_of_x, rows, inner, true);
        let states = PairsOfBf16::<TILES>::states(isa, transposed);
        panels.parallel_product(states.operand(), start, Finish::Sums, &mut again);
        prop_assert!(again == output, "{isa}: a transposed operand");
        for (i, found) in output.into_iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let products = (0..inner).map(|k| exact_x[row * inner + k] * weight_at(k, column));
            let expected = products.sum::<f64>() + if biased { f64::from(bias[column]) } else { 0.0 };
            prop_assert!((f64::from(found) - expected).abs() < bound, "{isa}: {found} instead of {expected}");
        }
    }
    Ok(())
}

#[test]
fn pairs_of_bf16_keep_what_is_no_number_in_its_row() {
    keeps_what_is_no_number::<false>();
    keeps_what_is_no_number::<true>();
}

fn keeps_what_is_no_number<const TILES: bool>() {
    let (mut x, weight) = (values(13 * 41, 1), values(41 * 33, 2));
    for (row, value) in [f32::NAN, f32::INFINITY, f32::MAX, 3.3e38, f32::from_bits(1)].into_iter().enumerate() {
        x[row * 41 + 40] = value;
    }
    for isa in sets_with_pairs::<TILES>() {
        let mut output = vec![0.0; 13 * 33];
        let panels = Panels::<PairsOfBf16<TILES>>::new(isa, matrix(&weight, 41, 33, false));
        panels.map(&x, Start::Zero, Finish::Sums, &mut output);
        let rows: Vec<&[f32]> = output.chunks(33).collect();
        assert!(rows[0].iter().all(|value| value.is_nan()), "{isa}");
        // The largest f32 lies beyond the largest bf16.
        assert!(rows[1..3].iter().flat_map(|row| row.iter()).all(|value| !value.is_finite()), "{isa}");
        assert!(rows[3..].iter().flat_map(|row| row.iter()).all(|value| value.is_finite()), "{isa}");
    }
}

/// Threads that wait for others take up their products, whose rows may have to be copied as well.
#[test]
fn products_at_a_time_keep_their_copies_apart() {
    let [rows, inner, columns] = [130, 1024, 400];
    let rhs = values(inner * columns, 9);
    let panels = Panels::<F32>::new(Isa::in_use(), matrix(&rhs, inner, columns, false));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("threads");
    for transposed in [false, true] {
        let lhs = [0, 1, 2].map(|seed| values(rows * inner, seed));
        let lhs = |number: usize| matrix(&lhs[number % 3], rows, inner, transposed);
        let products: Vec<Vec<f32>> = pool.install(|| {
            let product = |number: usize| {
                let mut output = vec![f32::NAN; rows * columns];
                panels.parallel_product(lhs(number), Start::Zero, Finish::Sums, &mut output);
                output
            };
            (0..24).into_par_iter().with_max_len(1).map(product).collect()
        });
        for (number, product) in products.iter().enumerate() {
            let mut alone = vec![f32::NAN; rows * columns];
            panels.product(lhs(number), Start::Zero, MatrixMut::new(&mut alone, 0, rows, columns, columns));
            assert!(*product == alone, "product {number}");
        }
    }
}

#[test]
fn numbers_that_are_none_stay_in_their_row() {
    fn check<W: Float>(isa: Isa) {
        let special = [f32::NAN, f32::INFINITY, f32::MAX, f32::from_bits(1), -0.0];
        let (mut lhs, rhs) = (values(13 * 40, 1), values(40 * 33, 2));
        for (row, value) in special.into_iter().enumerate() {
            lhs[row * 40 + 3] = value;
        }
        let mut output = vec![0.0; 13 * 33];
        let panels = Panels::<Floats<W>>::new(isa, matrix(&rhs, 40, 33, false));
        panels.parallel_product(matrix(&lhs, 13, 40, false), Start::Zero, Finish::Sums, &mut output);
        let rows: Vec<&[f32]> = output.chunks(33).collect();
        assert!(rows[0].iter().all(|value| value.is_nan()), "{isa}");
        assert!(rows[1].iter().zip(&rhs[3 * 33..]).all(|(value, weight)| *weight == 0.0 || value.is_infinite()));
        assert!(rows[2..].iter().flat_map(|row| row.iter()).all(|value| value.is_finite()), "{isa}");
    }
    for isa in Isa::available() {
        check::<f32>(isa);
        check::<bf16>(isa);
    }
}

#[test]
fn weights_at_the_edges_of_bf16_keep_their_value() {
    let edges = [bf16::MAX, bf16::MIN, bf16::MIN_POSITIVE, bf16::from_bits(1), bf16::INFINITY, bf16::ZERO, -bf16::ZERO];
    let weights: Vec<f32> = edges.iter().map(|weight| weight.to_f32()).collect();
    for isa in Isa::available() {
        let panels = Panels::<Bf16>::new(isa, matrix(&weights, 1, weights.len(), false));
        let mut output = vec![0.0; weights.len()];
        panels.parallel_product(matrix(&[1.0], 1, 1, false), Start::Zero, Finish::Sums, &mut output);
        assert_eq!(output, weights, "{isa}");
        assert!(Panels::<Bf16>::new(isa, matrix(&[f32::NAN], 1, 1, false)).unpack()[0].is_nan());
    }
}

/// Code that the compiler has failed to vectorise shows as a rate far below `gemm`'s.
#[test]
fn products_are_as_fast_as_their_registers_are_wide() {
    // Linear maps, scores of attention, its context, and both gradients of a linear map.
    let shapes = [
        ([1, 768, 768], false, false),
        ([4, 768, 768], false, false),
        ([32, 768, 768], false, false),
        ([128, 768, 384], false, false),
        ([60, 64, 512], false, true),
        ([60, 512, 64], false, false),
        ([128, 384, 768], false, true),
        ([384, 128, 768], true, false),
    ];
    for ([rows, inner, columns], lhs_transposed, rhs_transposed) in shapes {
        let (lhs, rhs) = (values(rows * inner, 1), values(inner * columns, 2));
        let (lhs, rhs) = (matrix(&lhs, rows, inner, lhs_transposed), matrix(&rhs, inner, columns, rhs_transposed));
        let mut output = vec![0.0; rows * columns];
        for isa in Isa::available() {
            let panels = Panels::<F32>::new(isa, rhs);
            let product = || panels.parallel_product(lhs, Start::Zero, Finish::Sums, &mut output);
            rate::assert_vectorised(isa, &format!("product of {rows} x {inner} x {columns}"), [lhs, rhs], product);
        }
    }
}
