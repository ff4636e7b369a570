//! DeBERTa v1 packs its projections; everything else in this crate knows only the layout of v2.
//!
//! v1 computes queries, keys and values with one matrix `in_proj` [3 H, H]. Its rows are grouped by head: d rows for
//! the queries of head 0, d for its keys, d for its values, then head 1. Queries and values have biases, keys have
//! none. The projections of positions have other names.

use std::collections::BTreeMap;

use burn::{
    store::burn_pack::{self, Tensor as Stored},
    tensor::{Bytes, DType},
};

use super::convert;

/// Ends of keys in v1, and those of the same tensors in v2.
const RENAMED: [(&str, &str); 5] = [
    ("attention.self.q_bias", "attention.self.query_proj.bias"),
    ("attention.self.v_bias", "attention.self.value_proj.bias"),
    ("attention.self.pos_proj.weight", "attention.self.pos_key_proj.weight"),
    ("attention.self.pos_q_proj.weight", "attention.self.pos_query_proj.weight"),
    ("attention.self.pos_q_proj.bias", "attention.self.pos_query_proj.bias"),
];
/// End of the key of the packed matrix.
const PACKED: &str = "attention.self.in_proj.weight";
/// Ends of the keys of its parts, in their order within a head.
const PARTS: [&str; 3] =
    ["attention.self.query_proj.weight", "attention.self.key_proj.weight", "attention.self.value_proj.weight"];

/// Whether a key belongs to the layout of v1.
pub(super) fn is_packed(key: &str) -> bool {
    key.ends_with(PACKED)
}

/// Turns the tensors of a v1 checkpoint with `heads` attention heads into those of v2. Values are read when they are
/// needed.
///
/// # Errors
/// A packed matrix whose shape is not [3 H, H].
pub(super) fn split(tensors: Vec<Stored>, heads: usize) -> Result<Vec<Stored>, String> {
    let mut result = Vec::with_capacity(tensors.len());
    for mut tensor in tensors {
        let Some(layer) = tensor.name.strip_suffix(PACKED) else {
            rename(&mut tensor.name, RENAMED.iter().copied());
            result.push(tensor);
            continue;
        };
        let &[rows, columns] = &tensor.shape[..] else {
            return Err(format!("`{}` has the shape {:?}, expected a matrix", tensor.name, tensor.shape));
        };
        if rows != 3 * columns || columns % heads != 0 {
            return Err(format!(
                "`{}` has the shape [{rows}, {columns}], expected [3 H, H] with H a multiple of the {heads} attention heads",
                tensor.name
            ));
        }
        let names = PARTS.map(|part| format!("{layer}{part}"));
        for (part, name) in names.into_iter().enumerate() {
            let packed = tensor.clone();
            let length = packed.byte_len() / 3;
            result.push(Stored::deferred(name, packed.dtype, [columns, columns], None, length, move || {
                let bytes = packed.to_bytes()?;
                let rows = bytes.chunks_exact((bytes.len() / (3 * heads)).max(1)).skip(part).step_by(3);
                Ok(Bytes::from_bytes_vec(rows.flatten().copied().collect()))
            }));
        }
    }
    Ok(result)
}

/// Turns the tensors of a model with `heads` attention heads into those of a v1 checkpoint: the inverse of [`split`].
pub(super) fn merge(tensors: Vec<Stored>, heads: usize) -> Vec<Stored> {
    let mut result = Vec::with_capacity(tensors.len());
    // The parts of the packed matrix of each layer.
    let mut layers: BTreeMap<String, [Option<Stored>; 3]> = BTreeMap::new();
    for mut tensor in tensors {
        let part =
            PARTS.iter().enumerate().find_map(|(part, end)| Some((part, tensor.name.strip_suffix(end)?.to_owned())));
        match part {
            Some((part, layer)) => layers.entry(layer).or_default()[part] = Some(tensor),
            None => {
                rename(&mut tensor.name, RENAMED.iter().map(|&(v1, v2)| (v2, v1)));
                result.push(tensor);
            }
        }
    }
    for (layer, parts) in layers {
        match parts {
            [Some(query), Some(key), Some(value)] => {
                result.push(packed(format!("{layer}{PACKED}"), [query, key, value], heads))
            }
            incomplete => result.extend(incomplete.into_iter().flatten()),
        }
    }
    result
}

/// Turns low-rank changes B A, by the name of their module and each as A [r, inputs] and B [outputs, r], into those of a v1
/// checkpoint. The changes of the projections of a layer become one: their A one below the other, and for each projection
/// the rows of B in the columns of its own A, zero in the others.
///
/// # Errors
/// A tensor that cannot be read.
pub(super) fn merge_changes(
    changes: BTreeMap<String, Vec<Stored>>,
    heads: usize,
) -> Result<BTreeMap<String, Vec<Stored>>, burn_pack::Error> {
    let modules = [PACKED, PARTS[0], PARTS[1], PARTS[2]].map(|key| key.trim_end_matches(".weight"));
    let mut result = BTreeMap::new();
    // The parts of each layer: which it is, A and B.
    let mut layers: BTreeMap<String, Vec<(usize, Vec<Stored>)>> = BTreeMap::new();
    for (module, change) in changes {
        let part = modules[1..].iter().position(|end| module.ends_with(end));
        match part.and_then(|part| Some((part, module.strip_suffix(modules[1 + part])?.to_owned()))) {
            Some((part, layer)) => layers.entry(layer).or_default().push((part, change)),
            None => drop(result.insert(module, change)),
        }
    }
    for (layer, parts) in layers {
        let rank: usize = parts.iter().map(|(_, change)| change[0].shape[0]).sum();
        let (inputs, outputs) = (parts[0].1[0].shape[1], parts[0].1[1].shape[0]);
        let (mut downs, mut ups) = (Vec::with_capacity(rank * inputs), [(); 3].map(|()| vec![0.0; outputs * rank]));
        for (part, change) in parts {
            let (first, own) = (downs.len() / inputs, change[0].shape[0]);
            downs.extend(convert::values(&change[0])?);
            for (wide, narrow) in ups[part].chunks_exact_mut(rank).zip(convert::values(&change[1])?.chunks_exact(own)) {
                wide[first..first + own].copy_from_slice(narrow);
            }
        }
        let matrix = |values: Vec<f32>, shape: [usize; 2]| {
            Stored::new(String::new(), DType::F32, shape.to_vec(), None, Bytes::from_elems(values))
        };
        let ups = ups.map(|values| matrix(values, [outputs, rank]));
        let change = vec![matrix(downs, [rank, inputs]), packed(String::new(), ups, heads)];
        result.insert(format!("{layer}{}", modules[0]), change);
    }
    Ok(result)
}

/// The packed matrix of `parts`, each [H, columns].
fn packed(name: String, parts: [Stored; 3], heads: usize) -> Stored {
    let [hidden, columns] = [parts[0].shape[0], parts[0].shape[1]];
    let length = parts.iter().map(Stored::byte_len).sum();
    Stored::deferred(name, parts[0].dtype, [3 * hidden, columns], None, length, move || {
        let parts = parts.iter().map(Stored::to_bytes).collect::<Result<Vec<_>, burn_pack::Error>>()?;
        let mut bytes = Vec::with_capacity(length);
        for head in 0..heads {
            for part in &parts {
                let rows = part.len() / heads;
                bytes.extend_from_slice(&part[head * rows..(head + 1) * rows]);
            }
        }
        Ok(Bytes::from_bytes_vec(bytes))
    })
}

/// Replaces the end of `name` by the first rule that fits.
pub(super) fn rename(name: &mut String, mut ends: impl Iterator<Item = (&'static str, &'static str)>) {
    if let Some((from, to)) = ends.find(|(from, _)| name.ends_with(from)) {
        name.truncate(name.len() - from.len());
        name.push_str(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: usize = 2;

    fn stored(name: &str, shape: &[usize], values: impl Iterator<Item = f32>) -> Stored {
        let bytes = Bytes::from_elems(values.collect::<Vec<_>>());
        Stored::new(name.into(), DType::F32, shape.to_vec(), None, bytes)
    }

    fn values(tensor: &Stored) -> Vec<f32> {
        bytemuck::cast_slice(&tensor.to_bytes().unwrap()).to_vec()
    }

    #[test]
    fn rows_are_grouped_by_head() {
        // Every row of the packed matrix contains its own number.
        let rows = (0..12).flat_map(|row| [row as f32; 4]);
        let packed = stored("encoder.layer.0.attention.self.in_proj.weight", &[12, 4], rows);
        let parts = split(vec![packed.clone()], HEADS).unwrap();
        let first_columns: Vec<Vec<f32>> =
            parts.iter().map(|part| values(part).into_iter().step_by(4).collect()).collect();
        // Head 0 has the rows 0 to 5, its queries the first two of them.
        assert_eq!(first_columns, [[0., 1., 6., 7.], [2., 3., 8., 9.], [4., 5., 10., 11.]]);
        assert_eq!(parts[1].name, "encoder.layer.0.attention.self.key_proj.weight");

        let merged = merge(parts, HEADS);
        assert_eq!((merged[0].name.as_str(), values(&merged[0])), (packed.name.as_str(), values(&packed)));
    }

    #[test]
    fn names_go_there_and_back() {
        let v1 =
            ["q_bias", "v_bias", "pos_proj.weight", "pos_q_proj.weight", "pos_q_proj.bias", "head_logits_proj.weight"];
        let keys = v1.map(|end| format!("deberta.encoder.layer.0.attention.self.{end}"));
        let tensors: Vec<_> = keys.iter().map(|key| stored(key, &[4], [0.0; 4].into_iter())).collect();
        let split = split(tensors, HEADS).unwrap();
        assert_eq!(split[2].name, "deberta.encoder.layer.0.attention.self.pos_key_proj.weight");
        let merged: Vec<_> = merge(split, HEADS).into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(merged, keys);
    }

    #[test]
    fn a_misshapen_matrix_is_named() {
        for shape in [&[12, 3][..], &[36], &[9, 3]] {
            let length = shape.iter().product();
            let packed = stored("layer.0.attention.self.in_proj.weight", shape, std::iter::repeat_n(0.0, length));
            let problem = split(vec![packed], HEADS).unwrap_err();
            assert!(problem.starts_with("`layer.0.attention.self.in_proj.weight` has the shape "), "{problem}");
        }
    }
}
