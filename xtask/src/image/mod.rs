//! `cargo xtask image`: the static program in an OCI image from scratch. No daemon, no base image;
//! nothing is in it but `/corten`.
//!
//! Two builds give one digest: the archives hold no times, and the program none either (built with
//! the same compiler from the same sources, wherever they lie).

mod archive;
mod elf;

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, failed};
use crate::shell::{cargo, output, program, root, run as run_it, target, which};
use archive::Image;
use elf::Unfit;

/// A processor that images are made for.
#[derive(Debug, PartialEq, Eq)]
struct Architecture {
    /// As OCI names it.
    name: &'static str,
    /// As Rust names it.
    triple: &'static str,
    /// `e_machine` in its programs.
    machine: u16,
    /// The C compiler and linker for it, and the Debian package it is in, on another processor.
    cross: (&'static str, &'static str),
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "amd64",
        triple: "x86_64-unknown-linux-gnu",
        machine: 62,
        cross: ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
    },
    Architecture {
        name: "arm64",
        triple: "aarch64-unknown-linux-gnu",
        machine: 183,
        cross: ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    },
];

const USAGE: &str = "`image` takes --arch amd64|arm64, --profile NAME (default: dist), \
    --out FOLDER (default: target/image) and --binary FILE (packs it; builds nothing)";

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// None: all that can be had here.
    only: Option<&'static Architecture>,
    profile: String,
    out: Option<PathBuf>,
    binary: Option<PathBuf>,
}

fn options(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        only: None,
        profile: "dist".to_owned(),
        out: None,
        binary: None,
    };
    let mut words = arguments.iter();
    while let Some(flag) = words.next() {
        let value = words.next()?;
        match flag.as_str() {
            "--arch" => {
                let found = ARCHITECTURES.iter().find(|known| known.name == value);
                options.only = Some(found?);
            }
            "--profile" => options.profile.clone_from(value),
            "--out" => options.out = Some(value.into()),
            "--binary" => options.binary = Some(value.into()),
            _ => return None,
        }
    }
    Some(options)
}

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = options(arguments) else {
        return Err(Failure::Usage(USAGE.into()));
    };
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| target().join("image"));
    if let Some(binary) = &options.binary {
        let architecture = options.only.unwrap_or_else(host);
        return pack(architecture, binary, &out);
    }
    for architecture in &ARCHITECTURES {
        let wanted = options.only.is_none_or(|only| only == architecture);
        match obstacle(architecture) {
            _ if !wanted => {}
            None => pack(architecture, &build(architecture, &options.profile)?, &out)?,
            Some(why) if options.only.is_some() || architecture == host() => {
                return failed(format!(
                    "{} is not to be had here: {why}",
                    architecture.name
                ));
            }
            Some(why) => println!("{}: not to be had here: {why}", architecture.name),
        }
    }
    Ok(())
}

fn host() -> &'static Architecture {
    let [amd64, arm64] = &ARCHITECTURES;
    if cfg!(target_arch = "aarch64") {
        arm64
    } else {
        amd64
    }
}

/// What is missing to build for a processor.
fn obstacle(architecture: &Architecture) -> Option<String> {
    let triple = architecture.triple;
    let folder = ["--print", "target-libdir", "--target", triple];
    let library = output(program("rustc").args(folder)).unwrap_or_default();
    if !Path::new(library.trim()).is_dir() {
        return Some(format!(
            "Rust's library for it is missing: `rustup target add {triple}`"
        ));
    }
    let (compiler, package) = architecture.cross;
    (architecture != host() && which(compiler).is_none())
        .then(|| format!("{compiler} is missing: it is in the Debian package {package}"))
}

/// Builds the program; gives its path.
fn build(architecture: &Architecture, profile: &str) -> Result<PathBuf, Failure> {
    let triple = architecture.triple;
    let mut command = cargo(["build", "--locked", "-p", "corten", "--bin", "corten"]);
    command.args(["--profile", profile, "--target", triple]);
    command
        .env("RUSTFLAGS", flags())
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if architecture != host() {
        let variable = triple.replace('-', "_");
        let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
        command.env(linker, architecture.cross.0);
        command.env(format!("CC_{variable}"), architecture.cross.0);
    }
    run_it(&mut command)?;
    // Cargo's one exception.
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target().join(triple).join(folder).join("corten"))
}

/// Static, and without the names of this machine's folders.
fn flags() -> String {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/cargo --remap-path-prefix={}=/corten",
        cargo.display(),
        root().display()
    )
}

/// Writes the archives of a program.
fn pack(architecture: &Architecture, binary: &Path, out: &Path) -> Result<(), Failure> {
    let content = fs::read(binary).map_err(cannot("read", binary))?;
    if let Err(unfit) = elf::check(&content, architecture.machine) {
        let why = match unfit {
            Unfit::NoProgram => "it is no ELF program of 64 bits".to_owned(),
            Unfit::Machine(number) => format!("it is for processor {number}"),
            Unfit::Dynamic => "it asks for a dynamic loader, which the image has not".to_owned(),
        };
        return failed(format!(
            "{} cannot be the program of an image for {}: {why}",
            binary.display(),
            architecture.name
        ));
    }
    let version = version()?;
    let image = Image {
        architecture: architecture.name,
        version: &version,
        binary: &content,
    };
    let archives = image.archives();
    fs::create_dir_all(out).map_err(cannot("make", out))?;
    let write = |form: &str, content: &[u8]| {
        let file = out.join(format!("corten-{}.{form}.tar", architecture.name));
        fs::write(&file, content).map_err(cannot("write", &file))?;
        Ok(file)
    };
    let (oci, docker) = (
        write("oci", &archives.oci)?,
        write("docker", &archives.docker)?,
    );
    #[rustfmt::skip]
    println!(
        "corten:{version} for {}: {:.1} MB\n  \
         digest    {}\n  \
         image ID  {}\n  \
         {}: an OCI layout, for skopeo, crane, podman\n  \
         {}: for `ctr -n k8s.io image import` and `docker load`",
        architecture.name, content.len() as f64 / 1e6,
        archives.digest, archives.id, oci.display(), docker.display()
    );
    Ok(())
}

/// The product's version: the workspace's.
fn version() -> Result<String, Failure> {
    let file = root().join("Cargo.toml");
    let text = fs::read_to_string(&file).map_err(cannot("read", &file))?;
    let quoted = text
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    match quoted {
        Some(quoted) => Ok(quoted.trim().trim_matches('"').to_owned()),
        None => failed(format!("{} says no version", file.display())),
    }
}

fn cannot(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let text = format!("cannot {what} {}", path.display());
    move |error| Failure::Failed(format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Options> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        options(&words)
    }

    #[test]
    fn the_command_line() {
        let options = parse("--arch arm64 --profile release").expect("good");
        assert_eq!(options.only, Some(&ARCHITECTURES[1]));
        assert_eq!(options.profile, "release");
        assert_eq!(parse("").expect("good").profile, "dist");
        for bad in ["--arch riscv", "--arch", "amd64", "--profil release"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_program_is_packed_twice_alike_and_a_dynamic_one_is_refused() {
        let folder = std::env::temp_dir().join(format!("xtask-pack-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let binary = folder.join("corten");
        fs::write(&binary, elf::tests::program(62, &[1])).expect("written");
        let files = || {
            let forms = ["oci", "docker"];
            forms.map(|form| {
                fs::read(folder.join(format!("corten-amd64.{form}.tar"))).expect("made")
            })
        };
        let amd64 = &ARCHITECTURES[0];
        pack(amd64, &binary, &folder).expect("packed");
        let first = files();
        pack(amd64, &binary, &folder).expect("packed");
        assert_eq!(first, files());
        fs::write(&binary, elf::tests::program(62, &[3])).expect("written");
        let refused = pack(amd64, &binary, &folder)
            .expect_err("dynamic")
            .to_string();
        assert!(refused.contains("dynamic loader"), "{refused}");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn the_chart_s_image_is_this_one() {
        let chart = root().join("deploy/chart/Chart.yaml");
        let chart = fs::read_to_string(chart).expect("the chart");
        let version = version().expect("a version");
        assert!(
            chart.contains(&format!("appVersion: \"{version}\"\n")),
            "{chart}"
        );
    }
}
