//! `cargo xtask bench NAME [OPTION…]`: a bench is a release-profile example of the crate that it
//! measures; the options are the example's own.
//!
//! Each prints a table, and as its last line `{"bench": NAME, "figures": {…}}`.

use crate::failure::{Failure, failed};
use crate::shell::{cargo, line, run as run_it, stream};

struct Bench {
    name: &'static str,
    package: &'static str,
    example: &'static str,
    /// A program of another package that it starts.
    starts: Option<&'static str>,
    help: &'static str,
}

const BENCHES: [Bench; 10] = [
    Bench {
        name: "alloc",
        package: "plan",
        example: "bench_alloc",
        starts: None,
        help: "fill a /16 pool; one address more",
    },
    Bench {
        name: "world",
        package: "plan",
        example: "bench_world",
        starts: None,
        help: "one change in a World of many Services",
    },
    Bench {
        name: "forward-load",
        package: "dataplane",
        example: "bench_forward_load",
        starts: None,
        help: "20k Services into nftables; one more at 45k (root or user namespaces)",
    },
    Bench {
        name: "adj-out",
        package: "proto",
        example: "bench_adj_out",
        starts: None,
        help: "10k and 100k routes to four BGP peers: diff and encoding",
    },
    Bench {
        name: "bgp",
        package: "lab",
        example: "bench_bgp",
        starts: Some("corten"),
        help: "BGP and BFD beside FRR, BIRD and GoBGP (namespaces, Debian packages); --quick to try",
    },
    Bench {
        name: "cluster",
        package: "lab",
        example: "bench_cluster",
        starts: Some("corten"),
        help: "install, upgrade and memory on a real cluster (root, Go, Debian packages)",
    },
    Bench {
        name: "l2",
        package: "lab",
        example: "bench_l2",
        starts: Some("corten"),
        help: "layer 2 fail-over beside keepalived (namespaces, Debian package); --runs 3 to try",
    },
    Bench {
        name: "member",
        package: "lab",
        example: "bench_member",
        starts: Some("corten"),
        help: "failure detection: CPU of 100 members with real sockets, of an idle agent (namespaces)",
    },
    Bench {
        name: "proxy",
        package: "lab",
        example: "bench_proxy",
        starts: Some("corten"),
        help: "the service proxy beside kube-proxy: load, change, first packet, rates (Go); --quick to try",
    },
    Bench {
        name: "controller",
        package: "lab",
        example: "bench_controller",
        starts: Some("corten"),
        help: "5k pending, 10k new Services on a real API server against a bare client (Go, namespaces)",
    },
];

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some((name, options)) = arguments.split_first() else {
        return Err(Failure::Usage(format!("`bench` takes a name\n{}", list())));
    };
    if name == "--list" {
        println!("{}", list());
        return Ok(());
    }
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        return Err(Failure::Usage(format!(
            "no bench is named {name:?}\n{}",
            list()
        )));
    };
    if let Some(package) = bench.starts {
        run_it(&mut cargo(["build", "--release", "-p", package, "--bins"]))?;
    }
    let mut command = cargo([
        "run",
        "--release",
        "-p",
        bench.package,
        "--example",
        bench.example,
        "--",
    ]);
    command.args(options);
    let mut last = String::new();
    let status = stream(&mut command, |line| {
        println!("{line}");
        last = line.to_owned();
    });
    match status {
        Ok(status) if !status.success() => failed(format!("bench {name} failed ({status})")),
        Ok(_) if is_result(&last, name) => Ok(()),
        Ok(_) => failed(format!(
            "the last line of bench {name} is not its JSON object"
        )),
        Err(error) => failed(format!("`{}` does not run: {error}", line(&command))),
    }
}

fn list() -> String {
    let lines = BENCHES.map(|bench| format!("  {:<14} {}", bench.name, bench.help));
    format!("benches:\n{}", lines.join("\n"))
}

fn is_result(line: &str, name: &str) -> bool {
    let bare: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    bare.starts_with(&format!("{{\"bench\":\"{name}\",\"figures\":{{")) && bare.ends_with("}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_checked() {
        assert!(is_result(
            r#"{"bench": "alloc", "figures": {"alloc_us": 1.5}}"#,
            "alloc"
        ));
        assert!(!is_result(
            r#"{"bench": "alloc", "figures": {"alloc_us": 1.5}}"#,
            "other"
        ));
        assert!(!is_result("done", "alloc"));
    }
}
