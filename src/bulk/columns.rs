//! What the columns of a job's input and output hold.

use arrow_schema::{DataType, Field, Fields};

/// A column of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, which is that of the field in the rows' type.
    pub name: &'static str,
    /// Whether each row has a list of texts, and not one text.
    pub list: bool,
    /// Whether the input need not have it.
    pub optional: bool,
}

impl Column {
    /// A text in each row.
    pub const fn text(name: &'static str) -> Self {
        Self { name, list: false, optional: false }
    }

    /// A list of texts in each row.
    pub const fn texts(name: &'static str) -> Self {
        Self { name, list: true, optional: false }
    }

    /// The same, if the input has it.
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Whether a column of this type can be read.
    pub(super) fn takes(self, kind: &DataType) -> bool {
        let text = |kind: &DataType| match kind {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
            DataType::Dictionary(_, values) => matches!(**values, DataType::Utf8 | DataType::LargeUtf8),
            _ => false,
        };
        match kind {
            DataType::List(item) | DataType::LargeList(item) if self.list => text(item.data_type()),
            kind => !self.list && text(kind),
        }
    }

    /// What it has to hold, in words.
    pub(super) fn expected(self) -> &'static str {
        match self.list {
            true => "lists of strings",
            false => "strings",
        }
    }
}

/// What the answers of a task are, as a column of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// `labels`: a list of [`LabelScore`](crate::pipeline::LabelScore).
    Labels,
    /// `entities`: a list of [`Entity`](crate::pipeline::Entity).
    Entities,
    /// `ranking`: a list of [`RankedPassage`](crate::pipeline::RankedPassage).
    Ranking,
    /// `embedding`: a vector of so many numbers.
    Embedding(usize),
}

impl Answers {
    /// The column.
    pub(super) fn field(self) -> Field {
        let number = |name: &str| Field::new(name, DataType::Float32, false);
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let count = |name: &str| Field::new(name, DataType::UInt64, false);
        let list = |name: &str, fields: Vec<Field>| {
            let item = DataType::Struct(Fields::from(fields));
            Field::new_list(name, Field::new_list_field(item, false), false)
        };
        match self {
            Self::Labels => list("labels", vec![text("label"), number("score")]),
            Self::Entities => {
                list("entities", vec![text("label"), text("text"), count("start"), count("end"), number("score")])
            }
            Self::Ranking => {
                list("ranking", vec![count("index"), number("score"), number("probability"), number("relevance")])
            }
            Self::Embedding(size) => {
                let item = Field::new_list_field(DataType::Float32, false);
                Field::new_fixed_size_list("embedding", item, size as i32, false)
            }
        }
    }
}
