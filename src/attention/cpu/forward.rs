//! The forward pass.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Geometry, Head, Operands, Span,
    block::{MOST_QUERIES, Task, Workspace, block_size, dense, exponentials},
};
use crate::cpu::{lanes::vectorized, matrix::Shared};

/// Context, [tokens, hidden]. Rows that belong to no sequence are left as they are.
pub(crate) fn forward(geometry: &Geometry<'_>, operands: Operands<'_>, context: &mut [f32]) {
    let context = Shared::new(context);
    tasks(geometry).into_par_iter().for_each_init(Workspace::default, |workspace, (span, head, queries)| {
        run(geometry, operands, span, head, queries, workspace, &context);
    });
}

/// Every sequence and head, in as many runs of queries as it takes to keep the threads busy.
fn tasks(geometry: &Geometry<'_>) -> Vec<(Span, usize, Range<usize>)> {
    let heads = geometry.heads * geometry.spans.len();
    let runs = (2 * rayon::current_num_threads()).div_ceil(heads.max(1));
    let mut tasks = Vec::with_capacity(heads * runs);
    for span in geometry.spans.iter().filter(|span| span.length > 0) {
        let blocks = span.length.div_ceil(block_size(span.length));
        let queries = blocks.div_ceil(runs) * block_size(span.length);
        for head in 0..geometry.heads {
            let starts = (0..span.length).step_by(queries);
            tasks.extend(starts.map(|start| (*span, head, start..(start + queries).min(span.length))));
        }
    }
    // Long tasks first, so that no thread is left with one at the end.
    tasks.sort_by_key(|(span, _, queries)| std::cmp::Reverse(span.length * queries.len()));
    tasks
}

fn run(
    geometry: &Geometry<'_>,
    operands: Operands<'_>,
    span: Span,
    head: usize,
    queries: Range<usize>,
    workspace: &mut Workspace,
    context: &Shared<'_>,
) {
    let (hidden, size, length) = (geometry.hidden(), geometry.head_size, span.length);
    let inputs = Head::new(geometry, operands, span, head);
    let mut task = Task::new(geometry, inputs, span, &queries, workspace);
    let mut sums = [0.0; MOST_QUERIES];
    for start in queries.clone().step_by(block_size(length)) {
        let block = start..(start + block_size(length)).min(queries.end);
        let scores = task.scores(block.clone());
        softmax_numerators(scores, &mut sums, geometry, head, span.start + block.start, length);
        let offset = (span.start + block.start) * hidden + head * size;
        // SAFETY: sequences do not overlap, and tasks differ in sequence, head or queries, so in rows or columns.
        let mut context = unsafe { context.matrix(offset, block.len(), size, hidden) };
        context.product(dense(scores, block.len(), length), inputs.value, false);
        for (row, sum) in (0..block.len()).zip(sums) {
            for value in context.row_mut(row) {
                *value /= sum;
            }
        }
    }
}

vectorized! {
    /// Turns the scores of a block into exponentials and sums them by row; then dropout. The first query is row `token`.
    fn softmax_numerators<'a>(
        scores: &'a mut [f32],
        sums: &'a mut [f32],
        geometry: &'a Geometry<'a>,
        head: usize,
        token: usize,
        length: usize,
    ) {
        for (row, (scores, sum)) in scores.chunks_exact_mut(length).zip(sums).enumerate() {
            *sum = exponentials(scores, geometry.scale);
            if let Some(mask) = geometry.dropout {
                let mask = mask.row(head, token + row);
                for (key, score) in (0..).zip(scores) {
                    *score *= mask.factor(key);
                }
            }
        }
    }
}
