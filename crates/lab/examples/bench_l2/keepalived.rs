//! The rival: keepalived (VRRP) on every node, with one address between them.

use std::net::Ipv4Addr;

use lab::{Process, wait_until};

use super::cases::Returns;
use super::echo;
use super::field::{Field, Harm};
use super::figures::{Figures, Times};
use super::{Fault, SOON};

/// The address that they share.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

/// The nodes answer datagrams to the address, whoever has it.
pub(crate) fn prepare(field: &Field) -> Result<(), Fault> {
    for node in &field.stage.scene.nodes {
        node.host.sysctl("net.ipv4.ip_nonlocal_bind", "1")?;
        echo::serve(&node.host, ADDRESS)?;
    }
    Ok(())
}

/// Cuts the master's link, and heals it, with `advert_int` of so many seconds.
pub(crate) async fn cut(
    field: &mut Field,
    figures: &mut Figures,
    (interval, name): (&str, &str),
    runs: usize,
) -> Result<(), Fault> {
    let processes = start(field, interval)?;
    let master = field.stage.scene.nodes[0].host.clone();
    let mac = master.mac("eth0").await?;
    wait_until(SOON, "the first of them to have the address", async || {
        let found = field.stage.scene.answering(ADDRESS.into()).await;
        found.is_ok_and(|nodes| nodes.len() == 1 && nodes[0].host == master)
    })
    .await?;
    let (mut gaps, mut returns) = (Times::default(), Returns::default());
    for run in 0..runs {
        let clients = field.clients_of(ADDRESS, mac, false).await?;
        let since = clients.mark();
        field.harm(&master, Harm::Cut).await?;
        let next = clients.taken_from(mac).await?;
        let seen = clients.end(since).await?;
        gaps.add(seen.silent());
        let clients = field.clients_of(ADDRESS, next, false).await?;
        let healed = clients.mark();
        field.mend(&master, Harm::Cut).await?;
        clients.back_at(mac).await?;
        let told = returns.add(&clients.end(healed).await?);
        let silent = seen.silent().as_secs_f64() * 1e3;
        eprintln!("{name} {run}: silent for {silent:.1} ms; {told}");
    }
    figures.put_times(name, &gaps);
    returns.put(&format!("{name}_return"), false, figures);
    for mut process in processes {
        process.terminate();
        process.wait(SOON).await?;
    }
    Ok(())
}

/// The first node has the highest priority.
fn start(field: &Field, interval: &str) -> Result<Vec<Process>, Fault> {
    let mut processes = Vec::new();
    for (n, node) in field.stage.scene.nodes.iter().enumerate() {
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
    Ok(processes)
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
