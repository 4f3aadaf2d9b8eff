//! Logs: for people on a terminal, JSON lines otherwise.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;

/// `--log-level`, with MetalLB's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// Everything.
    All,
    /// What a developer wants.
    Debug,
    /// What an operator wants.
    #[default]
    Info,
    /// What is odd.
    Warn,
    /// What is wrong.
    Error,
    /// Nothing.
    None,
}

impl Level {
    const fn filter(self) -> &'static str {
        match self {
            Self::All => "trace",
            // Libraries at debug drown the rest.
            Self::Debug => "info,corten=debug,dataplane=debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::None => "off",
        }
    }
}

/// Sets the process's logger up. `CORTEN_LOG` in the syntax of tracing's filters wins over `level`.
pub(crate) fn init(level: Level) {
    let filter =
        EnvFilter::try_from_env("CORTEN_LOG").unwrap_or_else(|_| EnvFilter::new(level.filter()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (tests) leaves the first logger in place.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).compact().try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    };
}
