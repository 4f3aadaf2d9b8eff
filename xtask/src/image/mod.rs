//! `cargo xtask image`: the static program in an OCI image from scratch. No daemon, no base image;
//! nothing is in it but `/corten`.
//!
//! Two builds give one digest: the archives hold no times, and the program none either (built with
//! the same compiler from the same sources, wherever they lie; `--check` proves it).

mod archive;
mod build;
mod elf;

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, failed};
use crate::shell::{root, target};
use archive::Image;
use build::{ARCHITECTURES, Architecture, Place, host, obstacle};
use elf::Unfit;

const USAGE: &str = "`image` takes --arch amd64|arm64, --profile NAME (default: dist), \
    --out FOLDER (default: target/image), --binary FILE (packs it; builds nothing) and --check \
    (builds twice, in two places, and compares)";

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// None: all that can be had here.
    only: Option<&'static Architecture>,
    profile: String,
    out: Option<PathBuf>,
    binary: Option<PathBuf>,
    check: bool,
}

fn options(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        only: None,
        profile: "dist".to_owned(),
        out: None,
        binary: None,
        check: false,
    };
    let mut words = arguments.iter();
    while let Some(flag) = words.next() {
        if flag == "--check" {
            options.check = true;
            continue;
        }
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
    let mut programs = Vec::new();
    for architecture in &ARCHITECTURES {
        let wanted = options.only.is_none_or(|only| only == architecture);
        match obstacle(architecture) {
            _ if !wanted => {}
            None => {
                // Its sources are those of now, as the first build's are.
                let other = match options.check {
                    true => Some(Other::new(&out)?),
                    false => None,
                };
                let built = Place::here().build(architecture, &options.profile)?;
                if let Some(other) = other {
                    other.check(architecture, &options.profile, &built)?;
                }
                pack(architecture, &built, &out)?;
                programs.push((architecture, built));
            }
            Some(why) if options.only.is_some() || architecture == host() => {
                return failed(format!(
                    "{} is not to be had here: {why}",
                    architecture.name
                ));
            }
            Some(why) => println!("{}: not to be had here: {why}", architecture.name),
        }
    }
    match programs.as_slice() {
        [_, _, ..] => pack_together(&programs, &out),
        _ => Ok(()),
    }
}

/// Another place to build in.
struct Other {
    folder: PathBuf,
    place: Place,
}

impl Other {
    fn new(out: &Path) -> Result<Self, Failure> {
        let folder = out.join(format!("check-{}", std::process::id()));
        let place = Place::below(&folder)?;
        Ok(Self { folder, place })
    }

    /// Builds the program once more, there, and fails where that is another program.
    fn check(
        self,
        architecture: &Architecture,
        profile: &str,
        built: &Path,
    ) -> Result<(), Failure> {
        let again = self.place.build(architecture, profile)?;
        let one = fs::read(built).map_err(cannot("read", built))?;
        let other = fs::read(&again).map_err(cannot("read", &again))?;
        if let Some(file) = self.place.differs_from(&Place::here())? {
            return failed(format!(
                "{} has changed while it was built: nothing is said of two builds of one source",
                file.display()
            ));
        }
        if one != other {
            let differs = one.iter().zip(&other).position(|(a, b)| a != b);
            let at = differs.unwrap_or_else(|| one.len().min(other.len()));
            return failed(format!(
                "{} and {} differ, first at octet {at}",
                built.display(),
                again.display()
            ));
        }
        fs::remove_dir_all(&self.folder).map_err(cannot("remove", &self.folder))?;
        println!(
            "{}: two builds in two places are one: sha256:{}",
            architecture.name,
            archive::sha256(&one)
        );
        Ok(())
    }
}

/// Writes one layout with all architectures.
fn pack_together(programs: &[(&Architecture, PathBuf)], out: &Path) -> Result<(), Failure> {
    let version = version()?;
    let mut contents = Vec::new();
    for (architecture, file) in programs {
        contents.push((
            architecture.name,
            fs::read(file).map_err(cannot("read", file))?,
        ));
    }
    let images: Vec<Image<'_>> = contents
        .iter()
        .map(|(architecture, binary)| Image {
            architecture,
            version: &version,
            binary,
        })
        .collect();
    let file = out.join("corten.oci.tar");
    let layout = archive::layout(&images.iter().collect::<Vec<_>>());
    fs::write(&file, layout).map_err(cannot("write", &file))?;
    println!("{}: an OCI layout with all of them", file.display());
    Ok(())
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
        assert!(!options.check);
        assert!(parse("--check --arch amd64").expect("good").check);
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
