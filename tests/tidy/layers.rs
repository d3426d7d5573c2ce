//! Layers: a module may use only modules above it in the code map of ARCHITECTURE.md, and `verify` fewer still.

use std::collections::BTreeSet;
use std::fs;

use crate::none;
use crate::source::{Line, Source, lines, root};

/// What `verify` must never see, so that it cannot share a mistake of those whose work it judges.
const JUDGED: &[&str] =
    &["ops", "axes", "graph", "coupling", "tasks", "groups", "score", "allocate", "rewrite", "grad"];

/// Files above all layers: the crate and the program themselves.
const ROOTS: &[&str] = &["lib", "main"];

#[test]
fn modules_use_only_modules_above_them() {
    let order = code_map(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap());
    let sources = Source::all();
    let modules: BTreeSet<&str> = sources.iter().map(Source::module).filter(|m| !ROOTS.contains(m)).collect();
    let mapped: BTreeSet<&str> = order.iter().map(String::as_str).collect();
    assert_eq!(mapped, modules, "the code map of ARCHITECTURE.md (left) must list the modules of src (right)");
    none(sources.iter().filter(|s| !ROOTS.contains(&s.module())).flat_map(|s| wrong_uses(s, &order)).collect());
}

#[test]
fn verification_shares_nothing_with_what_it_judges() {
    let mut complaints = Vec::new();
    let sources = Source::all();
    let judges: Vec<&Source> = sources.iter().filter(|s| s.module() == "verify").collect();
    assert!(!judges.is_empty(), "src/verify is gone");
    for source in judges {
        for (number, module) in uses(&source.lines()).into_iter().filter(|(_, m)| JUDGED.contains(&m.as_str())) {
            complaints.push(format!("src/{}:{number}: verify must not use `{module}`", source.path));
        }
    }
    none(complaints);
}

/// The modules of the code map, from the top: the first words of the unindented lines of its code block.
fn code_map(architecture: &str) -> Vec<String> {
    let section = architecture.split("## Code map").nth(1).unwrap_or_default();
    let block = section.split("```").nth(1).unwrap_or_default();
    let lines = block.lines().skip(1).filter(|l| !l.starts_with(' '));
    lines.filter_map(|l| l.split_whitespace().next()).map(|m| m.trim_end_matches('/').to_owned()).collect()
}

fn wrong_uses(source: &Source, order: &[String]) -> Vec<String> {
    let place = |module: &str| order.iter().position(|m| m == module);
    let own = place(source.module());
    let below = |module: &String| place(module) > own;
    let uses = uses(&source.lines()).into_iter().filter(|(_, module)| below(module));
    uses.map(|(number, module)| {
        format!("src/{}:{number}: `{}` may not use `{module}`, which stands below it", source.path, source.module())
    })
    .collect()
}

/// The top-level modules that code mentions as `crate::module` or in `use crate::{…}`.
fn uses(lines: &[Line]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // A list in braces may go on over several lines; `depth` counts the braces that are open.
    let mut depth = 0usize;
    for line in lines {
        let mut rest = line.code.as_str();
        loop {
            if depth == 0 {
                let Some(at) = rest.find("crate::") else { break };
                rest = &rest[at + "crate::".len()..];
                if let Some(list) = rest.strip_prefix('{') {
                    (depth, rest) = (1, list);
                } else {
                    found.extend(name(rest).map(|name| (line.number, name)));
                }
                continue;
            }
            // Inside a list, names at its first level are modules or items of the crate root.
            let end = rest.find([',', '{', '}']).unwrap_or(rest.len());
            if depth == 1 {
                found.extend(name(rest[..end].trim_start()).map(|name| (line.number, name)));
            }
            let Some(mark) = rest[end..].chars().next() else { break };
            depth = match mark {
                '{' => depth + 1,
                '}' => depth - 1,
                _ => depth,
            };
            rest = &rest[end + 1..];
        }
    }
    found
}

/// The module at the start of a path; what the crate root re-exports belongs to `error`.
fn name(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    let name = &path[..end];
    match name.chars().next()? {
        first if first.is_uppercase() => Some("error".to_owned()),
        _ => Some(name.to_owned()),
    }
}

#[test]
fn uses_are_found() {
    let text = "use crate::Result;\nuse crate::{axes::{Expr, Extent}, graph::Graph,\n    ops, Error};\nlet a = crate::kept::b(crate::tasks::C);\nuse std::fs;";
    let found: Vec<(usize, String)> = uses(&lines(text));
    let found: Vec<(usize, &str)> = found.iter().map(|(n, m)| (*n, m.as_str())).collect();
    assert_eq!(found, [(1, "error"), (2, "axes"), (2, "graph"), (3, "ops"), (3, "error"), (4, "kept"), (4, "tasks")]);
}

#[test]
fn a_use_of_a_lower_layer_is_found() {
    let source = Source::new("axes/unify.rs", "use crate::kept;\nuse crate::rewrite::edits;".to_owned());
    let order = ["kept", "axes", "rewrite"].map(str::to_owned);
    assert_eq!(
        wrong_uses(&source, &order),
        ["src/axes/unify.rs:2: `axes` may not use `rewrite`, which stands below it"]
    );
    assert_eq!(code_map("# A\n## Code map\n\n```text\nkept   x\n  more\naxes/  y\n```\n"), ["kept", "axes"]);
}
