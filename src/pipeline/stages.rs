//! The three steps from a request to its answer, and how many requests go through them.

use rayon::prelude::*;

use super::Runner;
use crate::{
    Error, Result,
    batch::{Encoding, Truncated, batches_by_length},
};

/// A task in three steps. They can be taken apart, as a server does, which mixes sequences of many requests in one batch;
/// [`run`](Self::run) takes them in a row.
///
/// ```
/// use deberta_burn::{device::device, pipeline::{FillMask, FillRequest, Pipeline, PipelineOptions}};
///
/// # fn main() -> deberta_burn::Result<()> {
/// let model = FillMask::from_folder("models/deberta-tiny", PipelineOptions::new(device("flex")?))?;
/// let request = FillRequest { text: "The old [MASK] shook his head.".into(), top_k: 1 };
/// let sequences = model.encode(&request)?;
/// let rows = model.forward(&sequences.iter().collect::<Vec<_>>())?;
/// let masks = model.decode(&request, &sequences, rows)?;
/// assert_eq!(masks[0].words[0].word, "man");
/// # Ok(())
/// # }
/// ```
pub trait Pipeline: Send + Sync {
    /// What is asked, with the options of the task.
    type Request: Send + Sync;
    /// What is answered to one request.
    type Answer: Send;

    /// The opened checkpoint.
    fn runner(&self) -> &Runner;

    /// Step 1, without the model: the sequences of a request, at least one. [`Encoding::text`] numbers the texts inside the
    /// request.
    ///
    /// # Errors
    /// Texts or options that the task cannot use.
    fn encode(&self, request: &Self::Request) -> Result<Vec<Encoding>>;

    /// Step 2, the arithmetic: one batch of sequences, of any requests, to one row of raw numbers for each. A row depends on
    /// the ids, types and word ids of its sequence alone.
    ///
    /// # Errors
    /// No sequence, or one that the model cannot take.
    fn forward(&self, batch: &[&Encoding]) -> Result<Vec<Vec<f32>>>;

    /// Step 3, without the model: the answer from all sequences of a request and their rows.
    ///
    /// # Errors
    /// Numbers that are not finite.
    fn decode(&self, request: &Self::Request, sequences: &[Encoding], rows: Vec<Vec<f32>>) -> Result<Self::Answer>;

    /// What a text is called in errors, by the numbers of its request and of the text inside it.
    fn name(request: usize, _text: usize) -> String {
        format!("text {request}")
    }

    /// Answers requests, in batches of similar length and at most [`batch_tokens`](super::PipelineOptions::batch_tokens). The
    /// answers have the order of the requests.
    ///
    /// # Errors
    /// No request at all, or what a step fails with; errors number the requests from 0.
    fn run(&self, requests: &[Self::Request]) -> Result<Vec<Self::Answer>> {
        if requests.is_empty() {
            return Err(Error::input("texts", "there are none, expected at least one"));
        }
        let runner = self.runner();
        let in_request =
            |request: usize| move |error: Error| error.in_request(request, |text| Self::name(request, text));

        let encoded: Vec<Result<Vec<Encoding>>> = requests.par_iter().map(|request| self.encode(request)).collect();
        let encoded = (0..).zip(encoded).map(|(request, sequences)| sequences.map_err(in_request(request)));
        let encoded = encoded.collect::<Result<Vec<Vec<Encoding>>>>()?;
        let max_length = runner.max_length();
        let cut = encoded.iter().filter_map(|sequences| Truncated::count(sequences, max_length));
        if let Some(truncated) = cut.reduce(|sum, cut| Truncated { texts: sum.texts + cut.texts, ..sum }) {
            (runner.options().truncated)(truncated);
        }

        let sequences: Vec<(usize, usize)> = (0..)
            .zip(&encoded)
            .flat_map(|(request, sequences)| (0..sequences.len()).map(move |sequence| (request, sequence)))
            .collect();
        let lengths: Vec<usize> = encoded.iter().flatten().map(Encoding::len).collect();
        let mut rows: Vec<Vec<Vec<f32>>> = encoded.iter().map(|sequences| vec![Vec::new(); sequences.len()]).collect();
        let mut missing: Vec<usize> = encoded.iter().map(Vec::len).collect();
        let mut answers: Vec<Option<Self::Answer>> = requests.iter().map(|_| None).collect();
        let mut done = 0;
        for batch in batches_by_length(&lengths, runner.options().batch_tokens)? {
            let places: Vec<(usize, usize)> = batch.into_iter().map(|index| sequences[index]).collect();
            let encodings: Vec<&Encoding> =
                places.iter().map(|&(request, sequence)| &encoded[request][sequence]).collect();
            for (&(request, sequence), row) in places.iter().zip(self.forward(&encodings)?) {
                rows[request][sequence] = row;
                missing[request] -= 1;
                // At once, because rows may be large.
                if missing[request] == 0 {
                    let rows = std::mem::take(&mut rows[request]);
                    let answer = self.decode(&requests[request], &encoded[request], rows);
                    answers[request] = Some(answer.map_err(in_request(request))?);
                }
            }
            done += places.len();
            if let Some(progress) = &runner.options().progress {
                progress(done, sequences.len());
            }
        }
        Ok(answers.into_iter().map(|answer| answer.expect("every request has a sequence")).collect())
    }
}
