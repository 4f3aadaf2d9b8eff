//! `--nodeport-addresses`: node ports are where the ranges say, also when an address comes.

use std::net::SocketAddr;

use lab::{bin, wait_until};

use crate::support::{SOON, Stage, ip, slice};

const PORT: u16 = 30_080;

#[test]
fn they_are_on_the_addresses_in_the_ranges() {
    lab::run(
        "node_ports::they_are_on_the_addresses_in_the_ranges",
        async |lab| {
            let stage = Stage::build(&lab, 1).await?;
            let node = &stage.scene.nodes[0];
            let service = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: one}}\nspec:\n  \
                 type: LoadBalancer\n  ports:\n  - {{name: http, port: 80, nodePort: {PORT}}}\n---\n"
            );
            let text = service + &slice("one", false, &stage.scene.nodes);
            stage.write("one.yaml", &text)?;
            let mut command = node.host.command(bin("corten")?)?;
            command.arg("run").arg(&stage.dir);
            command.args(["--node-name", "node-1"]);
            command.args(["--nodeport-addresses", "10.7.0.0/24,fd07::/64"]);
            let _process = node.host.spawn("run", command)?;
            stage.ready("node-1").await?;
            let answers = async |address: &str| {
                let at = SocketAddr::new(ip(address), PORT);
                stage.client().http_get(at, "/").await.is_ok()
            };
            stage
                .client()
                .add_route("10.7.0.0/24", &node.ip.to_string())
                .await?;
            // The address comes while it runs.
            node.host.add_address("eth0", "10.7.0.1/24").await?;
            wait_until(SOON, "a page from the new address", async || {
                answers("10.7.0.1").await
            })
            .await?;
            assert!(!answers(&node.ip.to_string()).await, "the primary address");
            Ok(())
        },
    );
}
