//! Vectors that some frozen model made, from safetensors.

use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, Result, text_file};

/// Reads the rows of the one tensor in a safetensors file, [texts, numbers of a vector], in f32, f16 or bf16; they are in the
/// order of `texts` texts, which `of` names.
///
/// # Errors
/// The file cannot be read; it holds no tensor or several, or one of another rank or type; it has not as many rows as there are
/// texts; a vector has no direction: it is all zeros, or holds NaN or infinity.
pub fn read_vectors(path: impl AsRef<Path>, texts: usize, of: impl AsRef<Path>) -> Result<Vec<Vec<f32>>> {
    let (path, of) = (path.as_ref(), of.as_ref().display());
    let bytes = text_file::read_bytes(path)?;
    let fail = |problem: String| Err(Error::file(path, problem));
    let expected = format!("expected one, of [texts, numbers of a vector], with a row for each text of {of}");
    let tensors = match SafeTensors::deserialize(&bytes) {
        Ok(file) => file.tensors(),
        Err(error) => return fail(format!("it is not a safetensors file ({error})")),
    };
    let [(name, tensor)] = &tensors[..] else {
        let mut names: Vec<_> = tensors.iter().map(|(name, _)| format!("`{name}`")).collect();
        names.sort();
        return fail(format!("it holds {} tensors ({}), {expected}", names.len(), names.join(", ")));
    };
    let &[rows, width @ 1..=usize::MAX] = tensor.shape() else {
        return fail(format!("`{name}` has the shape {:?}, {expected}", tensor.shape()));
    };
    if rows != texts {
        return fail(format!(
            "it holds {rows} vectors, but {of} has {texts} texts; expected as many, in the same order"
        ));
    }
    let Some(values) = values(tensor) else {
        return fail(format!("`{name}` is of type {}, expected F32, F16 or BF16", tensor.dtype()));
    };
    let vectors: Vec<Vec<f32>> = values.chunks_exact(width).map(<[f32]>::to_vec).collect();
    let bad =
        |vector: &Vec<f32>| vector.iter().any(|value| !value.is_finite()) || vector.iter().all(|value| *value == 0.0);
    match vectors.iter().position(bad) {
        Some(row) => {
            fail(format!("the vector of text {} is zero, NaN or infinite, expected one that has a direction", row + 1))
        }
        None => Ok(vectors),
    }
}

/// The values of a tensor in f32; none if it is of a type that is not supported.
fn values(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = tensor.data();
    Some(match tensor.dtype() {
        Dtype::F32 => bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|pair| bytemuck::pod_read_unaligned::<f16>(pair).to_f32()).collect(),
        Dtype::BF16 => bytes.chunks_exact(2).map(|pair| bytemuck::pod_read_unaligned::<bf16>(pair).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::lines::file, *};

    fn read(tensors: &[(&str, Dtype, &[usize], &[u8])], texts: usize) -> Result<Vec<Vec<f32>>> {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
        let (_folder, path) = file("v.safetensors", safetensors::serialize(views, None).unwrap());
        read_vectors(path, texts, "texts.jsonl")
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn rows_of_every_type() {
        let expected = [[1.0, -2.0], [0.5, 0.0]];
        let values = expected.concat();
        assert_eq!(read(&[("any", Dtype::F32, &[2, 2], &bytes(&values))], 2).unwrap(), expected);
        let half: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        assert_eq!(read(&[("any", Dtype::F16, &[2, 2], &half)], 2).unwrap(), expected);
        let half: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
        assert_eq!(read(&[("any", Dtype::BF16, &[2, 2], &half)], 2).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (four, six) = (bytes(&[1.0, 2.0, 3.0, 4.0]), bytes(&[1.0, 2.0, 0.0, 0.0, 5.0, 6.0]));
        let nan = bytes(&[1.0, 2.0, 3.0, f32::NAN]);
        for (tensors, expected) in [
            (vec![("a", Dtype::F32, &[2, 2][..], &four[..])], "it holds 2 vectors, but texts.jsonl has 3 texts"),
            (vec![("a", Dtype::F32, &[4], &four[..])], "`a` has the shape [4], expected one, of [texts, numbers"),
            (vec![("a", Dtype::F32, &[3, 0], &[][..])], "`a` has the shape [3, 0]"),
            (vec![], "it holds 0 tensors (), expected one"),
            (
                vec![("a", Dtype::F32, &[2, 2], &four[..]), ("b", Dtype::F32, &[2, 2], &four[..])],
                "it holds 2 tensors (`a`, `b`), expected one",
            ),
            (vec![("a", Dtype::I32, &[3, 2], &six[..])], "`a` is of type I32, expected F32, F16 or BF16"),
            (vec![("a", Dtype::F32, &[3, 2], &six[..])], "the vector of text 2 is zero"),
        ] {
            let error = read(&tensors, 3).unwrap_err().to_string();
            assert!(error.contains("v.safetensors: ") && error.contains(expected), "{error}");
        }
        assert!(read(&[("a", Dtype::F32, &[2, 2], &nan)], 2).unwrap_err().to_string().contains("text 2 is zero, NaN"));
        let (_folder, path) = file("v.safetensors", "[1, 2]");
        let error = read_vectors(path, 2, "texts.jsonl").unwrap_err().to_string();
        assert!(error.contains("v.safetensors: it is not a safetensors file"), "{error}");
        assert!(matches!(read_vectors("no/such/file", 2, "texts.jsonl"), Err(Error::Missing { .. })));
    }
}
