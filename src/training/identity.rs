//! The identity of a run: all values that shape it. It tells another run apart, and names what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result, write_file};

/// Values by their path, such as `settings.seed`. They are kept as text, because a parser may lose a number's last
/// digit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Identity(BTreeMap<String, String>);

impl Identity {
    /// The identity that consists of the values in this one.
    pub fn new(value: &Value) -> Self {
        let mut values = BTreeMap::new();
        collect(value, String::new(), &mut values);
        Self(values)
    }

    /// What differs from an earlier run.
    pub fn differences(&self, before: &Self) -> String {
        const SHOWN: usize = 4;
        let paths: BTreeSet<&String> = self.0.keys().chain(before.0.keys()).collect();
        let differing: Vec<_> = paths.into_iter().filter(|path| self.0.get(*path) != before.0.get(*path)).collect();
        let value = |of: &Self, path: &String| of.0.get(path).cloned().unwrap_or_else(|| "not there".to_owned());
        let shown = differing.iter().take(SHOWN);
        let shown: Vec<_> =
            shown.map(|path| format!("{path} was {}, now it is {}", value(before, path), value(self, path))).collect();
        match differing.len().saturating_sub(SHOWN) {
            0 => shown.join("; "),
            more => format!("{}; and {more} more", shown.join("; ")),
        }
    }

    /// Reads the identity from a file, if the file is there.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(Error::json(path.display())),
        }
    }

    /// Writes it into a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_file(path, serde_json::to_string_pretty(self).expect("plain data").as_bytes())
    }
}

/// Collects the leaves of a value; an empty list or object is a leaf.
fn collect(value: &Value, path: String, into: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| collect(value, below(key), into));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| collect(value, below(&index.to_string()), into));
        }
        leaf => drop(into.insert(path, leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_named() {
        let before =
            Identity::new(&json!({ "settings": { "seed": 1, "rate": 0.1 }, "devices": ["flex"], "same": null }));
        let now = Identity::new(
            &json!({ "settings": { "seed": 1, "rate": 0.2 }, "devices": ["flex", "flex"], "same": null }),
        );
        assert_eq!(
            now.differences(&before),
            "devices.1 was not there, now it is \"flex\"; settings.rate was 0.1, now it is 0.2"
        );
        let many = |value: i32| Identity::new(&json!(vec![value; 6]));
        assert!(many(1).differences(&many(2)).ends_with("; and 2 more"));
    }

    #[test]
    fn files_keep_every_digit() {
        let identity = Identity::new(&json!({ "a": 0.1 + 0.2, "b": 1e-300, "c": u64::MAX, "empty": [] }));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.json");
        assert_eq!(Identity::read(&path).unwrap(), None);
        identity.write(&path).unwrap();
        assert_eq!(Identity::read(&path).unwrap(), Some(identity));
        fs::write(&path, "{").unwrap();
        assert!(Identity::read(&path).unwrap_err().to_string().contains("identity.json"));
    }
}
