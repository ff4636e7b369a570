//! The pictures of the report.

use deberta_burn::{
    Result,
    training::report::{Curve, Figure, Panel},
};

use crate::{
    protocol::Settings,
    results::{Axis, Results, Row},
    variant::Variant,
};

/// A picture with the name of its file.
pub struct Picture {
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub caption: String,
    pub figure: Figure,
}

/// All pictures, those that compare RoBERTa and DeBERTa first.
///
/// # Errors
/// Runs of one variant that were evaluated at different steps.
pub fn pictures(results: &Results, settings: &Settings) -> Result<Vec<Picture>> {
    let pair: Vec<_> = results.variants().into_iter().filter(|variant| Variant::PAIR.contains(variant)).collect();
    let mut pictures = Vec::new();
    for axis in Axis::ALL {
        pictures.push(Picture {
            name: axis.name(),
            caption: format!("Validation loss and accuracy of masked tokens against {}.", axis.label()),
            figure: Figure {
                title: format!("Masked language modelling, by {}", axis.name()),
                x_label: axis.label().to_owned(),
                panels: masked_lm(results, &pair, axis)?,
            },
        });
    }
    pictures.push(Picture {
        name: "attention",
        caption: format!(
            "How much of a token's attention goes to the token before it or behind it. Attention that is the same for all {0} \
             tokens gives each {1:.3}.",
            settings.length,
            1.0 / settings.length as f64,
        ),
        figure: Figure {
            title: "Attention to a neighbour, by steps".to_owned(),
            x_label: Axis::Steps.label().to_owned(),
            panels: attention(results, &pair)?,
        },
    });
    pictures.push(Picture {
        name: "downstream",
        caption: "Accuracy on the downstream task after fine-tuning the models of these steps of pretraining."
            .to_owned(),
        figure: Figure {
            title: "Fine-tuned score, by steps of pretraining".to_owned(),
            x_label: Axis::Steps.label().to_owned(),
            panels: vec![downstream(results, &pair)?],
        },
    });
    if results.variants().len() > pair.len() {
        let variants: Vec<_> = results.variants().into_iter().filter(|variant| variant.is_masked_lm()).collect();
        let mut panels = masked_lm(results, &variants, Axis::Steps)?;
        panels.push(downstream(results, &results.variants())?);
        let title = "Ablation, by steps".to_owned();
        pictures.push(Picture {
            name: "ablation",
            caption: "The same with parts of DeBERTa taken away.".to_owned(),
            figure: Figure { title, x_label: Axis::Steps.label().to_owned(), panels },
        });
    }
    Ok(pictures)
}

fn masked_lm(results: &Results, variants: &[Variant], axis: Axis) -> Result<Vec<Panel>> {
    Ok(vec![
        panel("validation loss", results, variants, axis, |row| row.validation_loss)?,
        panel("validation accuracy", results, variants, axis, |row| row.validation_accuracy)?,
    ])
}

fn attention(results: &Results, variants: &[Variant]) -> Result<Vec<Panel>> {
    Ok(vec![
        panel("of the head that gives most", results, variants, Axis::Steps, |row| row.best_neighbour_attention)?,
        panel("mean of all heads", results, variants, Axis::Steps, |row| row.neighbour_attention)?,
    ])
}

fn downstream(results: &Results, variants: &[Variant]) -> Result<Panel> {
    panel("downstream accuracy", results, variants, Axis::Steps, |row| row.downstream_accuracy)
}

/// A figure of several variants.
fn panel(
    label: &str,
    results: &Results,
    variants: &[Variant],
    axis: Axis,
    figure: fn(&Row) -> Option<f64>,
) -> Result<Panel> {
    let curves = variants.iter().map(|variant| curve(results, *variant, axis, figure)).collect::<Result<_>>()?;
    Ok(Panel { y_label: label.to_owned(), curves })
}

/// The mean of a variant's runs with a band of one standard deviation, where the figure was measured. Evaluations are joined
/// by their step: runs differ a little in their tokens and seconds, of which the mean is shown.
fn curve(results: &Results, variant: Variant, axis: Axis, figure: fn(&Row) -> Option<f64>) -> Result<Curve> {
    let runs: Vec<Vec<&Row>> = results
        .seeds()
        .iter()
        .map(|seed| results.run(variant, *seed).into_iter().filter(|row| figure(row).is_some()).collect())
        .collect();
    let mean_place = |step: usize| {
        let places: Vec<f64> = runs.iter().flatten().filter(|row| row.step == step).map(|row| axis.of(row)).collect();
        places.iter().sum::<f64>() / places.len() as f64
    };
    let points = |run: &Vec<&Row>| run.iter().filter_map(|row| Some((mean_place(row.step), figure(row)?))).collect();
    Curve::mean_of(variant.label(), &runs.iter().map(points).collect::<Vec<_>>())
}
