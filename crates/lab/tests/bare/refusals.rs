//! What `corten run` and `corten agent --dir` refuse to start on, for want of something on the host.

use std::net::{TcpListener, UdpSocket};

use lab::scene;

use crate::support::{Outcome, SOON, Stage};

/// Starts it on the node and gives what it said before it ended with 1.
async fn refused(stage: &Stage, node: &str, args: &[&str]) -> Outcome<String> {
    let host = &stage.scene.node(node).host;
    let mut command = host.command(lab::bin("corten")?)?;
    command.args(args).args(["--node-name", node]);
    let label = format!("refused-{}", args.join("-").replace('/', "_"));
    let mut process = host.spawn(&label, command)?;
    let ended = process.wait(SOON).await?;
    assert_eq!(ended.code(), Some(1), "{args:?}: {}", process.log());
    let log = process.log();
    assert!(!log.contains("panicked"), "{log}");
    let last = log.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("corten: "), "{log}");
    Ok(last)
}

fn says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn what_is_taken_is_named_with_the_remedy() {
    lab::run(
        "refusals::what_is_taken_is_named_with_the_remedy",
        async |lab| {
            let mut stage = Stage::build(&lab, 1).await?;
            let dir = stage.dir.to_str().expect("UTF-8").to_owned();
            let host = stage.scene.node("node-1").host.clone();
            let http = host.run(|| TcpListener::bind("127.0.0.1:17472"))??;
            let line = refused(&stage, "node-1", &["run", &dir]).await?;
            says(&line, &["127.0.0.1:17472", "in use", "--http-address"]);
            drop(http);
            let member = host.run(|| UdpSocket::bind("0.0.0.0:7949"))??;
            let line = refused(&stage, "node-1", &["agent", "--dir", &dir]).await?;
            says(&line, &["UDP port 7949", "in use", "--member-port"]);
            drop(member);
            let key = "/nonexistent/key";
            let line = refused(&stage, "node-1", &["run", &dir, "--member-key-file", key]).await?;
            says(&line, &[key, "No such file"]);

            // One `corten run` for a directory, whatever its ports.
            stage.start()?;
            stage.ready("node-1").await?;
            let args = ["run", &dir, "--no-http", "--member-port", "7950"];
            let line = refused(&stage, "node-1", &args).await?;
            says(
                &line,
                &[
                    "another `corten run`",
                    &dir,
                    "stop it first",
                    "corten agent --dir",
                ],
            );
            // One agent for a host, of whatever directory and ports.
            let other = stage.scene.directory("other")?;
            let other = other.to_str().expect("UTF-8");
            let pid = stage.on("node-1").pid();
            for args in [&["run", other][..], &["agent", "--dir", &dir]] {
                let ports = ["--no-http", "--member-port", "7950"];
                let line = refused(&stage, "node-1", &[args, &ports].concat()).await?;
                says(
                    &line,
                    &[
                        "another Corten agent serves this host",
                        &format!("(process {pid})"),
                        &format!("`kill {pid}`"),
                    ],
                );
            }
            // The first one is not impressed.
            stage.serve("one")?;
            stage.holds("one", &["10.0.0.101"]).await?;
            // And when it is killed, nothing of its lock is left.
            stage.on("node-1").kill();
            let process = scene::run(stage.scene.node("node-1"), &stage.dir)?;
            stage.serve("two")?;
            stage.holds("two", &["10.0.0.102"]).await?;
            drop(process);
            Ok(())
        },
    );
}
