//! The part of the protocol buffers wire format that a SentencePiece model file needs.
//!
//! Source: the format's public specification, "Encoding" (varints, tags, wire types 0, 1, 2 and 5). Values borrow from
//! the file's bytes, so a wrong length can cause neither a panic nor an allocation.

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// Wire type 0: integers, booleans, enumerations.
    Varint(u64),
    /// Wire type 1.
    Fixed64,
    /// Wire type 2: strings, bytes, messages.
    Bytes(&'a [u8]),
    /// Wire type 5: floats.
    Fixed32([u8; 4]),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self, name: &str) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(other.unexpected(name, "a length-delimited value")),
        }
    }

    pub(super) fn text(self, name: &str) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes(name)?).map_err(|_| format!("`{name}` is not valid UTF-8"))
    }

    pub(super) fn float(self, name: &str) -> Result<f32, String> {
        match self {
            Self::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            other => Err(other.unexpected(name, "a 32-bit float")),
        }
    }

    pub(super) fn integer(self, name: &str) -> Result<u64, String> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(other.unexpected(name, "an integer")),
        }
    }

    fn unexpected(self, name: &str, expected: &str) -> String {
        let found = match self {
            Self::Varint(_) => "an integer",
            Self::Fixed64 => "a 64-bit value",
            Self::Bytes(_) => "a length-delimited value",
            Self::Fixed32(_) => "a 32-bit value",
        };
        format!("`{name}` has the wire type of {found}, expected {expected}")
    }
}

/// Iterates over a message's fields as pairs of field number and value; after the first error it ends.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| {
            format!("it ends too early: a field needs {length} more bytes and {} are left", self.rest.len())
        })?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("it holds an integer of more than ten bytes".into())
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = self.varint()?;
                // A length beyond `usize` is longer than any file.
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => Value::Fixed32(self.take(4)?.try_into().expect("four bytes were taken")),
            wire_type => return Err(format!("it holds the wire type {wire_type}, which the format does not use")),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, String> {
        Fields::of(bytes).collect()
    }

    #[test]
    fn reads_every_wire_type() {
        let bytes = [0x08, 0x96, 0x01, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, b'h', b'i', 0x25, 0, 0, 0x80, 0x3f];
        let fields = read(&bytes).unwrap();
        assert_eq!(fields[0], (1, Value::Varint(150)));
        assert_eq!(fields[1], (2, Value::Fixed64));
        assert_eq!(fields[2].1.text("name"), Ok("hi"));
        assert_eq!(fields[3].1.float("score"), Ok(1.0));
    }

    #[test]
    fn refuses_what_the_format_does_not_allow() {
        let cases: [(&[u8], &str); 5] = [
            (&[0x0a, 0x05, b'a'], "a field needs 5 more bytes and 1 are left"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "ends too early"),
            (&[0xff; 11], "more than ten bytes"),
            (&[0x0b], "wire type 3"),
            (&[0x08], "ends too early"),
        ];
        for (bytes, expected) in cases {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn names_a_value_of_the_wrong_kind() {
        assert_eq!(
            Value::Varint(1).text("piece").unwrap_err(),
            "`piece` has the wire type of an integer, expected a length-delimited value"
        );
        assert!(Value::Bytes(b"\xff").text("piece").unwrap_err().contains("not valid UTF-8"));
        assert!(Value::Fixed64.integer("type").unwrap_err().contains("expected an integer"));
        assert!(Value::Fixed64.float("score").unwrap_err().contains("expected a 32-bit float"));
    }
}
