//! `report.html`: protocol, machine, figures and tables in one file without scripts and without anything from outside.

use deberta_burn::Result;

use crate::{
    figures::Picture,
    pool::Workers,
    protocol::{Data, Preset, Settings},
    results::{Axis, Results, Spread},
    tables::{Table, duration, escape, grouped, metric, number, spread},
    variant::Variant,
};

/// A variant in numbers.
pub struct Model {
    pub variant: Variant,
    pub parameters: usize,
    pub flops_per_step: f64,
    pub learning_rate: f64,
}

/// What one learning rate came to.
pub struct Trial {
    pub variant: Variant,
    pub learning_rate: f64,
    /// The last validation losses, over seeds; NaN where one of them is.
    pub loss: Spread,
}

/// The text in numbers.
pub struct TextFigures {
    /// Tokens of the training text.
    pub tokens: usize,
    /// The validation loss of guessing by frequency alone.
    pub frequency_loss: f64,
}

/// The learning rate with the lowest mean loss, if the variant's was tuned.
pub fn best(trials: &[Trial], variant: Variant) -> Option<f64> {
    let of_variant = trials.iter().filter(|trial| trial.variant == variant);
    of_variant.min_by(|a, b| a.loss.mean.total_cmp(&b.loss.mean)).map(|trial| trial.learning_rate)
}

/// All that the report says.
pub struct Report<'a> {
    /// The arguments that made it.
    pub command: Vec<String>,
    pub preset: Preset,
    pub settings: &'a Settings,
    pub data: &'a Data,
    pub text: TextFigures,
    pub models: Vec<Model>,
    pub trials: Vec<Trial>,
    pub results: Results,
    pub workers: Workers,
}

const STYLE: &str = "\
:root { color-scheme: light dark; --line: #8886; --shade: #8881; }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.answer { font-size: 1.15rem; padding: .8rem 1rem; background: var(--shade); border-left: .3rem solid #0072b2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
tr > :first-child { text-align: left; padding-left: 0; }
figure { margin: 1.5rem 0; } figure svg { display: block; width: 100%; min-width: 34rem; height: auto; background: #fff; }
figcaption { font-size: .9rem; opacity: .8; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0 0 0 1rem; }
code { background: var(--shade); padding: .1rem .3rem; overflow-wrap: anywhere; }
";

impl Report<'_> {
    /// The text of the file.
    ///
    /// # Errors
    /// A picture that shows nothing.
    pub fn html(&self, pictures: &[Picture]) -> Result<String> {
        let mut figures = String::new();
        for picture in pictures {
            let svg = picture.figure.svg()?;
            // What precedes the element has no place in HTML.
            let svg = &svg[svg.find("<svg").unwrap_or(0)..];
            let svg =
                svg.replacen("<svg", &format!("<svg role=\"img\" aria-label=\"{}\"", escape(&picture.caption)), 1);
            let caption = escape(&picture.caption);
            figures += &format!("<figure><div class=\"wide\">{svg}</div><figcaption>{caption}</figcaption></figure>\n");
        }
        let has_switch = self.models.iter().any(|model| Variant::SWITCH.contains(&model.variant));
        let switch = ("Switch layers", self.switch_table().html() + &paragraphs(&[SWITCH_NOTE]));
        let sections = [
            ("Models", self.models_table().html() + &paragraphs(&[MODELS_NOTE, &self.frequency_note()])),
            ("How much less DeBERTa needs", self.speed_ups_table().html() + &paragraphs(&[SPEED_UPS_NOTE, PAPER_NOTE])),
            ("Curves", paragraphs(&[CURVES_NOTE]) + &figures),
            ("After fine-tuning", self.downstream_table().html() + &paragraphs(&[DOWNSTREAM_NOTE])),
            ("Learning rates", self.tuning()),
            ("Protocol", definitions(&self.protocol())),
            ("What was checked to rule out an unfair baseline", list(&self.checks())),
            ("Every run", self.runs_table().html()),
            ("Machine", definitions(&self.machine())),
        ];
        let sections = sections.into_iter().chain(has_switch.then_some(switch));
        let body: String = sections.map(|(title, body)| format!("<h2>{}</h2>\n{body}", escape(title))).collect();
        let title = "DeBERTa against RoBERTa: convergence under one protocol";
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
             <p class=\"answer\">{}</p>\n{body}</body>\n</html>\n",
            escape(&self.answer())
        ))
    }

    /// The result in a sentence or two.
    fn answer(&self) -> String {
        let speed_ups = self.results.speed_ups(Variant::Deberta, Variant::Roberta, Axis::Steps);
        let reached: Vec<f64> = speed_ups.iter().copied().flatten().collect();
        let loss = |variant| spread(self.results.last(variant, |row| row.validation_loss), 3, 1.0);
        let losses = format!(
            "After {} steps the validation loss is {} for DeBERTa and {} for RoBERTa.",
            grouped(self.settings.steps as f64),
            loss(Variant::Deberta),
            loss(Variant::Roberta),
        );
        let missed = speed_ups.len() - reached.len();
        let first = match Spread::of(&reached) {
            Some(ratio) if missed == 0 => {
                let range = match reached.len() {
                    1 => String::new(),
                    _ => format!(", from {:.2} to {:.2}", ratio.lowest, ratio.highest),
                };
                format!(
                    "DeBERTa reaches RoBERTa's final validation loss in {} times fewer steps ({}{range}).",
                    spread(Some(ratio), 2, 1.0),
                    seeds(speed_ups.len()),
                )
            }
            _ => format!(
                "DeBERTa does not come down to RoBERTa's final validation loss in {missed} of {}.",
                seeds(speed_ups.len())
            ),
        };
        format!("{first} {losses}")
    }

    /// A row a variant.
    pub fn models_table(&self) -> Table {
        let mut table = Table::new([
            "Model",
            "Parameters",
            "FLOP a step",
            "Validation loss",
            "Accuracy, %",
            "Fine-tuned, %",
            "Times fewer steps to RoBERTa's loss",
            "Time of a run",
        ]);
        for model in &self.models {
            let last = |figure: fn(&crate::results::Row) -> Option<f64>| self.results.last(model.variant, figure);
            table.rows.push(vec![
                model.variant.label().to_owned(),
                grouped(model.parameters as f64),
                metric(model.flops_per_step).trim().to_owned(),
                spread(last(|row| row.validation_loss), 3, 1.0),
                spread(last(|row| row.validation_accuracy), 1, 100.0),
                spread(last(|row| row.downstream_accuracy), 1, 100.0),
                self.speed_up(model.variant, Variant::Roberta, Axis::Steps),
                last(|row| Some(row.seconds)).map_or_else(String::new, |seconds| duration(seconds.mean)),
            ]);
        }
        table
    }

    /// How far the models are from guesses without any context.
    fn frequency_note(&self) -> String {
        let frequency = self.text.frequency_loss;
        let note = format!(
            "Guessing each token by its frequency in the training text, without looking at the context, has a loss of \
             {frequency:.3}."
        );
        // What is left of a plateau at that loss: nearly all that a context tells about a word comes after it.
        let on_plateau = |variant: &Variant| {
            let loss = self.results.last(*variant, |row| row.validation_loss);
            loss.is_some_and(|loss| loss.mean > frequency - 0.5)
        };
        let stuck: Vec<_> = self.results.variants().into_iter().filter(on_plateau).map(Variant::label).collect();
        match stuck.is_empty() {
            true => note,
            false => format!(
                "{note} {} ended less than 0.5 below it, and so had hardly begun to use the context: ratios against such a \
                 loss say how soon a model begins, not how fast it goes on. Train longer for more than that.",
                stuck.join(", ")
            ),
        }
    }

    /// The mean and spread of a speed-up, or how many runs do not reach the loss.
    fn speed_up(&self, variant: Variant, baseline: Variant, axis: Axis) -> String {
        if !variant.is_masked_lm() {
            return number(None, 0, 1.0);
        }
        let speed_ups = self.results.speed_ups(variant, baseline, axis);
        let reached: Vec<f64> = speed_ups.iter().copied().flatten().collect();
        // A mean of those that get there would say nothing of the others.
        match speed_ups.len() - reached.len() {
            0 => spread(Spread::of(&reached), 2, 1.0),
            missed => format!("never in {missed} of {}", speed_ups.len()),
        }
    }

    /// A row an axis, a column a seed.
    pub fn speed_ups_table(&self) -> Table {
        let mut header = vec!["Times less, to RoBERTa's final validation loss".to_owned()];
        header.extend(self.results.seeds().iter().map(|seed| format!("Seed {seed}")));
        header.push("Mean".to_owned());
        let row = |axis: Axis| {
            let speed_ups = self.results.speed_ups(Variant::Deberta, Variant::Roberta, axis);
            let cell =
                |speed_up: Option<f64>| speed_up.map_or_else(|| "never".to_owned(), |times| format!("{times:.2}"));
            let mut row = vec![axis.label().to_owned()];
            row.extend(speed_ups.into_iter().map(cell));
            row.push(self.speed_up(Variant::Deberta, Variant::Roberta, axis));
            row
        };
        Table { header, rows: Axis::ALL.into_iter().map(row).collect() }
    }

    /// A row an axis, a column a variant with Switch layers.
    pub fn switch_table(&self) -> Table {
        let mut header = vec!["Times less, to DeBERTa's final validation loss".to_owned()];
        header.extend(Variant::SWITCH.map(|variant| variant.label().to_owned()));
        let row = |axis: Axis| {
            let cells = Variant::SWITCH.map(|variant| self.speed_up(variant, Variant::Deberta, axis));
            [axis.label().to_owned()].into_iter().chain(cells).collect()
        };
        Table { header, rows: Axis::ALL.into_iter().map(row).collect() }
    }

    /// A row a variant, a column a checkpoint.
    fn downstream_table(&self) -> Table {
        let checkpoints = self.settings.checkpoints();
        let mut header = vec!["Accuracy, %, by steps of pretraining".to_owned()];
        header.extend(checkpoints.iter().map(|step| grouped(*step as f64)));
        let row = |variant: Variant| {
            let score = |step: &usize| {
                let of_step = self.results.rows.iter().filter(|row| row.variant == variant && row.step == *step);
                spread(Spread::of(&of_step.filter_map(|row| row.downstream_accuracy).collect::<Vec<_>>()), 1, 100.0)
            };
            let mut row = vec![variant.label().to_owned()];
            row.extend(checkpoints.iter().map(score));
            row
        };
        Table { header, rows: self.results.variants().into_iter().map(row).collect() }
    }

    fn runs_table(&self) -> Table {
        let mut table = Table::new([
            "Model",
            "Seed",
            "Steps",
            "Tokens",
            "FLOP",
            "Time",
            "Validation loss",
            "Accuracy, %",
            "Fine-tuned, %",
        ]);
        for variant in self.results.variants() {
            for seed in self.results.seeds() {
                let run = self.results.run(variant, seed);
                let Some(last) = run.last() else { continue };
                table.rows.push(vec![
                    variant.label().to_owned(),
                    seed.to_string(),
                    grouped(last.step as f64),
                    grouped(last.tokens),
                    metric(last.flops).trim().to_owned(),
                    duration(last.seconds),
                    number(last.validation_loss, 4, 1.0),
                    number(last.validation_accuracy, 2, 100.0),
                    number(last.downstream_accuracy, 2, 100.0),
                ]);
            }
        }
        table
    }

    /// How learning rates were chosen.
    fn tuning(&self) -> String {
        let chosen: Vec<_> =
            self.models.iter().map(|model| format!("{} {}", model.variant.label(), model.learning_rate)).collect();
        let chosen = format!("Highest learning rates of the runs: {}.", chosen.join(", "));
        if self.trials.is_empty() {
            let note =
                "They were not tuned here, but given as flags or by the preset; --tune X,X,X tunes each model's.";
            return paragraphs(&[&format!("{chosen} {note}")]);
        }
        let mut table = Table::new(["Validation loss, by highest learning rate", "RoBERTa", "DeBERTa"]);
        let mut rates: Vec<f64> = self.trials.iter().map(|trial| trial.learning_rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        for rate in &rates {
            let mut row = vec![rate.to_string()];
            row.extend(Variant::PAIR.iter().map(|variant| {
                let trial = self.trials.iter().find(|trial| (trial.variant, trial.learning_rate) == (*variant, *rate));
                let mark = if best(&self.trials, *variant) == Some(*rate) { " (best)" } else { "" };
                trial.map_or_else(String::new, |trial| spread(Some(trial.loss), 4, 1.0) + mark)
            }));
            table.rows.push(row);
        }
        let edge = Variant::PAIR.iter().any(|variant| {
            let best = best(&self.trials, *variant);
            best == rates.first().copied() || best == rates.last().copied()
        });
        let mut notes = vec![
            "Each model was trained in full at each rate, with seeds that no other run has, and goes on with that of its lowest mean \
             loss; what DeBERTa is without its parts has DeBERTa's. RTD's rate is given: losses at different rates are of generators that \
             are not equally hard to see through.",
            &chosen,
        ];
        if edge {
            notes.push("A best rate lies at the edge of those tried: one beyond it may be better still.");
        }
        table.html() + &paragraphs(&notes)
    }
}

const MODELS_NOTE: &str = "Loss and accuracy are of masked tokens of the validation text after the last step; the fine-tuned \
    score is the accuracy on the downstream task.";
const SPEED_UPS_NOTE: &str = "The place at which DeBERTa's validation loss comes down to RoBERTa's last one of the same seed, on \
    the straight line between two evaluations, against where RoBERTa first had that loss. Above 1, DeBERTa needs less.";
const PAPER_NOTE: &str = "For comparison: in the figure of the DeBERTa paper (arXiv 2006.03654), DeBERTa after 250,000 steps is \
    where RoBERTa is after 850,000, 3.4 times fewer: base models on 16 GB of text, by the fine-tuned MNLI score. The paper has \
    no curve of the loss.";
const SWITCH_NOTE: &str = "Every second feed-forward network is one of several, of which each token passes one (Fedus and others, \
    JMLR 2022): as many operations a token as DeBERTa, but for the router, and more parameters. In training an expert takes at most \
    1.25 times its share of a batch; in evaluations there is no limit.";
const CURVES_NOTE: &str = "Lines are means over seeds, bands one standard deviation on either side.";
const DOWNSTREAM_NOTE: &str = "As in the paper's figure: the model of each of these steps, fine-tuned. A model that ignores the \
    text would be right as often as the most frequent label occurs: 51 % of the time in the reviews that ship.";

fn seeds(count: usize) -> String {
    if count == 1 { "one seed".to_owned() } else { format!("{count} seeds") }
}

fn paragraphs(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("<p>{}</p>\n", escape(text))).collect()
}

fn list(texts: &[String]) -> String {
    let items: String = texts.iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
    format!("<ul>\n{items}</ul>\n")
}

fn definitions(pairs: &[(&str, String)]) -> String {
    let pairs: String =
        pairs.iter().map(|(name, text)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(text))).collect();
    format!("<dl>\n{pairs}</dl>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_learning_rate_has_the_lowest_loss() {
        let trial = |variant, learning_rate, losses: &[f64]| {
            let loss = Spread::of(losses).expect("losses");
            Trial { variant, learning_rate, loss }
        };
        let trials = [
            trial(Variant::Roberta, 1e-3, &[3.0, 3.0]),
            // The best of one seed, but not on average.
            trial(Variant::Roberta, 5e-4, &[2.0, 4.5]),
            trial(Variant::Roberta, 2e-3, &[2.5, 2.75]),
            // One of them diverged.
            trial(Variant::Roberta, 4e-3, &[1.0, f64::NAN]),
            trial(Variant::Deberta, 1e-3, &[2.0, 2.0]),
        ];
        assert_eq!(best(&trials, Variant::Roberta), Some(2e-3));
        assert_eq!(best(&trials, Variant::Deberta), Some(1e-3));
        assert_eq!(best(&[], Variant::Deberta), None);
    }
}
