//! Fixtures: text files of cases, each a model in text form and what is expected of it.
//!
//! A file holds cases separated by lines of `===`; a case is a model, a line `---`, and the expected text. With
//! `UPDATE=1` in the environment the expected texts are rewritten (`make update`).

use std::fs;
use std::path::Path;

/// Runs every case of every `*.graph` file in `folder` through `show` and compares, or updates.
pub fn check(folder: &str, show: impl Fn(&str) -> String) {
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "graph"))
        .collect();
    paths.sort();
    let (mut cases, mut failures) = (0, Vec::new());
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let mut updated = Vec::new();
        for case in text.split("\n===\n") {
            let (model, expected) = case.split_once("\n---\n").unwrap_or((case, ""));
            let actual = show(model);
            cases += 1;
            if actual.trim() != expected.trim() {
                failures.push(format!(
                    "{}:\n{}\nexpected:\n{}\ngot:\n{actual}",
                    path.display(),
                    model.trim(),
                    expected.trim()
                ));
            }
            updated.push(format!("{}\n---\n{}", model.trim(), actual.trim()));
        }
        if update {
            fs::write(&path, updated.join("\n===\n") + "\n").unwrap();
        }
    }
    assert!(cases > 0, "no cases in {folder}");
    assert!(update || failures.is_empty(), "{} of {cases} cases differ:\n\n{}", failures.len(), failures.join("\n\n"));
}
