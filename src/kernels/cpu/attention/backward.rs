//! The backward pass. With P the probabilities, M the dropout factors, and G the gradient of the context,
//!
//! ```text
//! dV  = (P M)^T G            dP = (G V^T) M            dS = P (dP - sum_j P dP) / sqrt(d n)
//! dQc = dS Kc  + A Kr        A[i, r]  = sum of dS[i, j] over the j with idx(i, j) = r
//! dKc = dS^T Qc + B^T Qr     B[r, j]  = sum of dS[i, j] over the i with idx(i, j) = r
//! dKr = A^T Qc               dQr = B Kc
//! ```

use rayon::prelude::*;

use super::{
    Geometry, Head, Operands, Sequence,
    block::{Buffer, Task, Workspace, block_size, exponentials},
    positions::{sum_by_key, sum_by_query},
    view,
};
use crate::isa::Isa;
use crate::kernels::cpu::{
    floats::Rounded,
    lanes,
    lines::Line,
    matrix::{Matrix, MatrixMut, Shared},
    panels::Panels,
    product::Start,
    simd::vectorized,
};

/// Gradients of the operands, of their shapes; rows that belong to no sequence are zero.
pub(crate) struct Gradients {
    pub query: Vec<f32>,
    pub key: Vec<f32>,
    pub value: Vec<f32>,
    pub position_key: Option<Vec<f32>>,
    pub position_query: Option<Vec<f32>>,
}

/// Gradients from that of the context, which has the query's shape, by products of operands in `F`.
pub(crate) fn backward<F: Rounded>(geometry: &Geometry<'_>, operands: Operands<'_>, gradient: &[f32]) -> Gradients {
    let zeros = |like: &[f32]| vec![0.0; like.len()];
    let mut gradients = Gradients {
        query: zeros(operands.query),
        key: zeros(operands.key),
        value: zeros(operands.value),
        position_key: None,
        position_query: None,
    };

    // A head's position gradients sum over the sequences. Where there are fewer heads than it takes to keep the threads busy,
    // several groups of sequences each make a sum of their own.
    let sequences = geometry.sequences();
    let groups = (2 * rayon::current_num_threads()).div_ceil(geometry.heads).min(sequences.len()).max(1);
    let group_size = sequences.len().div_ceil(groups).max(1);
    let groups: Vec<&[Sequence<'_>]> = sequences.chunks(group_size).collect();
    let tables = groups.len().max(1);
    let table_size = operands.position_key.or(operands.position_query).map_or(0, <[f32]>::len);
    let sums = |operand: Option<&[f32]>| vec![0.0; if operand.is_some() { tables * table_size } else { 0 }];
    let (mut position_key, mut position_query) = (sums(operands.position_key), sums(operands.position_query));

    let outputs = Outputs {
        query: Shared::new(&mut gradients.query),
        key: Shared::new(&mut gradients.key),
        value: Shared::new(&mut gradients.value),
        position_key: Shared::new(&mut position_key),
        position_query: Shared::new(&mut position_query),
    };
    let tasks: Vec<_> = (0..geometry.heads)
        .flat_map(|head| groups.iter().enumerate().map(move |(group, sequences)| (head, group, *sequences)))
        .collect();
    tasks.into_par_iter().for_each_init(
        || Buffers::<F>::new(geometry.isa),
        |workspace, (head, group, sequences)| {
            for sequence in sequences {
                let table = group * table_size + geometry.first_row * geometry.hidden();
                run(geometry, operands, *sequence, head, table, gradient, workspace, &outputs);
            }
        },
    );

    gradients.position_key = operands.position_key.map(|_| total(position_key, table_size));
    gradients.position_query = operands.position_query.map(|_| total(position_query, table_size));
    gradients
}

/// The sum of the groups' tables.
fn total(mut groups: Vec<f32>, size: usize) -> Vec<f32> {
    let (first, rest) = groups.split_at_mut(size);
    for group in rest.chunks_exact(size) {
        for (sum, value) in first.iter_mut().zip(group) {
            *sum += value;
        }
    }
    groups.truncate(size);
    groups
}

struct Outputs<'a> {
    query: Shared<'a>,
    key: Shared<'a>,
    value: Shared<'a>,
    position_key: Shared<'a>,
    position_query: Shared<'a>,
}

/// Buffers of one thread, kept from task to task.
struct Buffers<F: Rounded> {
    forward: Workspace<F>,
    /// V^T, [head_size, length].
    values: Panels<F>,
    /// Kc, [length, head_size].
    keys: Panels<F>,
    /// A right operand that is used once.
    other: Panels<F>,
    /// A left operand, rounded.
    rounded: Vec<Line>,
    /// dP, then dS, [queries, length].
    scores: Buffer,
    /// P M, [queries, length].
    dropped: Buffer,
    /// A with its columns reversed, [queries, rows].
    by_query: Buffer,
    /// B, [rows, length].
    by_key: Buffer,
}

impl<F: Rounded> Buffers<F> {
    fn new(isa: Isa) -> Self {
        Self {
            forward: Workspace::new(isa),
            values: Panels::empty(isa),
            keys: Panels::empty(isa),
            other: Panels::empty(isa),
            rounded: Vec::new(),
            scores: Buffer::default(),
            dropped: Buffer::default(),
            by_query: Buffer::default(),
            by_key: Buffer::default(),
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "one head of one sequence, its inputs and its outputs")]
fn run<F: Rounded>(
    geometry: &Geometry<'_>,
    operands: Operands<'_>,
    sequence: Sequence<'_>,
    head: usize,
    table: usize,
    gradient: &[f32],
    buffers: &mut Buffers<F>,
    outputs: &Outputs<'_>,
) {
    let (hidden, size) = (geometry.hidden(), geometry.head_size);
    let (length, queries) = (sequence.keys.length, sequence.queries.length);
    let inputs = Head::new(geometry, operands, sequence, head);
    let gradient = view(geometry, gradient, sequence.queries, head);
    let offset = sequence.keys.start * hidden + head * size;
    let position_rows = geometry.index.map_or(0, |index| index.rows().len());
    // SAFETY: tasks differ in head, so in columns, or in the group of sequences, which do not overlap, so in rows; of the
    // position tables each group has its own.
    let (mut d_query, mut d_key, mut d_value) = unsafe {
        (
            outputs.query.matrix(sequence.queries.start * hidden + head * size, queries, size, hidden),
            outputs.key.matrix(offset, length, size, hidden),
            outputs.value.matrix(offset, length, size, hidden),
        )
    };

    let Buffers { forward, values, keys, other, rounded, scores: d_scores, dropped, by_query, by_key } = buffers;
    let mut product = |panels: &Panels<F>, lhs: Matrix<'_>, start: Start<'_>, output: MatrixMut<'_>| {
        panels.product(F::operand(geometry.isa, lhs, rounded), start, output);
    };
    let mut task = Task::new(geometry, inputs, sequence, &(0..queries), forward);
    values.pack(inputs.value.transposed());
    keys.pack(inputs.key);
    if let Some(reach) = inputs.position_query.and(task.reach()) {
        by_key.matrix(reach.rows.len(), length).fill(0.0);
    }
    for start in (0..queries).step_by(block_size::<F>(length)) {
        let block = start..(start + block_size::<F>(length)).min(queries);
        let rows = block.len();
        let (query, gradient) = (inputs.query.rows(block.clone()), gradient.rows(block.clone()));

        let mut d_scores = d_scores.matrix(rows, length);
        product(values, gradient, Start::Zero, d_scores.rows(0..rows));
        let mut dropped = dropped.matrix(rows, length);
        let mut probabilities = task.scores(block.clone());
        let first = sequence.queries.start + block.start;
        score_gradients(geometry.isa, geometry, head, first, &mut probabilities, &mut d_scores, &mut dropped);

        let d_scores = d_scores.view();
        other.pack(gradient);
        product(other, dropped.view().transposed(), Start::Output, d_value.rows(0..length));
        product(keys, d_scores, Start::Zero, d_query.rows(block.clone()));
        other.pack(query);
        product(other, d_scores.transposed(), Start::Output, d_key.rows(0..length));

        if let (Some(positions), Some(reach)) = (inputs.position_key, task.block_reach(&block)) {
            let width = reach.rows.len();
            let mut sums = by_query.matrix(rows, width);
            sum_by_query(geometry.isa, &mut sums, d_scores, block.clone(), &reach);
            let sums = sums.view();
            // SAFETY: as above.
            let mut d_positions =
                unsafe { outputs.position_key.matrix(table + head * size, position_rows, size, hidden) };
            let mut d_positions = d_positions.rows(reach.rows.clone());
            // Still that of the query.
            product(other, sums.transposed(), Start::Output, d_positions.reversed());
            other.pack(positions.rows(reach.rows.clone()).reversed());
            product(other, sums, Start::Output, d_query.rows(block.clone()));
        }
        if let Some(reach) = inputs.position_query.and(task.reach()) {
            let mut sums = by_key.matrix(reach.rows.len(), length);
            sum_by_key(geometry.isa, &mut sums, d_scores, block, reach);
        }
    }
    if let (Some(positions), Some(reach)) = (inputs.position_query, task.reach()) {
        let rows = reach.rows.len();
        let sums = by_key.written(rows, length);
        // SAFETY: as above.
        let mut d_positions =
            unsafe { outputs.position_query.matrix(table + head * size, position_rows, size, hidden) };
        product(keys, sums, Start::Output, d_positions.rows(reach.rows.clone()));
        other.pack(positions.rows(reach.rows.clone()));
        product(other, sums.transposed(), Start::Output, d_key.rows(0..length));
    }
}

vectorized! {
    /// From scores and G V^T of a block, whose first query is row `token`, to dS, in place of G V^T, and P M.
    fn score_gradients(
        simd: impl Simd,
        geometry: &Geometry<'_>,
        head: usize,
        token: usize,
        scores: &mut MatrixMut<'_>,
        d_scores: &mut MatrixMut<'_>,
        dropped: &mut MatrixMut<'_>,
    ) {
        for row in 0..scores.shape()[0] {
            let (scores, d_scores, dropped) = (scores.row_mut(row), d_scores.row_mut(row), dropped.row_mut(row));
            let normalizer = 1.0 / exponentials(simd, scores, geometry.scale);
            let probabilities = scores;
            for (probability, dropped) in probabilities.iter_mut().zip(dropped.iter_mut()) {
                *probability *= normalizer;
                *dropped = *probability;
            }
            if let Some(mask) = geometry.dropout {
                let mask = mask.row(head, token + row);
                for (key, (dropped, d_score)) in (0..).zip(dropped.iter_mut().zip(d_scores.iter_mut())) {
                    let factor = mask.factor(key);
                    *dropped *= factor;
                    *d_score *= factor;
                }
            }
            let mean = lanes::dot(probabilities, d_scores);
            for (d_score, probability) in d_scores.iter_mut().zip(probabilities) {
                *d_score = *probability * (*d_score - mean) * geometry.scale;
            }
        }
    }
}
