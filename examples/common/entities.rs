//! Entities on standard output.

use deberta_burn::pipeline::Entity;

use super::common::{Failure, OutputArgs};

/// Writes the entities of each input: as JSON lines, or one a line, with an empty line between inputs.
pub fn write(output: &OutputArgs, found: &[Vec<Entity>]) -> Result<(), Failure> {
    let mut output = output.open();
    for (index, entities) in found.iter().enumerate() {
        output.write(entities, |out| {
            if index > 0 {
                writeln!(out)?;
            }
            entities.iter().try_for_each(|entity| writeln!(out, "{entity}"))
        })?;
    }
    output.finish()
}
