//! For tests: how fast a product is beside the `gemm` crate's.

use std::{hint::black_box, time::Instant};

use super::matrix::{Matrix, MatrixMut};
use crate::isa::Isa;

/// The rate of a product of `[rows, inner, columns]` over that of `gemm`, both on this thread alone. The shortest of several
/// rounds in turn counts, so that other work on the machine has to meet every one of them to matter.
pub(crate) fn beside_gemm([rows, inner, columns]: [usize; 3], mut product: impl FnMut() + Send) -> f64 {
    let (lhs, rhs) = (vec![0.5; rows * inner], vec![0.25; inner * columns]);
    let mut output = vec![0.0; rows * columns];
    let mut gemm = || {
        let (lhs, rhs) = (Matrix::new(&lhs, 0, rows, inner, inner), Matrix::new(&rhs, 0, inner, columns, columns));
        MatrixMut::new(&mut output, 0, rows, columns, columns).product(lhs, rhs, false);
        black_box(&mut output);
    };
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    one_thread.install(|| {
        let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
        for _ in 0..20 {
            theirs = theirs.min(seconds(&mut gemm));
            ours = ours.min(seconds(&mut product));
        }
        theirs / ours
    })
}

fn seconds(run: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// Asserts that a product has at least 40 % of its registers' share of `gemm`'s rate, which uses the widest there are. Those
/// that are as they should be have 100 % of it and more; scalar code has a fourth of the narrowest registers' share, and a
/// sixteenth of the widest.
pub(crate) fn assert_vectorised(isa: Isa, ratio: f64, what: &str) {
    let share = isa.lanes() as f64 / Isa::widest().lanes() as f64;
    println!("{isa}: {what}: {ratio:.2} of gemm's rate, {:.2} of the registers' share", ratio / share);
    assert!(ratio >= 0.4 * share, "{isa}: {what} has {ratio:.3} of gemm's rate, less than {:.3}", 0.4 * share);
}
