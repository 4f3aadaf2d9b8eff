//! The rival: keepalived (VRRP) on every node, with one address between them.

use std::net::IpAddr;

use lab::scene::Scene;
use lab::{Process, wait_until};

use super::{Fault, SOON};

/// The address that they share.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 200));

/// keepalived on every node of a scene; the nodes serve pages themselves.
pub(crate) struct Keepalived {
    pub(crate) scene: Scene,
    _processes: Vec<Process>,
}

impl Keepalived {
    /// Starts them; `interval` is `advert_int`, in seconds. The first node has the highest
    /// priority.
    pub(crate) async fn start(scene: Scene, interval: &str) -> Result<Self, Fault> {
        let mut processes = Vec::new();
        for (n, node) in scene.nodes.iter().enumerate() {
            let file = node.host.run_dir().join("keepalived.conf");
            std::fs::create_dir_all(node.host.run_dir())?;
            std::fs::write(&file, configuration(interval, 200 - 10 * n))?;
            let mut command = node.host.command("keepalived")?;
            command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
            command.args(["--use-file", "/run/keepalived.conf"]);
            command.args([
                "--pid",
                "/run/keepalived.pid",
                "--vrrp_pid",
                "/run/vrrp.pid",
            ]);
            processes.push(node.host.spawn("keepalived", command)?);
        }
        wait_until(SOON, "one of them to have the address", async || {
            let found = scene.answering(ADDRESS).await;
            found.is_ok_and(|nodes| nodes.len() == 1)
        })
        .await?;
        Ok(Self {
            scene,
            _processes: processes,
        })
    }
}

fn configuration(interval: &str, priority: usize) -> String {
    format!(
        "global_defs {{
    vrrp_version 3
    vrrp_garp_master_refresh 60
}}
vrrp_instance one {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {ADDRESS}/32 dev eth0
    }}
}}
"
    )
}
