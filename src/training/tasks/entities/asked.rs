//! Which types of entities a text is asked for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    config::GlinerConfig,
    data::{EntityText, Random},
};

/// Which types a text is asked for in training, if its row does not say it (`ner_labels`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskedTypes {
    /// Its own types, and a sample of others: for data with types of any kind.
    ///
    /// With n entities, n k types are drawn beside its own, k evenly from 0 to `max_neg_type_ratio` in the configuration; a text
    /// without entities gets k types, at least one. Each is the type of an entity of the training data, any entity as
    /// likely as another, so that frequent types are drawn often; what is drawn twice or is one of its own counts
    /// nothing. (The reference draws from the types of the batch, the same ones for all its texts.) If the row lists
    /// `ner_negatives`, these take the place of the draw, unless nothing would be asked then. At most `max_types` are asked for, its
    /// own before others, in random order.
    Sampled,
    /// All types of the training data, in random order: for data with a closed set of types.
    All,
}

/// Chooses the types that texts of one file are asked for.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    /// The types of the file, in alphabetical order.
    types: Vec<String>,
    /// The type of each entity, as an index.
    entities: Vec<usize>,
}

impl Asker {
    /// For the texts of a file.
    pub fn new(texts: &[EntityText]) -> Self {
        let types: BTreeSet<&str> = texts.iter().flat_map(EntityText::types).collect();
        let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
        let index = |kind: &String| types.binary_search(kind).expect("a type of the file");
        let entities = texts.iter().flat_map(|text| &text.entities).map(|entity| index(&entity.2)).collect();
        Self { types, entities }
    }

    /// The types that a text is asked for in an evaluation: those that its row says, else all of its file.
    pub fn all<'a>(&'a self, text: &'a EntityText) -> Vec<&'a str> {
        let labels = text.labels.as_ref().unwrap_or(&self.types);
        distinct(labels.iter().map(String::as_str))
    }

    /// The types that a text is asked for in training.
    pub fn draw<'a>(
        &'a self,
        text: &'a EntityText,
        asked: AskedTypes,
        config: &GlinerConfig,
        random: &mut Random,
    ) -> Vec<&'a str> {
        if text.labels.is_some() {
            return self.all(text);
        }
        let mut types = match asked {
            AskedTypes::All => self.all(text),
            AskedTypes::Sampled => {
                let mut own: Vec<&str> = text.types().into_iter().collect();
                random.shuffle(&mut own);
                let others = match &text.negatives {
                    Some(negatives) if !(own.is_empty() && negatives.is_empty()) => {
                        negatives.iter().map(String::as_str).collect()
                    }
                    // Something has to be asked for.
                    _ => self.sample(text, config.max_neg_type_ratio, random),
                };
                let mut types = distinct(own.into_iter().chain(others));
                types.truncate(config.max_types);
                types
            }
        };
        random.shuffle(&mut types);
        types
    }

    fn sample(&self, text: &EntityText, most: usize, random: &mut Random) -> Vec<&str> {
        let ratio = random.below(most + 1);
        let count = match text.entities.len() {
            0 => ratio.max(1),
            entities => ratio * entities,
        };
        (0..count).map(|_| self.types[self.entities[random.below(self.entities.len())]].as_str()).collect()
    }
}

fn distinct<'a>(types: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = BTreeSet::new();
    types.filter(|kind| known.insert(*kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DebertaConfig, config::DebertaVersion, data::WordSpan};

    fn text(types: &[&str]) -> EntityText {
        let entities = types.iter().map(|kind| WordSpan(0, 0, (*kind).to_owned())).collect();
        EntityText { words: vec!["word".into()], entities, labels: None, negatives: None, line: 1 }
    }

    fn config() -> GlinerConfig {
        GlinerConfig {
            max_neg_type_ratio: 2,
            max_types: 3,
            ..GlinerConfig::new(DebertaConfig::new(DebertaVersion::V2))
        }
    }

    #[test]
    fn texts_are_asked_for_their_own_types_and_others() {
        let texts = [text(&["a"]), text(&["b", "b", "b"]), text(&["c"]), text(&[])];
        let asker = Asker::new(&texts);
        assert_eq!(asker.all(&texts[0]), ["a", "b", "c"]);
        let draw = |text, seed| asker.draw(text, AskedTypes::Sampled, &config(), &mut Random::new(&[seed]));
        let counts = |text| {
            let mut counts = [0; 4];
            (0..600).for_each(|seed| counts[draw(text, seed).len()] += 1);
            counts
        };
        assert!((0..600).all(|seed| draw(&texts[0], seed).contains(&"a")));
        // k is 0, 1 or 2, of which as many types are drawn at most.
        assert!(counts(&texts[0])[1] > 200 && counts(&texts[0])[2] > 100 && counts(&texts[0])[3] > 0);
        assert!(counts(&texts[3])[0] == 0 && counts(&texts[3])[1] > 400);
        let b = (0..600).filter(|seed| draw(&texts[3], *seed).contains(&"b")).count();
        // Three of five entities are a b.
        assert!((300..600).contains(&b), "{b}");
    }

    #[test]
    fn rows_may_say_which() {
        let texts = [
            EntityText { labels: Some(vec!["z".into(), "a".into(), "z".into()]), ..text(&["a"]) },
            EntityText { negatives: Some(vec!["y".into()]), ..text(&["b"]) },
            text(&["c", "d", "e", "f"]),
            EntityText { negatives: Some(vec![]), ..text(&[]) },
        ];
        let asker = Asker::new(&texts);
        let mut random = Random::new(&[0]);
        let mut draw = |text, asked| asker.draw(text, asked, &config(), &mut random);
        assert_eq!(draw(&texts[0], AskedTypes::Sampled), ["z", "a"]);
        assert_eq!(draw(&texts[1], AskedTypes::Sampled).into_iter().collect::<BTreeSet<_>>(), ["b", "y"].into());
        assert!(!draw(&texts[3], AskedTypes::Sampled).is_empty());
        // No more than three.
        assert!(draw(&texts[2], AskedTypes::Sampled).iter().all(|kind| texts[2].types().contains(kind)));
        assert_eq!(draw(&texts[2], AskedTypes::Sampled).len(), 3);
        assert_eq!(draw(&texts[2], AskedTypes::All).len(), 6);
    }
}
