//! For tests: how fast a product is beside the `gemm` crate's.

use std::{hint::black_box, time::Instant};

use super::matrix::Matrix;
use crate::isa::Isa;

/// The rate of a product of `lhs` and `rhs` over that of `gemm`, both on this thread alone. The shortest of several rounds in
/// turn counts, so that other work on the machine has to meet every one of them to matter.
fn beside_gemm(lhs: Matrix<'_>, rhs: Matrix<'_>, product: &mut (impl FnMut() + Send)) -> f64 {
    let mut output = vec![0.0; lhs.shape()[0] * rhs.shape()[1]];
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    one_thread.install(|| {
        let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
        for _ in 0..20 {
            theirs = theirs.min(seconds(|| gemm(lhs, rhs, &mut output)));
            ours = ours.min(seconds(&mut *product));
        }
        theirs / ours
    })
}

/// The product by the `gemm` crate.
fn gemm(lhs: Matrix<'_>, rhs: Matrix<'_>, output: &mut [f32]) {
    let ([rows, inner], [_, columns]) = (lhs.shape(), rhs.shape());
    assert_eq!(output.len(), rows * columns);
    let ([lhs_rows, lhs_columns], [rhs_rows, rhs_columns]) = (lhs.strides(), rhs.strides());
    let output = black_box(output.as_mut_ptr());
    // SAFETY: the views lie inside their buffers, and the output has room for rows x columns elements.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            output,
            1,
            columns as isize,
            false,
            lhs.pointer(),
            lhs_columns,
            lhs_rows,
            rhs.pointer(),
            rhs_columns,
            rhs_rows,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn seconds(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// Asserts that a product of `lhs` and `rhs` has at least 40 % of its registers' share of `gemm`'s rate, which uses the widest
/// there are. Those that are as they should be have 100 % of it and more; scalar code has a fourth of the narrowest registers'
/// share, and a sixteenth of the widest. On a busy machine it measures a few times.
pub(crate) fn assert_vectorised(isa: Isa, what: &str, [lhs, rhs]: [Matrix<'_>; 2], mut product: impl FnMut() + Send) {
    let share = isa.lanes() as f64 / Isa::widest().lanes() as f64;
    let (least, mut best) = (0.4 * share, 0f64);
    for _ in 0..5 {
        best = best.max(beside_gemm(lhs, rhs, &mut product));
        if best >= least {
            break;
        }
    }
    println!("{isa}: {what}: {best:.2} of gemm's rate, {:.2} of the registers' share", best / share);
    assert!(best >= least, "{isa}: {what} has {best:.3} of gemm's rate, less than {least:.3}");
}
