//! Imports follow the arrows of CONTRIBUTING's map: a room takes from rooms below it, never from one above or beside it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The rooms of `src`, from the ground up. Rooms of one floor do not know each other.
const FLOORS: [&[&str]; 11] = [
    &["error", "isa"],
    &["device"],
    &["foreign", "replacement", "scores", "text_file"],
    &["config"],
    &["kernels", "batch"],
    &["model", "tokenizer", "answer_spans"],
    &["prompt"],
    &["heads", "data"],
    &["checkpoint"],
    &["pipeline", "training"],
    &["bulk", "parity", "serving"],
];

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("`{room}` has no floor"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") && !entry.ends_with("tests.rs") {
            found.push(entry);
        }
    }
}

/// The first names behind `crate::`, also in groups, outside comments and tests.
fn imports(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.split("#[cfg(test)]").next().unwrap_or_default().lines().collect();
    let code: String =
        code.iter().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut rooms = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        let mut names = vec![String::new()];
        let mut depth = 0;
        for character in code[start + "crate::".len()..].chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => names.push(String::new()),
                _ if depth <= 1 => names.last_mut().expect("one at least").push(character),
                _ => {}
            }
            // Without a group the path ends with its first name.
            if (depth == 0 && !character.is_alphanumeric() && character != '_') || character == ';' {
                break;
            }
        }
        let first = |name: &String| name.trim().split([':', ' ', '(', '!']).next().unwrap_or_default().to_owned();
        rooms.extend(names.iter().map(first).filter(|name| name.starts_with(|first: char| first.is_lowercase())));
    }
    rooms
}

#[test]
fn imports_point_downwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).expect("below src");
        let room = path.iter().next().and_then(|name| name.to_str()).expect("a name").trim_end_matches(".rs");
        if room == "lib" || room == "bin" {
            continue;
        }
        let source = fs::read_to_string(&file).expect("a source file");
        for other in imports(&source).into_iter().filter(|other| *other != room) {
            if FLOORS.iter().flat_map(|rooms| rooms.iter()).any(|known| *known == other) && floor(&other) >= floor(room)
            {
                wrong.push(format!("{} imports from `{other}`", path.display()));
            }
        }
        floor(room);
    }
    assert!(wrong.is_empty(), "against the arrows of FLOORS:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_seen_in_every_form() {
    let source = "use crate::{Error, config::{A, B}, model::C};\nfn f() { crate::data::g() }\n// crate::training\npub use crate::kernels::K;\n#[cfg(test)] mod tests { use crate::pipeline::P; }";
    assert_eq!(imports(source).into_iter().collect::<Vec<_>>(), ["config", "data", "kernels", "model"]);
}
