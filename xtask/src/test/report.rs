//! Reading what `cargo test -- --show-output` prints: counts, skips, and what to show of it.
//!
//! Lab tests start their own test binary again, whose result lines come through as well: of the
//! result lines of one binary only the last is its own. Documentation tests of one crate may run
//! in parts, each with a result line.

use std::fmt;

/// What is counted, and printed as the plain closing line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Counts {
    /// The verdict in words; an error is one.
    pub(crate) fn verdict(&self, ci: bool) -> Result<&'static str, String> {
        match self {
            Self { failed: 1.., .. } => Err(format!("tests: FAILED ({})", self.failed)),
            Self { passed: 0, .. } => Err("tests: FAILED, none ran".into()),
            Self { skipped: 1.., .. } if ci => {
                Err("tests: FAILED, with CI=true none may be skipped".into())
            }
            Self { skipped: 1.., .. } => Ok("passed, but for those skipped"),
            _ => Ok("all passed"),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// A test that did not run, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    binary: String,
    test: String,
    reason: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.binary, self.test, self.reason)
    }
}

/// The part of one binary's output that a line is in.
#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    /// Tests as they end, and cargo's own lines.
    #[default]
    Running,
    /// What passing tests printed, with the test's name.
    Successes(String),
    /// What failing tests printed.
    Failures,
}

/// One `test result:` line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct ResultLine {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl ResultLine {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut result = Self::default();
        for part in counts.split("; ") {
            match part.split_once(' ')? {
                (number, "passed") => result.passed = number.parse().ok()?,
                (number, "failed") => result.failed = number.parse().ok()?,
                (number, "ignored") => result.ignored = number.parse().ok()?,
                _ => return Some(result),
            }
        }
        Some(result)
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    binary: String,
    documentation: bool,
    part: Part,
    /// Of the binary that runs.
    current: Option<ResultLine>,
    /// Of those before.
    sum: ResultLine,
    skips: Vec<Skip>,
}

impl Report {
    /// Takes the next line; whether to show it.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        if let Some((binary, documentation)) = section(line) {
            self.close();
            self.binary = binary.to_owned();
            self.documentation = documentation;
            return true;
        }
        if let Some(result) = ResultLine::parse(line) {
            match &mut self.current {
                Some(sum) if self.documentation => add(sum, result),
                current => *current = Some(result),
            }
            if self.documentation {
                self.part = Part::Running;
            }
            return true;
        }
        match line {
            "successes:" => self.part = Part::Successes(String::new()),
            "failures:" => self.part = Part::Failures,
            _ => {}
        }
        if let Part::Successes(test) = &mut self.part {
            let name = line.strip_prefix("---- ");
            if let Some(name) = name.and_then(|name| name.strip_suffix(" stdout ----")) {
                name.clone_into(test);
            }
        }
        let skipped = self.part != Part::Failures && self.skip(line);
        skipped || !matches!(self.part, Part::Successes(_))
    }

    /// The counts, at the end of the output.
    pub(crate) fn finish(&mut self, success: bool) -> Counts {
        self.close();
        let skipped = self.skips.len();
        let mut counts = Counts {
            passed: self.sum.passed.saturating_sub(skipped),
            failed: self.sum.failed,
            skipped: skipped + self.sum.ignored,
        };
        if !success && counts.failed == 0 {
            // A test binary crashed, or did not build.
            counts.failed = 1;
        }
        counts
    }

    /// The tests that were skipped; ignored ones are not among them.
    pub(crate) fn skips(&self) -> &[Skip] {
        &self.skips
    }

    fn close(&mut self) {
        add(&mut self.sum, self.current.take().unwrap_or_default());
        self.part = Part::Running;
    }

    /// Notes a skip; a test that says so twice counts once.
    fn skip(&mut self, line: &str) -> bool {
        let Some(said) = line.strip_prefix("skipped: ") else {
            return false;
        };
        let lab = said
            .strip_prefix("lab ")
            .and_then(|said| said.split_once(": "));
        let (test, reason) = match (lab, &self.part) {
            (Some(lab), _) => lab,
            (None, Part::Successes(test)) => (test.as_str(), said),
            (None, _) => ("", said),
        };
        let known = |skip: &Skip| skip.binary == self.binary && skip.test == test;
        if !test.is_empty() && self.skips.iter().any(known) {
            return true;
        }
        self.skips.push(Skip {
            binary: self.binary.clone(),
            test: test.to_owned(),
            reason: reason.to_owned(),
        });
        true
    }
}

/// The line by which cargo announces a binary, and whether it is documentation.
fn section(line: &str) -> Option<(&str, bool)> {
    if let Some(package) = line.strip_prefix("   Doc-tests ") {
        return Some((package, true));
    }
    let rest = line.strip_prefix("     Running ")?;
    let (_, path) = rest.rsplit_once('(')?;
    let name = path.strip_suffix(')')?.rsplit('/').next()?;
    // Without the hash.
    Some((name.rsplit_once('-').map_or(name, |(name, _)| name), false))
}

fn add(sum: &mut ResultLine, result: ResultLine) {
    sum.passed += result.passed;
    sum.failed += result.failed;
    sum.ignored += result.ignored;
}

#[cfg(test)]
mod tests;
