//! Words that may stand in some places only: printing, panicking, operator names.

use std::collections::BTreeSet;

use onnx_mtprune::ops::RULES;

use crate::none;
use crate::source::{Line, Source, lines};

/// What only the command line may do.
const IMPURE: &[&str] = &[
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
    "std::env",
    "env::",
    "std::time",
    "Instant",
    "SystemTime",
    "process::exit",
    "std::thread",
    "static mut",
    "thread_local!",
];

/// What can stop the program.
const PANICS: &[&str] =
    &[".unwrap()", ".expect(", "panic!", "todo!", "unimplemented!", "unreachable!", "assert!(", "assert_eq!("];

/// Modules that belong to the command line.
const SHELL: &[&str] = &["cli", "main"];

/// Modules whose business operator names are.
const NAMES_OPERATORS: &[&str] = &["ops", "grad", "losses"];

/// Files outside those that name operators all the same: which, and why.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    (
        "calibration/emit.rs",
        &[
            "Abs",
            "Add",
            "Cast",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "MatMul",
            "Mul",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceSum",
            "Relu",
            "Reshape",
            "Shape",
            "Slice",
            "Sub",
            "Transpose",
        ],
        "nodes that it emits: those that measure values inside the graph",
    ),
    (
        "gates/backward.rs",
        &["Abs", "Mul", "ReduceSum"],
        "nodes that it emits: magnitudes of activations times gradients",
    ),
    ("gates/forward.rs", &["Cast"], "a node that it emits: the loss of a task"),
    ("gates/insert.rs", &["Mul"], "nodes that it emits: the gates"),
    (
        "engine/tract.rs",
        &["Sigmoid", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Tanh"],
        "names of activations in an attribute and of operators with a default, which the engine misreads",
    ),
    ("functions/copy.rs", &["Identity"], "a node that it emits: a function that returns what it is given"),
    ("graph/lower.rs", &["Constant"], "a constant is part of the graph's structure"),
    ("proto/build.rs", &["Constant"], "a node that it puts together: what holds a constant"),
    (
        "rewrite/edits.rs",
        &["Add", "Div", "Mul"],
        "nodes that it emits: entries of a shape overridden or scaled, a mean rescaled",
    ),
    ("text.rs", &["Constant"], "the constants of a function can be written in no other way"),
    ("verify/constants.rs", &["Constant"], "it finds constants without the graph, which it must not share"),
    (
        "verify/emit.rs",
        &["Cast", "ReduceSum", "Reshape"],
        "nodes that it emits: the definition of a normalisation over what remains",
    ),
    ("verify/masked.rs", &["And", "Mul", "Where"], "nodes that it emits: the masks"),
    ("verify/nested.rs", &["Gather", "Pad"], "nodes that it emits: masks inside bodies"),
    (
        "verify/scale.rs",
        &[
            "Cast",
            "Concat",
            "Erf",
            "Expand",
            "Flatten",
            "Gather",
            "HardSigmoid",
            "Identity",
            "Reshape",
            "Sigmoid",
            "Slice",
            "Softmax",
            "Split",
            "Squeeze",
            "Tanh",
            "Transpose",
            "Unsqueeze",
        ],
        "what saturates, and what hands it on, without the rules, which it must not share",
    ),
    (
        "verify/statistics.rs",
        &[
            "Add",
            "Div",
            "GroupNormalization",
            "InstanceNormalization",
            "LayerNormalization",
            "MeanVarianceNormalization",
            "Mul",
            "SkipLayerNormalization",
            "Sqrt",
            "Sub",
        ],
        "what no mask can tell: the definitions of normalisations that were allowed to approximate, without their rules",
    ),
];

#[test]
fn only_the_command_line_prints_and_asks_the_system() {
    let sources = Source::all();
    none(
        sources
            .iter()
            .filter(|s| !SHELL.contains(&s.module()))
            .flat_map(|s| find(&s.path, &s.lines(), IMPURE))
            .collect(),
    );
}

#[test]
fn nothing_panics() {
    none(Source::all().iter().flat_map(|s| find(&s.path, &s.lines(), PANICS)).collect());
}

#[test]
fn only_rules_name_operators() {
    let operators: BTreeSet<&str> = RULES.iter().map(|row| row.op_type).collect();
    let mut unused: BTreeSet<(&str, &str)> =
        EXCEPTIONS.iter().flat_map(|(path, names, _)| names.iter().map(|name| (*path, *name))).collect();
    let mut complaints = Vec::new();
    for source in Source::all().iter().filter(|s| !NAMES_OPERATORS.contains(&s.module())) {
        for (number, name) in quoted(&source.lines(), &operators) {
            let allowed =
                EXCEPTIONS.iter().any(|(path, names, _)| *path == source.path && names.contains(&name.as_str()));
            unused.retain(|(path, known)| *path != source.path || *known != name);
            if !allowed {
                complaints
                    .push(format!("src/{}:{number}: \"{name}\" is an operator; ask its rule instead", source.path));
            }
        }
    }
    complaints.extend(unused.iter().map(|(path, name)| format!("src/{path} does not name {name}: drop the exception")));
    none(complaints);
}

/// Lines with one of the words.
fn find(path: &str, lines: &[Line], words: &[&str]) -> Vec<String> {
    let hit = |line: &Line| words.iter().find(|word| has_word(&line.code, word)).map(|word| (line.number, *word));
    lines
        .iter()
        .filter_map(hit)
        .map(|(number, word)| format!("src/{path}:{number}: `{word}` has no place here"))
        .collect()
}

/// True if the word stands in the code and is not the end of a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !word.starts_with(joins) || !code[..at].ends_with(joins))
}

/// String literals that are operator names. `Constant` counts, although it has no rule.
fn quoted(lines: &[Line], operators: &BTreeSet<&str>) -> Vec<(usize, String)> {
    let is_name = |s: &&String| operators.contains(s.as_str()) || *s == "Constant";
    lines.iter().flat_map(|l| l.strings.iter().filter(is_name).map(|s| (l.number, s.clone()))).collect()
}

#[test]
fn words_are_found() {
    let text = "let a = b.unwrap();\nlet c = d.unwrap_or(1); // .unwrap()\nmy_println!();\nprintln!(\"Conv\");\n\"Convolution\"";
    let lines = lines(text);
    assert_eq!(find("x", &lines, PANICS), ["src/x:1: `.unwrap()` has no place here"]);
    assert_eq!(find("x", &lines, IMPURE), ["src/x:4: `println!` has no place here"]);
    assert_eq!(quoted(&lines, &BTreeSet::from(["Conv"])), [(4, "Conv".to_owned())]);
}
