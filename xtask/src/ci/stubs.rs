//! Nothing is stubbed and called done, and no test is switched off.

use crate::ci::{Verdict, verdict};
use crate::source::{Source, lines_with};

const STUBS: [&str; 4] = ["todo!", "unimplemented!", "#[ignore]", "#[ignore ="];

/// Runs the step.
pub(crate) fn check(sources: &[Source]) -> Verdict {
    let mut findings = Vec::new();
    for source in sources {
        for stub in STUBS {
            for line in lines_with(&source.code, stub) {
                findings.push(format!("{}:{line}: {stub}", source.path));
            }
        }
    }
    verdict(&findings, format!("none in {} files", sources.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_found_and_talk_of_them_is_not() {
        let bad = "#[test]\n#[ignore = \"slow\"]\nfn a() { todo!() }";
        let error = check(&[Source::new("a.rs", bad)])
            .expect_err("two")
            .to_string();
        assert!(
            error.contains("a.rs:2: #[ignore =") && error.contains("a.rs:3: todo!"),
            "{error}"
        );
        let good = "// todo!()\nlet a = \"#[ignore]\";";
        assert_eq!(
            check(&[Source::new("a.rs", good)]),
            Ok("none in 1 files".into())
        );
    }
}
