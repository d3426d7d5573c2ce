//! What the rules of the repository demand and no compiler checks: headers, file sizes, layers, who prints, who names
//! operators, links and fixtures.
//!
//! Each check is a function from text to complaints, so that it can be shown a bad example.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod layers;
mod source;
mod words;

use std::collections::BTreeSet;
use std::fs;

use onnx_mtprune::ops::RULES;
use onnx_mtprune::score::CRITERIA;
use source::{Source, files, relative, root};

/// The longest a file may be before its unit tests.
const LONGEST: usize = 400;

/// Fails with all complaints at once.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn files_have_headers_and_stay_small() {
    let mut complaints = Vec::new();
    for source in Source::all() {
        if !source.text.starts_with("//! ") {
            complaints.push(format!("src/{}: begin with a `//!` header that says what the file is", source.path));
        }
        let length = source.before_tests().lines().count();
        if length > LONGEST {
            complaints
                .push(format!("src/{}: {length} lines before the tests, at most {LONGEST}: split it", source.path));
        }
    }
    none(complaints);
}

#[test]
fn every_file_is_part_of_the_crate() {
    let sources = Source::all();
    let mut complaints = Vec::new();
    for source in &sources {
        let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let (folder, name) = match file {
            "lib.rs" | "main.rs" => continue,
            "mod.rs" => folder.rsplit_once('/').unwrap_or(("", folder)),
            _ => (folder, file.trim_end_matches(".rs")),
        };
        let parents = if folder.is_empty() {
            vec!["lib.rs".to_owned(), "main.rs".to_owned()]
        } else {
            vec![format!("{folder}/mod.rs"), format!("{folder}.rs")]
        };
        let declared = sources
            .iter()
            .filter(|s| parents.contains(&s.path))
            .any(|parent| parent.text.lines().any(|line| line.trim_end().ends_with(&format!("mod {name};"))));
        if !declared {
            complaints.push(format!("src/{}: nobody declares `mod {name};`", source.path));
        }
    }
    none(complaints);
}

/// A rule that no row leads to would be dead; a criterion listed twice would hide another.
#[test]
fn tables_are_in_order() {
    for pair in RULES.windows(2) {
        let [before, after] = [&pair[0], &pair[1]].map(|row| (row.domain, row.op_type));
        assert!(before < after, "{before:?} and {after:?} of RULES are out of order");
    }
    let names: BTreeSet<&str> = CRITERIA.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), CRITERIA.len(), "a criterion is listed twice");
    for note in RULES.iter().map(|row| row.note).chain(CRITERIA.iter().map(|row| row.note)) {
        assert!(!note.is_empty() && !note.contains(['|', '\n']), "not fit for a table: `{note}`");
    }
}

#[test]
fn links_resolve() {
    let mut complaints = Vec::new();
    for path in files(root()).into_iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&path).unwrap();
        for target in links(&text) {
            if !path.parent().unwrap().join(&target).exists() {
                complaints.push(format!("{}: the link to {target} leads nowhere", relative(&path, root())));
            }
        }
    }
    none(complaints);
}

/// The relative targets of the links of a Markdown text, without anchors; code is skipped.
fn links(text: &str) -> Vec<String> {
    let outside_code = text.split("```").step_by(2).collect::<String>();
    let targets = outside_code.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let targets = targets.map(|t| t.split('#').next().unwrap_or_default());
    targets.filter(|t| !t.is_empty() && !t.contains("://") && !t.starts_with("mailto:")).map(str::to_owned).collect()
}

#[test]
fn links_are_found() {
    let text = "[a](b.md#c) [d](https://e) [f](#g)\n```\n[h](i)\n```\n![j](k/l.png)";
    assert_eq!(links(text), ["b.md", "k/l.png"]);
}

/// Every folder of fixtures is read by some test, and holds nothing that the reader passes over.
#[test]
fn fixtures_are_used() {
    let tests: String = files(&root().join("tests"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut complaints = Vec::new();
    for path in files(&root().join("fixtures")) {
        let name = relative(&path, root());
        let (folder, file) = name.rsplit_once('/').unwrap();
        let is_quoted = |text: &str| tests.contains(&format!("\"{text}\""));
        // Folders of cases are read whole; any other file is named.
        let is_case = path.extension().is_some_and(|e| e == "graph" || e == "onnx")
            || tests.contains(&format!("read_dir(folder.join(\"{folder}\"))"));
        if !is_quoted(folder) || !(is_case || is_quoted(file)) {
            complaints.push(format!("{name}: no test reads it"));
        }
    }
    none(complaints);
}
