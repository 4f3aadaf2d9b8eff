//! Connection tracking as kube-proxy sets it: what a node lets the agent write is written, what it
//! does not is said, and the agent works on.

use lab::{bin, wait_for};

use crate::support::{SOON, Stage};

const SETTINGS: &str = "/proc/sys/net/netfilter/nf_conntrack_";

#[test]
fn the_nodes_settings_are_kube_proxys_where_they_can_be() {
    let name = "tracking::the_nodes_settings_are_kube_proxys_where_they_can_be";
    lab::run(name, async |lab| {
        let stage = Stage::build(&lab, 1).await?;
        let host = &stage.scene.nodes[0].host;
        let read = |name: &str| {
            let path = format!("{SETTINGS}{name}");
            let text = host.run(move || std::fs::read_to_string(path));
            let text = text.map_err(|error| error.to_string())?;
            let text = text.map_err(|error| error.to_string())?;
            text.trim()
                .parse::<u64>()
                .map_err(|error| error.to_string())
        };
        let mut command = host.command(bin("corten")?)?;
        command.arg("run").arg(&stage.dir);
        command.args(["--node-name", "node-1", "--conntrack-udp-timeout=1m17s"]);
        // The machine's limit is not that of a network namespace to raise: by the smallest step.
        let max = read("max")?;
        command.arg(format!("--conntrack-min={}", max + 1));
        let process = host.spawn("run", command)?;
        stage.ready("node-1").await?;
        let settings = [
            ("udp_timeout", 77),
            ("tcp_timeout_established", 86_400),
            ("tcp_timeout_close_wait", 3600),
        ];
        for (setting, wanted) in settings {
            wait_for(
                SOON,
                &format!("{setting} to be {wanted}"),
                async || match read(setting)? {
                    found if found == wanted => Ok(()),
                    found => Err(found.to_string()),
                },
            )
            .await?;
        }
        assert_eq!(read("max")?, max);
        let parts = ["nf_conntrack_max cannot be made", "remedy: "];
        wait_for(SOON, "what could not be written, in the log", async || {
            let log = process.log();
            match parts.iter().all(|part| log.contains(part)) {
                true => Ok(()),
                false => Err(log),
            }
        })
        .await?;
        Ok(())
    });
}
