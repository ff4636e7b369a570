//! The header of a safetensors file: a length of eight bytes, then JSON of that length, which says where each tensor
//! is.
//!
//! The header is checked in full before it is used. An error names the tensor that it is about.

use std::{collections::HashSet, fmt, ops::Range, path::Path};

use burn::tensor::{BoolStore, DType};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

use crate::{Error, Result, text_file};

/// Bytes of the length at the start of the file.
const LENGTH_BYTES: usize = 8;
/// The longest header the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// Data starts at a multiple of this, so that a memory map of the file is aligned for every element type.
const ALIGNMENT: usize = 8;

/// The tensors of a safetensors file, checked against the size of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The tensors, in the order of their data.
    pub entries: Vec<HeaderEntry>,
}

/// One tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderEntry {
    /// The key it is stored under.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The range of its bytes, counted from the start of the file.
    pub range: Range<usize>,
}

impl Header {
    /// Reads the header of `file`, the whole content of a safetensors file. `path` is for error messages.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the file is cut short or too long, if the header does not follow the format, or if byte
    /// ranges of tensors overlap or leave gaps. [`Error::Tensor`] if a tensor has an element type that is not
    /// supported, or a byte range that does not fit its shape or ends after the file. [`Error::Json`] if the header is
    /// no JSON object, or has a tensor twice.
    pub fn parse(file: &[u8], path: &Path) -> Result<Self> {
        let fail = |problem: String| Error::checkpoint(path, problem);
        text_file::refuse_pointer(path, file)?;
        let (length, rest) = file.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| {
            fail(format!("{} bytes are too few for a safetensors file: it is cut short, copy it again", file.len()))
        })?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(fail(format!(
                "the header claims {length} bytes and the format allows {MAX_HEADER}: this is not a safetensors file"
            )));
        }
        let (json, data) = rest.split_at_checked(length as usize).ok_or_else(|| {
            fail(format!(
                "the header takes {length} bytes but {} follow: the file is cut short, copy it again",
                rest.len()
            ))
        })?;
        let RawHeader(tensors) =
            serde_json::from_slice(json).map_err(Error::json(format!("the header of {}", path.display())))?;

        let start = LENGTH_BYTES + json.len();
        let mut entries = Vec::with_capacity(tensors.len());
        for (name, raw) in tensors {
            let tensor = name.clone();
            let fail = |problem| Error::Tensor { path: path.to_owned(), name: tensor, problem };
            entries.push(raw.checked(name, data.len(), start).map_err(fail)?);
        }
        entries.sort_by_key(|entry| (entry.range.start, entry.range.end));
        check_cover(&entries, start..file.len()).map_err(fail)?;
        Ok(Self { entries })
    }

    /// The first bytes of a file that holds the given tensors (name, element type, shape) one after the other.
    pub(super) fn encode<'a>(tensors: impl Iterator<Item = (&'a str, DType, &'a [usize])>) -> Result<Vec<u8>> {
        let mut json = serde_json::Map::new();
        // Hugging Face's loaders refuse a file without this entry.
        json.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
        let mut end = 0;
        for (name, dtype, shape) in tensors {
            let start = end;
            end += byte_length(dtype, shape)
                .ok_or_else(|| Error::unsupported(format!("tensor `{name}`"), "it is too large to be written"))?;
            let raw = RawEntry { dtype: dtype_name(dtype)?.into(), shape: shape.to_vec(), data_offsets: (start, end) };
            let raw = serde_json::to_value(raw).map_err(Error::json(format!("the header entry of `{name}`")))?;
            json.insert(name.into(), raw);
        }
        let mut json = serde_json::Value::Object(json).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
        Ok([(json.len() as u64).to_le_bytes().as_slice(), &json].concat())
    }
}

/// The entries, sorted by position, must cover the data section without gap or overlap.
fn check_cover(entries: &[HeaderEntry], data: Range<usize>) -> std::result::Result<(), String> {
    let mut end = data.start;
    let mut before = "the header";
    for HeaderEntry { name, range, .. } in entries {
        if range.start < end {
            return Err(format!("the data of tensor `{name}` overlaps that of {before}: the header is damaged"));
        }
        if range.start > end {
            let gap = range.start - end;
            return Err(format!(
                "{gap} bytes between {before} and `{name}` belong to no tensor: the header is damaged"
            ));
        }
        end = range.end;
        before = name;
    }
    match data.end - end {
        0 => Ok(()),
        extra => {
            Err(format!("{extra} bytes follow the last tensor: the file is longer than its header says, copy it again"))
        }
    }
}

/// Number of bytes of a tensor; none if that is more than an address can reach.
fn byte_length(dtype: DType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size(), |product, &extent| product.checked_mul(extent))
}

/// An entry of the JSON.
#[derive(Serialize, Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl RawEntry {
    /// Checks a single entry. The file has `data_len` bytes of data, which begin at `data_start`.
    fn checked(self, name: String, data_len: usize, data_start: usize) -> std::result::Result<HeaderEntry, String> {
        let Self { dtype: dtype_name, shape, data_offsets: (start, end) } = self;
        let dtype = dtype_of(&dtype_name).ok_or_else(|| {
            format!("tensor `{name}` has the element type {dtype_name}, which is not supported; convert the file to F32, F16 or BF16")
        })?;
        if start > end {
            return Err(format!(
                "the data of tensor `{name}` ends before it starts ({start} to {end}): the header is damaged"
            ));
        }
        if end > data_len {
            return Err(format!(
                "tensor `{name}` ends at byte {end} of the data but the file holds {data_len}: it is cut short, copy it again"
            ));
        }
        if byte_length(dtype, &shape) != Some(end - start) {
            return Err(format!(
                "tensor `{name}` is {dtype_name} {shape:?} but its data takes {} bytes: the header is damaged",
                end - start
            ));
        }
        Ok(HeaderEntry { name, dtype, shape, range: data_start + start..data_start + end })
    }
}

/// The JSON of a header; a map type would silently drop tensors that occur twice.
struct RawHeader(Vec<(String, RawEntry)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from tensor names to their element type, shape and offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<RawHeader, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("tensor `{name}` occurs twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(RawHeader(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Element types that both the format and burn have, with their names in the format.
const DTYPES: [(&str, DType); 13] = [
    ("F64", DType::F64),
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("I64", DType::I64),
    ("I32", DType::I32),
    ("I16", DType::I16),
    ("I8", DType::I8),
    ("U64", DType::U64),
    ("U32", DType::U32),
    ("U16", DType::U16),
    ("U8", DType::U8),
    ("BOOL", DType::Bool(BoolStore::Native)),
];

fn dtype_of(name: &str) -> Option<DType> {
    DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}

fn dtype_name(dtype: DType) -> Result<&'static str> {
    let known = DTYPES.iter().find(|(_, known)| *known == dtype);
    known
        .map(|(name, _)| *name)
        .ok_or_else(|| Error::unsupported(format!("element type {dtype:?}"), "safetensors files cannot hold it"))
}
