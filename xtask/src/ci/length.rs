//! Files stay short: a ceiling without tests, and the median for the record.

use crate::ci::{Verdict, verdict};
use crate::source::{Source, lines_with};

const CEILING: usize = 800;

/// Runs the step.
pub(crate) fn check(sources: &[Source]) -> Verdict {
    let product = sources.iter().filter(|source| !is_test(&source.path));
    let mut lengths: Vec<(usize, &str)> = product
        .map(|source| (length(source), source.path.as_str()))
        .collect();
    lengths.sort_unstable();
    let long = lengths.iter().filter(|(lines, _)| *lines > CEILING);
    let findings: Vec<String> = long
        .map(|(lines, path)| format!("{path}: {lines} lines without tests, more than {CEILING}"))
        .collect();
    let median = lengths
        .get(lengths.len() / 2)
        .map_or(0, |(lines, _)| *lines);
    let longest = lengths.last().copied().unwrap_or_default();
    let good = format!(
        "{} files without tests: median {median} lines, longest {} ({})",
        lengths.len(),
        longest.0,
        longest.1
    );
    verdict(&findings, good)
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Lines before the test module at the end.
fn length(source: &Source) -> usize {
    let all = source.text.lines().count();
    let code: Vec<&str> = source.code.lines().collect();
    let opens = |line: &usize| {
        let next = code.get(*line).map_or("", |line| line.trim());
        next.starts_with("mod ") && next.ends_with('{')
    };
    let marks = lines_with(&source.code, "#[cfg(test)]");
    marks.into_iter().find(opens).map_or(all, |line| line - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_module_does_not_count() {
        let product = "fn a() {}\n".repeat(790);
        let tests = format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "fn b() {}\n".repeat(50)
        );
        let helper = "#[cfg(test)]\nuse x;\n";
        let source = Source::new("crates/a/src/a.rs", format!("{helper}{product}{tests}"));
        assert_eq!(length(&source), 792);
        assert!(check(&[source]).is_ok());
    }

    #[test]
    fn long_files_are_refused_tests_apart() {
        let long = "fn a() {}\n".repeat(801);
        let of = |path: &str| check(&[Source::new(path, long.as_str())]);
        assert!(of("crates/a/src/a.rs").is_err());
        assert!(of("crates/a/src/a/tests.rs").is_ok());
        assert!(of("crates/a/tests/a.rs").is_ok());
    }
}
