//! The forward pass.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Geometry, Head, Operands, Sequence,
    block::{MOST_QUERIES, Task, Workspace, block_size, exponentials},
};
use crate::isa::Isa;
use crate::kernels::cpu::{
    floats::Rounded,
    lines::Line,
    matrix::{MatrixMut, Shared},
    panels::Panels,
    product::Start,
    simd::vectorized,
};

/// Context, of the query's shape, by products of operands in `F`. Rows that belong to no sequence are left as they are.
pub(crate) fn forward<F: Rounded>(geometry: &Geometry<'_>, operands: Operands<'_>, context: &mut [f32]) {
    let context = Shared::new(context);
    tasks::<F>(geometry).into_par_iter().with_max_len(1).for_each_init(
        || Buffers::<F>::new(geometry.isa),
        |buffers, (sequence, head, queries)| {
            run(geometry, operands, sequence, head, queries, buffers, &context);
        },
    );
}

/// Buffers of one thread, kept from task to task.
struct Buffers<F: Rounded> {
    workspace: Workspace<F>,
    /// Vc, [length, head_size].
    values: Panels<F>,
    /// Exponentials, rounded.
    rounded: Vec<Line>,
}

impl<F: Rounded> Buffers<F> {
    fn new(isa: Isa) -> Self {
        Self { workspace: Workspace::new(isa), values: Panels::empty(isa), rounded: Vec::new() }
    }
}

/// Every sequence and head, in as many runs of queries as it takes to keep the threads busy.
fn tasks<'a, F: Rounded>(geometry: &Geometry<'a>) -> Vec<(Sequence<'a>, usize, Range<usize>)> {
    let sequences = geometry.sequences();
    let heads = geometry.heads * sequences.len();
    let runs = (2 * rayon::current_num_threads()).div_ceil(heads.max(1));
    let mut tasks = Vec::with_capacity(heads * runs);
    for sequence in sequences {
        let (count, block) = (sequence.queries.length, block_size::<F>(sequence.keys.length));
        let queries = count.div_ceil(block).div_ceil(runs) * block;
        for head in 0..geometry.heads {
            let starts = (0..count).step_by(queries);
            tasks.extend(starts.map(|start| (sequence, head, start..(start + queries).min(count))));
        }
    }
    // Long tasks first, so that no thread is left with one at the end.
    tasks.sort_by_key(|(sequence, _, queries)| std::cmp::Reverse(sequence.keys.length * queries.len()));
    tasks
}

#[allow(clippy::too_many_arguments, reason = "one head of one sequence, its inputs, its buffers and its output")]
fn run<F: Rounded>(
    geometry: &Geometry<'_>,
    operands: Operands<'_>,
    sequence: Sequence<'_>,
    head: usize,
    queries: Range<usize>,
    buffers: &mut Buffers<F>,
    context: &Shared<'_>,
) {
    let Buffers { workspace, values, rounded } = buffers;
    let (hidden, size, length) = (geometry.hidden(), geometry.head_size, sequence.keys.length);
    let inputs = Head::new(geometry, operands, sequence, head);
    let mut task = Task::new(geometry, inputs, sequence, &queries, workspace);
    values.pack(inputs.value);
    let mut sums = [0.0; MOST_QUERIES];
    for start in queries.clone().step_by(block_size::<F>(length)) {
        let block = start..(start + block_size::<F>(length)).min(queries.end);
        let mut scores = task.scores(block.clone());
        let first = sequence.queries.start + block.start;
        softmax_numerators(geometry.isa, &mut scores, &mut sums, geometry, head, first);
        let offset = first * hidden + head * size;
        // SAFETY: sequences do not overlap, and tasks differ in sequence, head or queries, so in rows or columns.
        let mut context = unsafe { context.matrix(offset, block.len(), size, hidden) };
        let exponentials = F::operand(geometry.isa, scores.view(), rounded);
        values.product(exponentials, Start::Zero, context.rows(0..block.len()));
        for (row, sum) in (0..block.len()).zip(sums) {
            for value in context.row_mut(row) {
                *value /= sum;
            }
        }
    }
}

vectorized! {
    /// Turns the scores of a block into exponentials and sums them by row; then dropout. The first query is row `token`.
    fn softmax_numerators(
        simd: impl Simd,
        scores: &mut MatrixMut<'_>,
        sums: &mut [f32],
        geometry: &Geometry<'_>,
        head: usize,
        token: usize,
    ) {
        for (row, sum) in (0..scores.shape()[0]).zip(sums) {
            let scores = scores.row_mut(row);
            *sum = exponentials(simd, scores, geometry.scale);
            if let Some(mask) = geometry.dropout {
                let mask = mask.row(head, token + row);
                for (key, score) in (0..).zip(scores) {
                    *score *= mask.factor(key);
                }
            }
        }
    }
}
