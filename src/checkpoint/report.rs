//! The result of loading a checkpoint.

use std::fmt::{self, Display};

/// What [`Checkpoint::load`](super::Checkpoint::load) did with every tensor of the file and every parameter of the
/// module. All names are keys of the file. As text it has one short line for each finding; a single line means that all
/// is well.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// Tensors that went into the module.
    pub used: Vec<String>,
    /// Parameters of the head that the file does not have: initialised at random.
    pub missing: Vec<String>,
    /// Parameters of the head that have another shape in the file: initialised at random.
    pub misshapen: Vec<Misshapen>,
    /// Tensors that the module has no parameter for, such as another head.
    pub unexpected: Vec<String>,
    /// Tensors that no model needs: copies, buffers, leftovers of pretraining.
    pub ignored: Vec<String>,
    /// Entries of the file that are no tensors.
    pub skipped: Vec<String>,
    /// Tensors that went into the module although they hold NaN or infinite values.
    pub not_finite: Vec<String>,
}

/// A tensor whose shape in the file is not that of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// The key.
    pub name: String,
    /// The shape that the module needs, as it would be in a file.
    pub expected: Vec<usize>,
    /// The shape in the file.
    pub found: Vec<usize>,
}

impl Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { name, expected, found } = self;
        write!(f, "`{name}` has the shape {found:?}, expected {expected:?}")
    }
}

impl Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} tensors loaded", self.used.len())?;
        for name in &self.missing {
            write!(f, "\n`{name}` is missing: initialised at random, to be trained")?;
        }
        for misshapen in &self.misshapen {
            write!(f, "\n{misshapen}: initialised at random, to be trained")?;
        }
        for name in &self.not_finite {
            write!(f, "\n`{name}` holds NaN or infinite values")?;
        }
        for (names, what) in [(&self.unexpected, "not part of this model"), (&self.skipped, "not tensors")] {
            if !names.is_empty() {
                write!(f, "\n{} entries are {what}: {}", names.len(), Few(names))?;
            }
        }
        Ok(())
    }
}

/// The first few entries of a list, and how many more there are.
pub(super) struct Few<'a, T>(pub &'a [T]);

impl<T: Display> Display for Few<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const SHOWN: usize = 4;
        for (i, item) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
