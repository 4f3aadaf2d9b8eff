//! Container images without a registry or a daemon: one layer with a few files, written as the
//! archive that `docker save` writes, which `ctr image import` and `docker load` read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};

const BLOCK: usize = 512;

/// What is in an image.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its full name, with registry and tag.
    pub reference: &'a str,
    /// Files: where in the image, and which on this machine. All are executable.
    pub files: &'a [(&'a str, &'a Path)],
    /// What a container runs.
    pub entrypoint: &'a [&'a str],
    /// Arguments unless a container gives its own.
    pub arguments: &'a [&'a str],
}

impl Image<'_> {
    /// Writes the archive to this file, which appears whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut archive = Tar::new(BufWriter::new(File::create(&new)?));
        let mut layer = Tar::new(Vec::new());
        for (name, source) in self.files {
            layer.add(name.trim_start_matches('/'), 0o755, &fs::read(source)?)?;
        }
        let layer = layer.finish()?;
        let digest: String = Sha256::digest(&layer)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Cmd": self.arguments},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest = json!([{
            "Config": "config.json",
            "RepoTags": [self.reference],
            "Layers": ["layer.tar"],
        }]);
        archive.add("layer.tar", 0o644, &layer)?;
        archive.add("config.json", 0o644, config.to_string().as_bytes())?;
        archive.add("manifest.json", 0o644, manifest.to_string().as_bytes())?;
        archive.finish()?.flush()?;
        fs::rename(new, path)
    }
}

/// As Go's `GOARCH` has it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A tar file in the ustar format (tar(5)) of plain files, all of root and without a time.
struct Tar<W>(W);

impl<W: Write> Tar<W> {
    fn new(write: W) -> Self {
        Self(write)
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.0.write_all(&header(name, mode, content.len())?)?;
        self.0.write_all(content)?;
        let rest = content.len().next_multiple_of(BLOCK) - content.len();
        self.0.write_all(&[0; BLOCK][..rest])
    }

    /// Two empty blocks end it.
    fn finish(mut self) -> io::Result<W> {
        self.0.write_all(&[0; 2 * BLOCK])?;
        Ok(self.0)
    }
}

fn header(name: &str, mode: u32, size: usize) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    if name.is_empty() || name.len() > 99 {
        let what = format!("a name in a tar file has 1 to 99 bytes: {name:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000"); // uid
    put(116, b"0000000"); // gid
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000"); // mtime
    put(148, b"        "); // the sum counts its own field as blanks
    put(156, b"0"); // a plain file
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn tar_reads_what_is_written() {
        let dir = std::env::temp_dir().join(format!("lab-image-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (source, archive) = (dir.join("source"), dir.join("image.tar"));
        fs::write(&source, vec![b'x'; 1000]).unwrap();
        Image {
            reference: "lab.corten.dev/test:1",
            files: &[("/bin/test", &source)],
            entrypoint: &["/bin/test"],
            arguments: &[],
        }
        .write(&archive)
        .unwrap();
        let script = "tar tf image.tar && tar xOf image.tar layer.tar | tar tvf - --numeric-owner";
        let listed = Command::new("sh")
            .args(["-c", script])
            .current_dir(&dir)
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        fs::remove_dir_all(&dir).unwrap();
        let (names, layer) = listed.split_once("manifest.json\n").unwrap();
        assert_eq!(names, "layer.tar\nconfig.json\n");
        assert!(layer.starts_with("-rwxr-xr-x 0/0"), "{layer}");
        assert!(
            layer.contains(" 1000 ") && layer.trim_end().ends_with("bin/test"),
            "{layer}"
        );
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(header(&"x".repeat(100), 0o644, 0).is_err());
        assert!(header("", 0o644, 0).is_err());
    }
}
