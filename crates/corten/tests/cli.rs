//! The command line: verdicts, exit codes, and errors that say what, where and what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CORTEN: &str = env!("CARGO_BIN_EXE_corten");
/// A user without rights.
const NOBODY: &str = "65534";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("corten-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("folder");
        Self(folder)
    }

    fn write(&self, file: &str, text: &str) -> String {
        let path = self.0.join(file);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let said = Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        };
        assert!(!said.err.contains("panicked"), "{}", said.err);
        said
    }
}

fn corten(args: &[&str]) -> Said {
    Said::of(Command::new(CORTEN).args(args).output().expect("started"))
}

fn examples(set: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    path.join(set).display().to_string()
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

const POOL: &str = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: one
  namespace: metallb-system
spec:
  addresses:
  - 10.0.0.1-10.0.0.9
";

#[test]
fn check_finds_the_examples_good() {
    for set in ["l2", "bgp"] {
        let said = corten(&["check", &examples(set)]);
        assert_eq!(said.code, Some(0), "{set}: {}", said.out);
        contains(
            &said.out,
            &["IPAddressPool metallb-system/", " good, 0 with problems"],
        );
        let quiet = corten(&["check", "--quiet", &examples(set)]);
        assert_eq!((quiet.code, quiet.out.lines().count()), (Some(0), 1));
    }
}

/// What is wrong in a manifest; where; and of what the message speaks.
const FAULTS: [(&str, &str, usize, &[&str]); 6] = [
    // In one object.
    (
        "  - 10.0.0.1-10.0.0.9",
        "  - 10.0.0.9-10.0.0.1",
        8,
        &[
            "IPAddressPool metallb-system/one",
            "spec.addresses[0]",
            "10.0.0.9-10.0.0.1",
        ],
    ),
    // As the API server says it.
    (
        "spec:\n",
        "spec:\n  colour: red\n",
        7,
        &["unknown field \"spec.colour\""],
    ),
    (
        "spec:\n",
        "spec:\n  autoAssign: perhaps\n",
        7,
        &["spec.autoAssign", "boolean"],
    ),
    // Not YAML.
    ("spec:\n", "spec: }{\n", 6, &[]),
    // Between objects.
    (
        "  - 10.0.0.1-10.0.0.9\n",
        "  - 10.0.0.1-10.0.0.9\n---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
         metadata: {name: two, namespace: metallb-system}\nspec: {addresses: [10.0.0.5/32]}\n",
        13,
        &[
            "IPAddressPool metallb-system/two",
            "spec.addresses[0]",
            "one",
        ],
    ),
    (
        "namespace: metallb-system",
        "namespace: elsewhere",
        5,
        &["metadata.namespace", "metallb-system"],
    ),
];

#[test]
fn check_names_file_line_field_and_remedy() {
    let folder = Folder::new("faults");
    for (n, (good, bad, line, parts)) in FAULTS.into_iter().enumerate() {
        assert!(POOL.contains(good), "{good:?}");
        let file = folder.write(&format!("{n}.yaml"), &POOL.replace(good, bad));
        let said = corten(&["check", &file]);
        assert_eq!(said.code, Some(1), "{bad:?}: {}", said.out);
        let at = format!("{file}:{line}: ");
        let found = said.out.lines().find(|text| text.starts_with(&at));
        let found = found.unwrap_or_else(|| panic!("{bad:?}: nothing at {at:?}: {}", said.out));
        contains(found, parts);
        // The remedy stands at the end, in brackets.
        assert!(found.ends_with(')') && !found.ends_with("()"), "{found}");
        fs::remove_file(&file).expect("removed");
    }
}

#[test]
fn check_judges_files_together_and_tells_all() {
    let folder = Folder::new("together");
    folder.write("a.yaml", POOL);
    folder.write("b.yaml", &POOL.replace("name: one", "name: two"));
    folder.write(
        "c.yml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 0}]}\n",
    );
    folder.write("notes.txt", "not a manifest");
    let said = corten(&["check", folder.path()]);
    assert_eq!(said.code, Some(1));
    contains(
        &said.out,
        &["b.yaml:8:", "c.yml:4:", "1 good, 2 with problems"],
    );
    let said = corten(&["check", "/nonexistent.yaml"]);
    assert_eq!(said.code, Some(1));
    contains(
        &said.out,
        &["/nonexistent.yaml", "No such file", "name a readable file"],
    );
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let cases: [(&[&str], &str); 6] = [
        (&[], "Usage: corten"),
        (&["explode"], "unrecognized subcommand 'explode'"),
        (&["check"], "<FILES>"),
        (&["run"], "<DIR>"),
        (
            &["run", "/tmp", "--forward", "some"],
            "possible values: off, vips, all",
        ),
        (
            &["agent", "--dir", "/tmp", "--kubeconfig", "x"],
            "cannot be used with",
        ),
    ];
    for (args, part) in cases {
        let said = corten(args);
        assert_eq!(said.code, Some(2), "{args:?}");
        contains(&said.err, &[part]);
    }
    assert_eq!(corten(&["--version"]).code, Some(0));
    assert_eq!(corten(&["run", "--help"]).code, Some(0));
}

#[test]
fn a_directory_that_is_none_is_named() {
    let folder = Folder::new("none");
    let file = folder.write("file", "");
    for (dir, why) in [
        ("/nonexistent", "No such file"),
        (file.as_str(), "Not a directory"),
    ] {
        for args in [["run", dir].as_slice(), &["agent", "--dir", dir]] {
            let said = corten(args);
            assert_eq!(said.code, Some(1), "{args:?}");
            assert_eq!(said.err.lines().count(), 1, "{}", said.err);
            contains(
                &said.err,
                &["corten: ", dir, why, "give a directory of manifests"],
            );
        }
    }
    assert!(!Path::new("/nonexistent").exists());
}

/// The command as a user without rights, but with these capabilities; `None` where that cannot be
/// done.
fn unprivileged(capabilities: &str) -> Option<Command> {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !root {
        return capabilities.is_empty().then(|| Command::new(CORTEN));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    if !capabilities.is_empty() {
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
    }
    let works = command
        .arg("true")
        .output()
        .is_ok_and(|output| output.status.success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    if !capabilities.is_empty() {
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
    }
    works.then(|| {
        command.arg(CORTEN);
        command
    })
}

/// Runs it on `dir`, where nobody may write; every user may run the program, wherever it was
/// built.
fn on_foreign_directory(capabilities: &str, parts: &[&str]) {
    let folder = Folder::new(&format!("rights-{}", parts.len()));
    folder.write("pool.yaml", POOL);
    let Some(mut command) = unprivileged(capabilities) else {
        eprintln!("skipped: setpriv cannot give up rights here");
        return;
    };
    let said = command.args(["run", folder.path()]).output();
    let said = Said::of(said.expect("started"));
    assert_eq!(said.code, Some(1), "{}", said.err);
    contains(&said.err, parts);
    contains(&said.err, &["corten: "]);
    assert!(!folder.0.join(".corten").exists(), "nothing is written");
}

#[test]
fn missing_rights_are_named() {
    on_foreign_directory("", &["NET_RAW", "answer ARP and NDP", "run it as root"]);
    on_foreign_directory(
        "+net_raw",
        &[
            "NET_ADMIN",
            "program the kernel's forwarding",
            "run it as root",
            "securityContext",
        ],
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
        eprintln!("skipped: capabilities can only be given by root");
        return;
    }
    on_foreign_directory(
        "+net_raw,+net_admin",
        &["Permission denied", "let this process write there"],
    );
}
