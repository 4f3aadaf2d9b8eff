//! The workspace's Rust sources: found, and read without comments and literals.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::shell::root;

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Below the repository, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// With comments and the inside of literals blanked out; lines stay where they are.
    pub(crate) code: String,
}

impl Source {
    /// From a path and its text.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            path: path.into(),
            code: code_only(&text),
            text,
        }
    }
}

/// The members of the workspace: `crates/*` and `xtask`.
pub(crate) fn members() -> io::Result<Vec<PathBuf>> {
    let root = root();
    let mut members = vec![root.join("xtask")];
    for entry in fs::read_dir(root.join("crates"))? {
        let path = entry?.path();
        if path.join("Cargo.toml").is_file() {
            members.push(path);
        }
    }
    members.sort();
    Ok(members)
}

/// All Rust files of all members.
pub(crate) fn all() -> io::Result<Vec<Source>> {
    let mut files = Vec::new();
    for member in members()? {
        walk(&member, &mut files)?;
    }
    files.sort();
    let root = root();
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap_or(&file);
        let path = path.to_string_lossy().into_owned();
        fs::read_to_string(&file).map(|text| Source::new(path, text))
    };
    files.into_iter().map(read).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Lines, from 1, whose code holds `word` as a whole word.
pub(crate) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            let goes_on = word.ends_with(part) && after.starts_with(part);
            !goes_on && !before.ends_with(part)
        })
    };
    let lines = code.lines().enumerate();
    lines
        .filter(|(_, line)| whole(line))
        .map(|(i, _)| i + 1)
        .collect()
}

/// Blanks out comments and literals.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (token, blank) = token(rest, c, code.chars().next_back());
        let (taken, left) = rest.split_at(token);
        if blank {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push_str(taken);
        }
        rest = left;
    }
    code
}

/// The length of what `rest` begins with, and whether it is blanked out.
fn token(rest: &str, first: char, before: Option<char>) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), true);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), true);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match first {
        '"' => (quoted(rest, 1), true),
        'r' | 'b' | 'c' if !in_word => match raw_string(rest) {
            Some(length) => (length, true),
            None => (1, false),
        },
        '\'' => match character(rest) {
            Some(length) => (length, true),
            None => (1, false),
        },
        _ => (first.len_utf8(), false),
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Up to the closing `"`, after `start` bytes.
fn quoted(rest: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return start + at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `br#"…"#` and so on.
fn raw_string(rest: &str) -> Option<usize> {
    let after = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let opening = rest.len() - body.len();
    let end = body.find(&close).map(|at| opening + at + close.len());
    Some(end.unwrap_or(rest.len()))
}

/// A character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let body = &rest[1..];
    let mut chars = body.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        // What is escaped may be a quote.
        let (escaped, _) = chars.next()?;
        let after = body.get(escaped + 1..)?;
        return after.find('\'').map(|at| 1 + escaped + 1 + at + 1);
    }
    let (next, quote) = chars.next()?;
    (quote == '\'').then_some(1 + next + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let source = Source::new("a.rs", text);
        assert_eq!(source.code.lines().count(), text.lines().count(), "{text}");
        lines_with(&source.code, "unsafe")
    }

    #[test]
    fn words_in_code_are_found() {
        assert_eq!(
            found("fn a() {\n    unsafe { b() }\n}\nunsafe fn c() {}"),
            [2, 4]
        );
        assert_eq!(found("let a = '\"'; unsafe { b(\"x\") }"), [1]);
        assert_eq!(found("let a = '\\''; unsafe {}"), [1]);
        assert_eq!(found("let a = b'\\\\'; unsafe {}"), [1]);
        assert_eq!(found("fn a<'a>(x: &'a str) { unsafe {} }"), [1]);
        assert_eq!(found("/* a /* b */ c */ unsafe {}"), [1]);
        assert_eq!(found("let s = r#\"a\" b\"#; unsafe {}"), [1]);
        assert_eq!(found("let s = \"\\\"\"; unsafe {}"), [1]);
        assert_eq!(found("let r = 'é'; unsafe {}"), [1]);
    }

    #[test]
    fn words_in_comments_literals_and_longer_words_are_not() {
        let none = [0_usize; 0];
        assert_eq!(found("// unsafe\n/// unsafe\n/* unsafe\nunsafe */"), none);
        assert_eq!(found("let s = \"unsafe\nunsafe\";"), none);
        assert_eq!(
            found("let s = r\"\\\"; let t = r##\"\"# unsafe \"##;"),
            none
        );
        assert_eq!(found("let s = b\"unsafe\"; let t = br#\"unsafe\"#;"), none);
        assert_eq!(found("#![deny(unsafe_code)]\nlet not_unsafe = 1;"), none);
    }

    #[test]
    fn macros_are_words_too() {
        let source = Source::new("a.rs", "todo!()\nmytodo!()\n// todo!()");
        assert_eq!(lines_with(&source.code, "todo!"), [1]);
    }
}
