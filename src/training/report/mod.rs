//! What happened in training: a table of reports that grows with it ([`CurveLog`]), and pictures of such curves
//! ([`Figure`]), of one run or of several beside each other.

mod curve;
mod figure;
mod log;

pub use curve::Curve;
pub use figure::{Figure, Panel};
pub use log::{CurveLog, Report};
