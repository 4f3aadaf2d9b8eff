//! `corten run DIR`

use std::path::PathBuf;

use plan::forward::Mode;
use tokio::sync::watch;

use super::agent::Node;
use super::{Common, Failure, Forward, Signals, host, runtime};
use crate::agent;
use crate::agent::succession::Alone;
use crate::controller::{self, Deadline};
use crate::http::Metrics;
use crate::sink::dir::DirSink;
use crate::source::dir::{DirLock, DirSource};
use crate::status::Health;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Directory of manifests: pools, advertisements, Services, EndpointSlices, Nodes. Further
    /// hosts run `corten agent --dir` on a copy of it.
    dir: PathBuf,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    node: Node,
    /// What to forward.
    #[arg(long, value_enum, default_value = "all")]
    forward: Forward,
}

pub(super) fn main(options: Options) -> Result<(), Failure> {
    let mode = Mode::from(options.forward);
    host::check_directory(&options.dir)?;
    host::check_agent(mode, options.node.back_end(mode)?)?;
    // Held until the end: two writers of one state file would give an address twice.
    let lock = DirLock::take(&options.dir)?;
    runtime()?.block_on(async {
        let _place = Alone::take().await?;
        let stop = Signals::listen()?.stop();
        let config = options
            .node
            .config(&options.common, mode, Some(&options.dir))?;
        let sink = DirSink::open(&options.dir)?;
        let health = Health::default();
        options.node.track(mode, &health);
        let metrics = Metrics::new()?;
        let (_leads, leads_until) = watch::channel(Deadline::Never);
        let controller = controller::term(
            DirSource::new(&options.dir, &options.common.namespace)
                .quiet()
                .keeping(&lock),
            sink.clone(),
            options.common.settings(),
            leads_until,
            Health::default(),
            metrics.clone(),
        );
        let source = DirSource::new(&options.dir, &options.common.namespace);
        let agent = agent::run(
            config,
            source,
            sink,
            health.clone(),
            metrics.clone(),
            stop,
            agent::Ending::default(),
        );
        tokio::select! {
            ended = agent => Ok(ended?),
            () = controller => Err("the controller ended".into()),
            ended = options.common.serve(health, metrics) => ended,
        }
    })
}
