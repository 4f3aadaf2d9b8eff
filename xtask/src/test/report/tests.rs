use super::*;

fn read(text: &str, success: bool) -> (Counts, Vec<String>, Vec<String>) {
    let mut report = Report::default();
    let shown = text.lines().filter(|line| report.read(line));
    let shown: Vec<String> = shown.map(str::to_owned).collect();
    let counts = report.finish(success);
    let skips = report.skips().iter().map(ToString::to_string).collect();
    (counts, skips, shown)
}

fn counts(passed: usize, failed: usize, skipped: usize) -> Counts {
    Counts {
        passed,
        failed,
        skipped,
    }
}

#[test]
fn sums_over_binaries() {
    let (got, skips, shown) = read(
        "   Compiling a v0.1.0
     Running unittests src/lib.rs (target/debug/deps/a-0123456789abcdef)

running 2 tests
test one ... ok
test two ... ok

successes:

---- one stdout ----
what one printed

successes:
    one
    two

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/b.rs (target/debug/deps/b-0123456789abcdef)

running 1 test
test three ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        true,
    );
    assert_eq!(got, counts(3, 0, 0));
    assert_eq!(skips, [""; 0]);
    assert!(shown.iter().any(|line| line == "test one ... ok"));
    assert!(!shown.iter().any(|line| line == "what one printed"));
    assert!(shown.iter().any(|line| line == "test three ... ok"));
}

#[test]
fn result_lines_of_a_binary_started_by_its_own_test_do_not_count() {
    let (got, ..) = read(
        "     Running tests/nft/main.rs (target/debug/deps/nft-0123456789abcdef)
running 2 tests
running 1 test
test a ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.10s
test a ... ok
test b ... FAILED
failures:
---- b stdout ----
running 1 test
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.10s
skipped: what a failing test says is no skip
failures:
    b
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
error: test failed, to rerun pass `-p dataplane --test nft`
",
        false,
    );
    assert_eq!(got, counts(1, 1, 0));
}

#[test]
fn skips_of_both_kinds_are_taken_from_the_passed_and_counted_once_a_test() {
    let (got, skips, shown) = read(
        "     Running unittests src/lib.rs (target/debug/deps/linux-0123456789abcdef)
skipped: lab host::up: the sandbox: not permitted
skipped: lab host::up: the sandbox: not permitted
test host::up ... ok
successes:
---- namespace::apart stdout ----
skipped: no network namespace
noise
successes:
    host::up
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running tests/lab.rs (target/debug/deps/lab-0123456789abcdef)
skipped: lab host::up: another binary's test
test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        true,
    );
    assert_eq!(got, counts(1, 0, 4));
    let want = [
        "linux host::up: the sandbox: not permitted",
        "linux namespace::apart: no network namespace",
        "lab host::up: another binary's test",
    ];
    assert_eq!(skips, want);
    assert!(
        shown
            .iter()
            .any(|line| line == "skipped: no network namespace")
    );
    assert!(!shown.iter().any(|line| line == "noise"));
}

#[test]
fn documentation_tests_in_parts_are_added() {
    let (got, ..) = read(
        "   Doc-tests lab

running 2 tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 1 test
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests plan
running 0 tests
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        true,
    );
    assert_eq!(got, counts(3, 0, 0));
}

#[test]
fn a_crash_or_a_failed_build_is_a_failure() {
    let crash = "     Running tests/b.rs (target/debug/deps/b-0123456789abcdef)
running 1 test
error: test failed, to rerun pass `--test b`
  process didn't exit successfully: (signal: 6, SIGABRT: process abort signal)
";
    assert_eq!(read(crash, false).0, counts(0, 1, 0));
    assert_eq!(
        read("error: could not compile `a`", false).0,
        counts(0, 1, 0)
    );
}

#[test]
fn verdicts() {
    let ok = |counts: Counts, ci| counts.verdict(ci).is_ok();
    assert!(ok(counts(3, 0, 0), true));
    assert!(ok(counts(3, 0, 1), false));
    assert!(!ok(counts(3, 0, 1), true));
    assert!(!ok(counts(3, 1, 0), false));
    assert!(!ok(counts(0, 0, 0), false));
    assert_eq!(counts(3, 1, 2).to_string(), "3 passed, 1 failed, 2 skipped");
}
