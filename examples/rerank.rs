//! Passages in the order of their relevance to a query, by a cross-encoder checkpoint (one output, or two labels).
//!
//! ```sh
//! cargo run --release --example rerank -- --model path/to/cross-encoder \
//!     --query "how do plants make sugar" --file passages.txt
//! cargo run --release --example rerank -- --model path/to/cross-encoder --file queries.jsonl --json
//! ```
//!
//! Plain lines are the passages of one query. Each passage becomes one line, the most relevant first: its number (from 1),
//! the raw score, the score's sigmoid, and the passage, separated by tabs. With two labels the raw score is the second
//! label's logit less the first one's, and its sigmoid the second label's probability; the example says which case it is.
//!
//! JSON lines have the fields `query` and `passages` (a list), one query a line; the rankings of several queries are
//! separated by an empty line. With `--json`, each query becomes a list of `{"index": .., "score": .., "probability": ..,
//! "relevance": ..}`, where `index` counts the passages from 0, and `relevance` is the score as sentence-transformers' CrossEncoder
//! gives it: the sigmoid of the one output, or the output itself, as the folder says. Parquet files (feature `parquet`, `--parts`)
//! have columns of these names; the answers are in the column `ranking`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use common::{CommonArgs, Failure};
use deberta_burn::{
    Error, Result,
    data::Shard,
    pipeline::{RankRequest, Reranker},
};

/// Sort passages by their relevance to a query, with a cross-encoder checkpoint
#[derive(Parser)]
#[command(after_help = "JSON lines have the fields `query` and `passages` (a list).")]
struct Args {
    #[command(flatten)]
    common: CommonArgs,

    #[cfg(feature = "parquet")]
    #[command(flatten)]
    bulk: common::bulk::BulkArgs,

    /// What is looked for in plain passages, one a line
    #[arg(long, value_name = "TEXT", help_heading = "Input")]
    #[cfg_attr(feature = "parquet", arg(conflicts_with = "parts"))]
    query: Option<String>,
}

fn main() -> ExitCode {
    common::run(|| rerank(Args::parse()))
}

fn rerank(args: Args) -> Result<(), Failure> {
    let (common, query) = (&args.common, args.query);
    if query.is_some() && common.input.shard() != Shard::WHOLE {
        let problem = "the passages of one query are ranked together; shares are of lines with a query each";
        return Err(Error::setting("--shard", problem).into());
    }
    #[cfg(feature = "parquet")]
    if let Some(job) = args.bulk.job(common)? {
        use deberta_burn::bulk::{Answers, Column};
        let (columns, reranker) = ([Column::text("query"), Column::texts("passages")], open(common)?);
        let made_by = common.made_by()?;
        return common::bulk::run(&job, &columns, Answers::Ranking, &made_by, |requests| reranker.rank(requests));
    }
    common.input.refuse_beside_json("--query", query.is_some())?;
    // Without a query the lines bring their own.
    let plain = |passage| RankRequest::new(query.clone().unwrap_or_default(), vec![passage]);
    let (mut requests, locations) = common.input.read(plain)?;
    let one_query = query.is_some();
    match query {
        Some(query) => {
            let passages = requests.into_iter().flat_map(|request| request.passages).collect();
            requests = vec![RankRequest::new(query, passages)];
        }
        None if requests.iter().any(|request| request.query.is_empty()) => {
            return Err(Error::input("query", "it is missing; give --query, or JSON lines with a `query` each").into());
        }
        None => {}
    }
    let reranker = open(common)?;
    let ranked = reranker.rank(&requests);
    // With a query of its own, the lines are passages of one request.
    let rankings = if one_query { ranked } else { locations.locate(ranked) }?;
    let mut output = common.output.open();
    for (index, (request, ranking)) in requests.iter().zip(rankings).enumerate() {
        output.write(&ranking, |out| {
            if index > 0 {
                writeln!(out)?;
            }
            ranking.iter().try_for_each(|place| {
                let passage = &request.passages[place.index];
                writeln!(out, "{}\t{:.4}\t{:.4}\t{passage}", place.index + 1, place.score, place.probability)
            })
        })?;
    }
    output.finish()
}

fn open(common: &CommonArgs) -> Result<Reranker> {
    let reranker = Reranker::from_folder(common.folder()?, common.options()?)?;
    common::warn(reranker.report());
    eprintln!("score: {}", reranker.meaning());
    Ok(reranker)
}
