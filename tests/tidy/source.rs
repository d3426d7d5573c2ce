//! Rust source as the checks need it: code without comments, string literals apart, tests cut off.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One file below src.
pub(crate) struct Source {
    /// Its path below src, with `/`.
    pub(crate) path: String,
    /// All its text.
    pub(crate) text: String,
    /// True if nothing but unit tests sees it.
    pub(crate) is_for_tests: bool,
}

impl Source {
    /// Every file below src, in order, except what a generator wrote.
    pub(crate) fn all() -> Vec<Self> {
        let src = root().join("src");
        let mut sources: Vec<Self> = files(&src)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "rs"))
            .map(|path| Self::new(&relative(&path, &src), fs::read_to_string(&path).unwrap()))
            .filter(|source| !source.text.starts_with("// This file is @generated"))
            .collect();
        let declared: Vec<String> = sources.iter().flat_map(Self::modules_for_tests).collect();
        for source in &mut sources {
            source.is_for_tests = declared.contains(&source.path);
        }
        sources
    }

    /// A file with this text.
    pub(crate) fn new(path: &str, text: String) -> Self {
        Self { path: path.to_owned(), text, is_for_tests: false }
    }

    /// The files beside this one that it declares for unit tests only.
    fn modules_for_tests(&self) -> Vec<String> {
        let folder = self.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let after = self.text.split("\n#[cfg(test)]\n").skip(1).filter_map(|rest| rest.lines().next());
        let names = after.filter_map(|line| line.strip_suffix(';')?.split("mod ").nth(1));
        names.map(|name| format!("{folder}{name}.rs")).collect()
    }

    /// The top-level module that the file belongs to.
    pub(crate) fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// The text before the unit tests.
    pub(crate) fn before_tests(&self) -> &str {
        if self.is_for_tests {
            return "";
        }
        let starts = self.text.match_indices("\n#[cfg(test)]\n").map(|(at, _)| at);
        let is_module = |at: &usize| self.text[*at..].lines().nth(2).is_some_and(|line| line.ends_with("mod tests {"));
        &self.text[..starts.clone().find(is_module).unwrap_or(self.text.len())]
    }

    /// The lines before the unit tests, as code and string literals.
    pub(crate) fn lines(&self) -> Vec<Line> {
        lines(self.before_tests())
    }
}

/// A line of code.
#[derive(Default)]
pub(crate) struct Line {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// The code, without comments and with empty string literals.
    pub(crate) code: String,
    /// The string literals that begin on the line.
    pub(crate) strings: Vec<String>,
}

/// Takes comments and string literals out of Rust code.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    let mut lines = vec![Line { number: 1, ..Line::default() }];
    let mut rest = text;
    let mut previous = ' ';
    while let Some(character) = rest.chars().next() {
        let line = lines.last_mut().unwrap();
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some((literal, length)) = string_literal(rest, previous) {
            line.code.push_str("\"\"");
            line.strings.push(literal.to_owned());
            length
        } else if let Some(length) = character_literal(rest) {
            line.code.push_str("' '");
            length
        } else {
            if character != '\n' {
                line.code.push(character);
            }
            character.len_utf8()
        };
        for _ in 0..rest[..taken].matches('\n').count() {
            lines.push(Line { number: lines.len() + 1, ..Line::default() });
        }
        previous = character;
        rest = &rest[taken..];
    }
    lines
}

/// A string literal at the start of `text`, plain, byte or raw: its content and its length in all.
fn string_literal(text: &str, previous: char) -> Option<(&str, usize)> {
    if previous.is_alphanumeric() || previous == '_' {
        return None;
    }
    let after_b = text.strip_prefix('b').unwrap_or(text);
    if let Some(raw) = after_b.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let body = raw[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = body.find(&close)?;
        return Some((&body[..end], text.len() - body.len() + end + close.len()));
    }
    let body = after_b.strip_prefix('"')?;
    let mut escaped = false;
    let end = body.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    Some((&body[..end], text.len() - body.len() + end + 1))
}

/// The length of a character literal at the start of `text`; a lifetime is none.
fn character_literal(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let first = body.chars().next()?;
    let length = if first == '\\' { 1 + body[1..].chars().next()?.len_utf8() } else { first.len_utf8() };
    let end = if first == '\\' { length + body[length..].find('\'')? } else { length };
    body[end..].starts_with('\'').then_some(end + 2)
}

/// All files below a folder, except build outputs and hidden folders.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !path.is_dir() {
                found.push(path);
            } else if name != "target" && !name.starts_with('.') {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path below a folder, with `/`.
pub(crate) fn relative(path: &Path, folder: &Path) -> String {
    let parts: Vec<_> =
        path.strip_prefix(folder).unwrap().components().map(|c| c.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = "let a = \"x // y\"; // \"no\"\nlet b: &'a str = r#\"raw \"x\"\"#; /* out\n */ let c = ('\"', '\\'', b\"z\");\n\"two\nlines\"; d";
    let lines = lines(text);
    let code: Vec<&str> = lines.iter().map(|l| l.code.as_str()).collect();
    assert_eq!(code, ["let a = \"\"; ", "let b: &'a str = \"\"; ", " let c = (' ', ' ', \"\");", "\"\"", "; d"]);
    let strings: Vec<String> = lines.iter().flat_map(|l| l.strings.clone()).collect();
    assert_eq!(strings, ["x // y", "raw \"x\"", "z", "two\nlines"]);
}

#[test]
fn unit_tests_are_cut_off() {
    let text = "a\n#[cfg(test)]\nmod testing;\nb\n#[cfg(test)]\npub(crate) mod tests {\n    c\n}\n";
    let source = Source::new("x/mod.rs", text.to_owned());
    assert_eq!(source.before_tests(), "a\n#[cfg(test)]\nmod testing;\nb");
    assert_eq!(source.modules_for_tests(), ["x/testing.rs"]);
}
