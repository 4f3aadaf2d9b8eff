//! The table of commands: names, help, and who carries them out.

use crate::failure::Failure;
use crate::{bench, ci, cluster, crds, demo, image, manifests, soak, test};

struct Command {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const COMMANDS: [Command; 10] = [
    Command {
        name: "demo",
        arguments: "[bgp]",
        help: "the main job in a lab of namespaces on this machine; with a BGP router (FRR)",
        run: demo::run,
    },
    Command {
        name: "test",
        arguments: "[--list]",
        help: "all tests; installs what they need",
        run: test::run,
    },
    Command {
        name: "ci",
        arguments: "",
        help: "what CI runs: format, lints, docs, licences, house rules, then all tests",
        run: ci::run,
    },
    Command {
        name: "crds",
        arguments: "",
        help: "write deploy/crds from the types of crates/api",
        run: crds::run,
    },
    Command {
        name: "manifests",
        arguments: "[--check]",
        help: "write deploy/*.yaml from the chart, or say whether they are as it has them (Go)",
        run: manifests::run,
    },
    Command {
        name: "image",
        arguments: "[--arch A] [--profile P]",
        help: "the static program in an OCI image, without a daemon",
        run: image::run,
    },
    Command {
        name: "bench",
        arguments: "NAME [OPTION…] | --list",
        help: "a bench in the release profile; its last line is one JSON object",
        run: bench::run,
    },
    Command {
        name: "soak",
        arguments: "[MINUTES | --kills N | differential [--seed N] [--steps N] | proxy [--seed N] [--steps N] | member [--hours N]]",
        help: "the controller killed 200 times, or as said; or beside MetalLB's; the agent beside kube-proxy; or failure detection",
        run: soak::run,
    },
    Command {
        name: "cluster",
        arguments: "up | kubectl | exec | load-image | down",
        help: "a real Kubernetes cluster on this machine, without Docker",
        run: cluster::run,
    },
    Command {
        name: "help",
        arguments: "",
        help: "this list",
        run: help,
    },
];

/// Carries out the command line.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some((name, rest)) = arguments.split_first() else {
        return Err(Failure::Usage("no command given".into()));
    };
    let name = match name.as_str() {
        "-h" | "--help" => "help",
        name => name,
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(Failure::Usage(format!("no command is named {name:?}")));
    };
    // What follows `cluster` may be meant for kubectl.
    let asks = |argument: &String| argument == "-h" || argument == "--help";
    if command.name != "cluster" && rest.iter().any(asks) {
        return help(&[]);
    }
    (command.run)(rest)
}

/// The usage of all commands.
pub(crate) fn usage() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND\n");
    for command in &COMMANDS {
        let left = format!("{} {}", command.name, command.arguments);
        text.push_str(&format!("\n  {left:<28} {}", command.help));
    }
    text
}

/// For commands that take no arguments.
pub(crate) fn no_arguments(command: &str, arguments: &[String]) -> Result<(), Failure> {
    match arguments.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Usage(format!(
            "`{command}` takes no arguments; got {first:?}"
        ))),
    }
}

fn help(_: &[String]) -> Result<(), Failure> {
    println!("{}", usage());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> u8 {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        run(&arguments).map_or_else(|failure| failure.code(), |()| 0)
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "",
            "tset",
            "ci now",
            "crds --out x",
            "manifests --now",
            "image --arch riscv",
            "test --lsit",
            "bench",
            "bench nothing",
            "soak soon",
            "cluster",
        ] {
            assert_eq!(code(line), 2, "{line:?}");
        }
        for line in ["help", "--help", "test --help", "bench --list"] {
            assert_eq!(code(line), 0, "{line:?}");
        }
    }

    #[test]
    fn every_command_is_in_the_usage() {
        for command in &COMMANDS {
            assert!(usage().contains(command.name), "{}", command.name);
        }
    }
}
