//! `corten`: see `corten help` and ARCHITECTURE.md.

fn main() -> std::process::ExitCode {
    corten::cli::main()
}
