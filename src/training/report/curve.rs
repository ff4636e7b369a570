//! A curve: a line of a picture, or the mean of several lines with their spread.

use crate::{Error, Result};

/// A line; if it stands for several, with a band for their spread.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right. The line is interrupted at points that are not finite.
    pub points: Vec<(f64, f64)>,
    /// The lower and upper end of the band at each point.
    pub band: Option<Vec<(f64, f64)>>,
}

impl Curve {
    /// A line without a band.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, band: None }
    }

    /// The mean of several runs that were measured at the same steps, such as runs of several seeds, with a band of one
    /// (sample) standard deviation on either side. A single run has no band.
    ///
    /// # Errors
    /// No runs, or runs that were measured at different steps.
    pub fn mean_of(name: impl Into<String>, runs: &[Vec<(f64, f64)>]) -> Result<Self> {
        let name = name.into();
        let [first, others @ ..] = runs else {
            return Err(Error::input(format!("curve `{name}`"), "there are no runs, expected at least one"));
        };
        let places = |run: &[(f64, f64)]| run.iter().map(|point| point.0).collect::<Vec<_>>();
        if let Some(run) = others.iter().position(|run| places(run) != places(first)) {
            let problem = format!("run {} was measured at other steps than run 0, expected the same", run + 1);
            return Err(Error::input(format!("curve `{name}`"), problem));
        }
        let count = runs.len() as f64;
        let (mut points, mut band) = (Vec::with_capacity(first.len()), Vec::with_capacity(first.len()));
        for (index, &(x, _)) in first.iter().enumerate() {
            let mean = runs.iter().map(|run| run[index].1).sum::<f64>() / count;
            let squares: f64 = runs.iter().map(|run| (run[index].1 - mean).powi(2)).sum();
            let deviation = (squares / (count - 1.0)).sqrt();
            points.push((x, mean));
            band.push((mean - deviation, mean + deviation));
        }
        Ok(Self { name, points, band: (!others.is_empty()).then_some(band) })
    }

    /// The parts of the line between points that are not finite.
    pub(super) fn lines(&self) -> impl Iterator<Item = Vec<(f64, f64)>> {
        let parts = self.points.split(|(x, y)| !x.is_finite() || !y.is_finite());
        parts.filter(|part| !part.is_empty()).map(<[_]>::to_vec)
    }

    /// Outlines of the band, interrupted where the line is.
    pub(super) fn bands(&self) -> impl Iterator<Item = Vec<(f64, f64)>> {
        let band = self.band.as_deref().unwrap_or_default();
        let edges: Vec<_> = self.points.iter().zip(band).map(|(&(x, _), &(low, high))| (x, low, high)).collect();
        let parts = edges.split(|(x, low, high)| !(x.is_finite() && low.is_finite() && high.is_finite()));
        let outline = |part: &[(f64, f64, f64)]| {
            let (low, high) =
                (part.iter().map(|edge| (edge.0, edge.1)), part.iter().rev().map(|edge| (edge.0, edge.2)));
            low.chain(high).collect()
        };
        parts.filter(|part| part.len() > 1).map(outline).collect::<Vec<_>>().into_iter()
    }

    /// All points that must be within the axes.
    pub(super) fn extent(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines().flatten().chain(self.bands().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(step, &value)| (step as f64, value)).collect()
    }

    #[test]
    fn means_have_a_band_of_one_deviation() {
        let runs = [line(&[1.0, 4.0]), line(&[2.0, 4.0]), line(&[3.0, 4.0])];
        let curve = Curve::mean_of("loss", &runs).unwrap();
        assert_eq!(curve.points, line(&[2.0, 4.0]));
        assert_eq!(curve.band, Some(vec![(1.0, 3.0), (4.0, 4.0)]));
        assert_eq!(Curve::mean_of("loss", &runs[..1]).unwrap(), Curve::new("loss", runs[0].clone()));
    }

    #[test]
    fn refuses_runs_that_do_not_match() {
        let error = Curve::mean_of("loss", &[line(&[1.0]), line(&[1.0, 2.0])]).unwrap_err().to_string();
        assert_eq!(error, "curve `loss`: run 1 was measured at other steps than run 0, expected the same");
        let error = Curve::mean_of("loss", &[]).unwrap_err().to_string();
        assert_eq!(error, "curve `loss`: there are no runs, expected at least one");
    }

    #[test]
    fn bands_go_there_and_back_and_break_with_the_line() {
        let band = vec![(0.0, 2.0), (1.0, 3.0), (f64::NAN, f64::NAN), (3.0, 5.0)];
        let curve = Curve { band: Some(band), ..Curve::new("loss", line(&[1.0, 2.0, f64::NAN, 4.0])) };
        assert_eq!(curve.lines().collect::<Vec<_>>(), [line(&[1.0, 2.0]), vec![(3.0, 4.0)]]);
        assert_eq!(curve.bands().collect::<Vec<_>>(), [[(0.0, 0.0), (1.0, 1.0), (1.0, 3.0), (0.0, 2.0)]]);
    }
}
