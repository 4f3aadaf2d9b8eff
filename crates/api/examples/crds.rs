//! Writes the CRDs: `cargo run -p api --features crds --example crds -- --out DIR`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = match arguments.as_slice() {
        [flag, dir] if flag == "--out" => PathBuf::from(dir),
        _ => {
            eprintln!("usage: crds --out DIR");
            return ExitCode::from(2);
        }
    };
    match write(&dir) {
        Ok(count) => {
            println!("{count} files in {}", dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write(dir: &PathBuf) -> std::io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    let files = api::crds::files();
    for (name, text) in &files {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(files.len())
}
