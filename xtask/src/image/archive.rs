//! The image as bytes: tar, OCI layout (image-spec 1.1) and Docker's older archive. Everything that
//! could differ from build to build (times, owners, order) is fixed.

use sha2::{Digest as _, Sha256};

/// One architecture's image: its program and what tells it.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// As OCI names it: `amd64`.
    pub(super) architecture: &'a str,
    /// Also the tag.
    pub(super) version: &'a str,
    /// The program.
    pub(super) binary: &'a [u8],
}

/// An image in the two forms that programs take.
#[derive(Debug)]
pub(super) struct Archives {
    /// A tar of an OCI image layout: for skopeo, crane, podman.
    pub(super) oci: Vec<u8>,
    /// For `ctr image import` and `docker load`, with the name `corten:VERSION`.
    pub(super) docker: Vec<u8>,
    /// Of the manifest: what a registry knows the image by.
    pub(super) digest: String,
    /// Of the configuration: what a container runtime knows it by.
    pub(super) id: String,
}

const TITLE: &str = "corten";
const DESCRIPTION: &str = "Addresses for LoadBalancer Services on your own hardware";
const LICENCE: &str = "Apache-2.0";
/// Nobody; the agent's Pod asks for root.
const USER: &str = "65534:65534";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Image<'_> {
    /// The archives.
    pub(super) fn archives(&self) -> Archives {
        let blobs = self.blobs();
        let digest = sha256(blobs.manifest.as_bytes());
        let id = sha256(blobs.config.as_bytes());
        let oci = layout(&[self]);
        let (config_name, layer_name) = (
            format!("{id}.json"),
            format!("{}.tar", sha256(&blobs.layer)),
        );
        let Blobs { config, layer, .. } = blobs;
        let list = format!(
            r#"[{{"Config":"{config_name}","RepoTags":["{TITLE}:{}"],"Layers":["{layer_name}"]}}]"#,
            self.version
        );
        let docker = tar(&[
            ("manifest.json", 0o644, list.as_bytes()),
            (&config_name, 0o644, config.as_bytes()),
            (&layer_name, 0o644, &layer),
        ]);
        Archives {
            oci,
            docker,
            digest: format!("sha256:{digest}"),
            id: format!("sha256:{id}"),
        }
    }

    fn blobs(&self) -> Blobs {
        let layer = tar(&[("corten", 0o755, self.binary)]);
        let config = self.config(&sha256(&layer));
        let manifest = self.manifest(&config, &layer);
        Blobs {
            manifest,
            config,
            layer,
        }
    }

    /// Nothing in the values needs escaping: versions, digests and the constants above.
    fn labels(&self) -> String {
        let label =
            |name: &str, value: &str| format!(r#""org.opencontainers.image.{name}":"{value}""#);
        [
            label("title", TITLE),
            label("description", DESCRIPTION),
            label("licenses", LICENCE),
            label("version", self.version),
        ]
        .join(",")
    }

    fn config(&self, layer: &str) -> String {
        format!(
            r#"{{"created":"1970-01-01T00:00:00Z","architecture":"{}","os":"linux","config":{{"User":"{USER}","Entrypoint":["/corten"],"WorkingDir":"/","Labels":{{{}}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}},"history":[{{"created":"1970-01-01T00:00:00Z","created_by":"cargo xtask image"}}]}}"#,
            self.architecture,
            self.labels()
        )
    }

    fn manifest(&self, config: &str, layer: &[u8]) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}],"annotations":{{{}}}}}"#,
            descriptor(CONFIG, config.as_bytes(), ""),
            descriptor(LAYER, layer, ""),
            self.labels()
        )
    }

    /// Its entry in an index.
    fn entry(&self, manifest: &str) -> String {
        let more = format!(
            r#","platform":{{"architecture":"{}","os":"linux"}},"annotations":{{"org.opencontainers.image.ref.name":"{}"}}"#,
            self.architecture, self.version
        );
        descriptor(MANIFEST, manifest.as_bytes(), &more)
    }
}

/// What an image consists of.
struct Blobs {
    manifest: String,
    config: String,
    layer: Vec<u8>,
}

/// A tar of an OCI image layout with images of one version: its index has one for each architecture,
/// of which a node takes its own.
pub(super) fn layout(images: &[&Image<'_>]) -> Vec<u8> {
    let blobs: Vec<Blobs> = images.iter().map(|image| image.blobs()).collect();
    let entries = images.iter().zip(&blobs);
    let entries: Vec<String> = entries
        .map(|(image, blobs)| image.entry(&blobs.manifest))
        .collect();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#,
        entries.join(",")
    );
    let contents = blobs.iter().flat_map(|blobs| {
        [
            blobs.manifest.as_bytes(),
            blobs.config.as_bytes(),
            &blobs.layer,
        ]
    });
    let named: Vec<(String, &[u8])> = contents
        .map(|content| (format!("blobs/sha256/{}", sha256(content)), content))
        .collect();
    let mut files: Vec<(&str, u32, &[u8])> = vec![
        ("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", 0o644, index.as_bytes()),
    ];
    files.extend(
        named
            .iter()
            .map(|(name, content)| (name.as_str(), 0o644, *content)),
    );
    tar(&files)
}

fn descriptor(kind: &str, content: &[u8], more: &str) -> String {
    format!(
        r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":{}{more}}}"#,
        sha256(content),
        content.len()
    )
}

/// In hexadecimal digits.
pub(super) fn sha256(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar (POSIX ustar) of plain files: name, mode, content. Root's, from 1970.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut tar = Vec::new();
    for (name, mode, content) in files {
        let mut header = Vec::with_capacity(BLOCK);
        let mut field = |width: usize, text: &str| {
            // Names are ours and short; a longer one would shift what follows.
            debug_assert!(text.len() <= width, "{text:?} is longer than its field");
            header.extend_from_slice(text.as_bytes());
            header.extend(std::iter::repeat_n(0, width - text.len()));
        };
        field(100, name);
        field(8, &format!("{mode:07o}"));
        field(8, "0000000"); // user
        field(8, "0000000"); // group
        field(12, &format!("{:011o}", content.len()));
        field(12, "00000000000"); // time
        field(8, "        "); // the sum counts itself as blanks
        field(1, "0"); // a plain file
        field(100, ""); // link
        field(8, "ustar\x0000");
        field(247, ""); // names of user and group, device, prefix
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
        tar.extend(header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    const IMAGE: Image<'_> = Image {
        architecture: "amd64",
        version: "0.1.0",
        binary: b"no program, but bytes",
    };

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// What the system's tar finds in one, by path; the listing comes first.
    fn unpacked(name: &str, content: &[u8]) -> (String, BTreeMap<String, Vec<u8>>) {
        let folder = format!("xtask-image-{name}-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(folder));
        std::fs::create_dir_all(folder.0.join("files")).expect("a folder");
        let file = folder.0.join("a.tar");
        std::fs::write(&file, content).expect("written");
        let run = |arguments: &[&str]| {
            let mut command = Command::new("tar");
            let output = command.args(arguments).arg(&file).output().expect("tar");
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{output:?}"
            );
            String::from_utf8(output.stdout).expect("text")
        };
        let list = run(&["--numeric-owner", "--utc", "-tvf"]);
        let into = folder.0.join("files");
        run(&["-C", into.to_str().expect("a path"), "-xf"]);
        let mut files = BTreeMap::new();
        walk(&into, &into, &mut files);
        (list, files)
    }

    fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).expect("inside").display();
                files.insert(name.to_string(), std::fs::read(&path).expect("a file"));
            }
        }
    }

    #[test]
    fn two_builds_are_one() {
        let (one, other) = (IMAGE.archives(), IMAGE.archives());
        assert_eq!((&one.oci, &one.docker), (&other.oci, &other.docker));
        let changed = Image {
            binary: b"other bytes",
            ..IMAGE
        };
        assert_ne!(changed.archives().digest, one.digest);
    }

    #[test]
    fn one_layout_has_all_architectures() {
        let arm64 = Image {
            architecture: "arm64",
            binary: b"other bytes",
            ..IMAGE
        };
        let layout = layout(&[&IMAGE, &arm64]);
        let (_, files) = unpacked("both", &layout);
        // Manifest, configuration and layer of each.
        assert_eq!(files.len(), 2 + 2 * 3);
        let index = String::from_utf8(files["index.json"].clone()).expect("text");
        for image in [&IMAGE, &arm64] {
            let digest = image.archives().digest;
            let platform = format!(r#""architecture":"{}""#, image.architecture);
            assert!(
                index.contains(&digest) && index.contains(&platform),
                "{index}"
            );
            assert!(files.contains_key(&format!("blobs/{}", digest.replace(':', "/"))));
        }
    }

    #[test]
    fn a_layout_s_blobs_are_what_their_names_say() {
        let archives = IMAGE.archives();
        let (_, files) = unpacked("oci", &archives.oci);
        let mut blobs = 0;
        for (path, content) in &files {
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(name, sha256(content));
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
        let text = |path: &str| String::from_utf8(files[path].clone()).expect("text");
        let manifest = archives.digest.replace(':', "/");
        let size = format!(r#""size":{}"#, files[&format!("blobs/{manifest}")].len());
        let index = text("index.json");
        assert!(
            index.contains(&archives.digest) && index.contains(&size),
            "{index}"
        );
        let manifest = text(&format!("blobs/{manifest}"));
        assert!(manifest.contains(&archives.id), "{manifest}");
        let config = text(&format!("blobs/{}", archives.id.replace(':', "/")));
        assert!(config.contains(r#""Entrypoint":["/corten"]"#), "{config}");
        assert!(config.contains(r#""User":"65534:65534""#), "{config}");
    }

    #[test]
    fn the_layer_is_one_program_of_root_s_from_1970() {
        let archives = IMAGE.archives();
        let (_, files) = unpacked("docker", &archives.docker);
        let list = String::from_utf8(files["manifest.json"].clone()).expect("text");
        assert!(list.contains(r#""RepoTags":["corten:0.1.0"]"#), "{list}");
        let layer = files.iter().find(|(name, _)| name.ends_with(".tar"));
        let (name, layer) = layer.expect("a layer");
        assert!(list.contains(name.as_str()), "{list}");
        let (listing, files) = unpacked("layer", layer);
        assert_eq!(files["corten"], IMAGE.binary);
        let words: Vec<&str> = listing.split_whitespace().collect();
        let want = ["-rwxr-xr-x", "0/0", "21", "1970-01-01", "00:00", "corten"];
        assert_eq!(words, want);
    }

    #[test]
    fn the_texts_are_json() {
        let archives = IMAGE.archives();
        for archive in [&archives.oci, &archives.docker] {
            let (_, files) = unpacked("json", archive);
            for (name, content) in &files {
                let Some(text) = std::str::from_utf8(content)
                    .ok()
                    .filter(|t| t.starts_with(['{', '[']))
                else {
                    continue;
                };
                // Brackets and quotes are even, and nothing is doubled: there are no escapes.
                let count = |c: char| text.matches(c).count();
                assert_eq!(count('{'), count('}'), "{name}: {text}");
                assert_eq!(count('['), count(']'), "{name}: {text}");
                assert!(
                    count('"').is_multiple_of(2) && !text.contains(",,"),
                    "{name}: {text}"
                );
            }
        }
    }
}
