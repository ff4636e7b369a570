//! Headers of safetensors files.

use std::{fs, path::Path};

use burn::tensor::{Device, FloatDType};
use deberta_burn::checkpoint::Header;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Damaged, TENSOR,
    common::fixture,
    stored::{deberta, load, written},
    with_header,
};

#[test]
fn a_header_that_lies() {
    let with = |key: &'static str, value: Value| {
        Damaged::copy_of("v3_plain").edit_header(|header| header[TENSOR][key] = value)
    };
    let entry =
        Header::parse(&fs::read(fixture("v3_plain").join("model.safetensors")).unwrap(), Path::new("")).unwrap();
    let header_end = entry.entries[0].range.start;
    let entry = entry.entries.into_iter().find(|entry| entry.name == TENSOR).unwrap();
    let (start, end) = (entry.range.start - header_end, entry.range.end - header_end);

    with("data_offsets", json!([start, u32::MAX])).says(&[TENSOR, "ends at byte 4294967295 of the data", "cut short"]);
    with("data_offsets", json!([end, start])).says(&[TENSOR, "ends before it starts", "damaged"]);
    with("data_offsets", json!([start - 4, end - 4])).says(&["overlaps", "damaged"]);
    with("data_offsets", json!([start, end - 4])).says(&[TENSOR, "but its data takes", "damaged"]);
    with("data_offsets", json!([-1, end])).says(&["not valid JSON"]);
    with("shape", json!([1, 1])).says(&[TENSOR, "is F32 [1, 1] but its data takes", "damaged"]);
    // The product of the extents wraps around to the right number of elements.
    with("shape", json!([1u64 << 63, 2, entry.shape[0], entry.shape[1]])).says(&[TENSOR, "but its data takes"]);
    with("dtype", json!("F64")).says(&[TENSOR, "is F64", "but its data takes"]);
    with("dtype", json!("F8_E4M3")).says(&[TENSOR, "F8_E4M3, which is not supported", "convert"]);
    let removed =
        Damaged::copy_of("v3_plain").edit_header(|header| drop(header.as_object_mut().unwrap().remove(TENSOR)));
    removed.says(&["bytes between", "belong to no tensor", "damaged"]);

    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    Damaged::copy_of("v3_plain")
        .edit("model.safetensors", |bytes| *bytes = with_header(twice, &[0; 8]))
        .says(&["tensor `a` occurs twice"]);
    let huge = r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551615]}}"#;
    Damaged::copy_of("v3_plain")
        .edit("model.safetensors", |bytes| *bytes = with_header(huge, &[]))
        .says(&["`a` ends at byte"]);
}

#[test]
fn data_at_an_odd_address_is_read() {
    let expected = written(fixture("v3_plain"), FloatDType::F32);
    let damaged = Damaged::copy_of("v3_plain").edit("model.safetensors", |bytes| {
        let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..data].to_vec()).unwrap();
        let odd = format!("{}{}", header.trim_end(), " ".repeat(1 + header.trim_end().len() % 2));
        assert_eq!(odd.len() % 2, 1);
        *bytes = with_header(&odd, &bytes[data..]);
    });
    assert!(written(&damaged.folder, FloatDType::F32) == expected);
}

proptest! {
    /// Whatever the bytes, the header reader gives an answer.
    #[test]
    fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0u64..300, json in ".{0,100}") {
        let _ = Header::parse(&bytes, Path::new("x"));
        let _ = Header::parse(&[&length.to_le_bytes(), bytes.as_slice()].concat(), Path::new("x"));
        let _ = Header::parse(&with_header(&json, &bytes), Path::new("x"));
    }

    /// A damaged file is an error or, if the damage hit a value, loads; it never panics.
    #[test]
    fn no_damage_panics(
        case in prop::sample::select(vec!["v3_plain", "v1_plain", "v3_sharded", "v3_bin", "v3_bin_legacy", "v3_bin_object", "v3_bin_training"]),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let file = match case {
            "v3_plain" | "v1_plain" => "model.safetensors",
            "v3_sharded" => "model-00001-of-00002.safetensors",
            _ => "pytorch_model.bin",
        };
        let damaged = Damaged::copy_of(case).edit(file, |bytes| {
            for (place, value) in places {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        });
        if let Err(error) = load(&damaged.folder, deberta(case).init(&Device::flex())) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// What the header says is what was written.
    #[test]
    fn headers_are_understood(shapes in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 0..6)) {
        let mut header = json!({ "__metadata__": { "format": "pt" } });
        let mut end = 0;
        for (i, shape) in shapes.iter().enumerate() {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            header[i.to_string()] = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        }
        let parsed = Header::parse(&with_header(&header.to_string(), &vec![0; end]), Path::new("x")).unwrap();
        prop_assert_eq!(parsed.entries.len(), shapes.len());
        for entry in parsed.entries {
            prop_assert_eq!(&entry.shape, &shapes[entry.name.parse::<usize>().unwrap()]);
        }
    }
}
