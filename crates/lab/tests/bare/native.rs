//! Addresses on Linux interfaces: on the LAN's with a lifetime, on `kube-lb0` for routing daemons.

use std::net::IpAddr;

use lab::router::{Bird, Frr};
use lab::{Host, wait_for, wait_until};

use crate::support::{Outcome, SOON, Stage, ip, service, slice};

const DEVICE: &str = "kube-lb0";

fn advertisement(linux: &str) -> String {
    format!(
        "apiVersion: corten.dev/v1alpha1\nkind: Advertisement\n\
         metadata: {{name: linux, namespace: metallb-system}}\nspec: {{linux: {{{linux}}}}}\n"
    )
}

/// A scene where the only advertisement is on an interface.
async fn build(lab: &lab::Lab, nodes: u8, linux: &str) -> Outcome<Stage> {
    let stage = Stage::build(lab, nodes).await?;
    stage.remove("l2adver.yaml")?;
    stage.write("linux.yaml", &advertisement(linux))?;
    Ok(stage)
}

/// The prefix length of `address` on the interface, if it is there.
async fn on(host: &Host, device: &str, address: IpAddr) -> Option<u8> {
    let found = host.interface(device).await.ok()?;
    let mut addresses = found.addresses.into_iter();
    addresses.find_map(|(known, length)| (known == address).then_some(length))
}

/// Waits until these nodes, and no others, have `address` with this prefix length.
async fn have(stage: &Stage, device: &str, address: IpAddr, nodes: &[&str], length: u8) -> Outcome {
    let what = format!("{nodes:?} to have {address}/{length} on {device}");
    wait_for(SOON, &what, async || {
        let mut found = Vec::new();
        for node in &stage.scene.nodes {
            if let Some(known) = on(&node.host, device, address).await {
                found.push((node.host.name().to_owned(), known));
            }
        }
        let wanted: Vec<(String, u8)> = nodes.iter().map(|it| ((*it).to_owned(), length)).collect();
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await?;
    Ok(())
}

#[test]
fn the_owner_has_the_address_on_the_lan_as_long_as_it_lives() {
    lab::run(
        "native::the_owner_has_the_address_on_the_lan_as_long_as_it_lives",
        async |lab| {
            let mut stage = build(&lab, 2, "device: lan").await?;
            let text = service(
                "one",
                "ipFamilyPolicy: PreferDualStack\n  ipFamilies: [IPv4, IPv6]",
            ) + &slice("one", false, &stage.scene.nodes)
                + &slice("one", true, &stage.scene.nodes);
            let pool = crate::support::POOL.to_owned() + "  - fd00::101-fd00::150\n";
            stage.write("pool.yaml", &pool)?;
            stage.write("one.yaml", &text)?;
            stage.start()?;
            let (address, address6) = (ip("10.0.0.101"), ip("fd00::101"));
            let owner = stage.owner(address).await?;
            have(&stage, "eth0", address, &[&owner], 24).await?;
            have(&stage, "eth0", address6, &[&owner], 64).await?;
            stage.scene.page(address).await?;
            stage.scene.page(address6).await?;
            // Its own subnet's address is the one that connections come from.
            let host = stage.scene.node(&owner).host.clone();
            let mut route = host.command("ip")?;
            route.args(["route", "get", "10.0.0.9"]);
            let said = String::from_utf8(route.output()?.stdout)?;
            let own = stage.scene.node(&owner).ip;
            assert!(said.contains(&format!("src {own} ")), "{said}");

            // The agent dies and the node lives: the kernel answers on, until the lifetime is over
            // and the other node has it.
            stage.on(&owner).kill();
            let next = stage.others(&owner).remove(0);
            have(&stage, "eth0", address, &[&next], 24).await?;
            have(&stage, "eth0", address6, &[&next], 64).await?;
            stage.scene.page(address).await?;
            stage.no_strangers();

            // No Service, no address.
            stage.remove("one.yaml")?;
            if owner == stage.scene.nodes[0].host.name() {
                // The one that allocates is the one that died.
                stage.start_on(&owner)?;
            }
            have(&stage, "eth0", address, &[], 24).await
        },
    );
}

#[test]
fn an_address_outside_of_every_subnet_is_put_nowhere() {
    lab::run(
        "native::an_address_outside_of_every_subnet_is_put_nowhere",
        async |lab| {
            let mut stage = build(&lab, 1, "device: lan").await?;
            let pool = crate::support::POOL.replace("10.0.0.101-10.0.0.150", "10.9.0.1/32");
            stage.write("pool.yaml", &pool)?;
            stage.serve("one")?;
            stage.start()?;
            stage.holds("one", &["10.9.0.1"]).await?;
            stage.ready("node-1").await?;
            stage.unowned(ip("10.9.0.1")).await?;
            have(&stage, "eth0", ip("10.9.0.1"), &[], 24).await
        },
    );
}

#[test]
fn every_node_has_the_address_on_kube_lb0() {
    lab::run(
        "native::every_node_has_the_address_on_kube_lb0",
        async |lab| {
            let mut stage = build(&lab, 3, "device: kube-lb0, aggregationLength: 28").await?;
            let pool = crate::support::POOL.replace("10.0.0.101-10.0.0.150", "10.9.0.0/24");
            stage.write("pool.yaml", &pool)?;
            stage.serve("one")?;
            stage.serve("two")?;
            stage.start()?;
            let (one, two) = (ip("10.9.0.0"), ip("10.9.0.1"));
            let all = ["node-1", "node-2", "node-3"];
            have(&stage, DEVICE, one, &all, 28).await?;
            have(&stage, DEVICE, two, &all, 28).await?;

            // The first address of a subnet goes: the others stay, and nobody saw them go.
            let host = stage.scene.nodes[1].host.clone();
            let mut watch = host.command("ip")?;
            watch.args(["-4", "monitor", "address"]);
            let watch = host.spawn("addresses", watch)?;
            stage.remove("one.yaml")?;
            have(&stage, DEVICE, one, &[], 28).await?;
            have(&stage, DEVICE, two, &all, 28).await?;
            wait_until(SOON, "the kernel to tell", async || {
                watch.log().contains("10.9.0.0/28")
            })
            .await?;
            let log = watch.log();
            let gone = log.lines().filter(|line| line.contains("Deleted"));
            assert!(
                gone.clone().all(|line| !line.contains("10.9.0.1/28")),
                "{log}"
            );

            // Under policy Local: where an endpoint is.
            let local = service("two", "externalTrafficPolicy: Local")
                + &slice("two", false, &stage.scene.nodes[..1]);
            stage.write("two.yaml", &local)?;
            have(&stage, DEVICE, two, &["node-1"], 28).await?;
            stage.serve("two")?;
            have(&stage, DEVICE, two, &all, 28).await?;

            // It outlives the agent; what came to nothing meanwhile goes with the next one.
            stage.on("node-2").kill();
            stage.serve("three")?;
            have(&stage, DEVICE, ip("10.9.0.0"), &["node-1", "node-3"], 28).await?;
            stage.remove("two.yaml")?;
            have(&stage, DEVICE, two, &["node-2"], 28).await?;
            stage.start_on("node-2")?;
            have(&stage, DEVICE, two, &[], 28).await?;
            have(&stage, DEVICE, ip("10.9.0.0"), &all, 28).await?;

            // Somebody removes the interface.
            let netlink = stage.scene.nodes[2].host.netlink();
            netlink.del_link(netlink.index_of(DEVICE).await?).await?;
            have(&stage, DEVICE, ip("10.9.0.0"), &all, 28).await
        },
    );
}

/// The router that the examples name.
const ROUTER: &str = "\
router id 10.0.0.1;
protocol device {}
protocol bgp by_bgp { local as 64513; neighbor range 10.0.0.0/24 as 64512; ipv4 { import all; export none; }; }
protocol ospf v2 by_ospf { ipv4 { import all; export none; }; area 0 { interface \"eth0\" { hello 1; dead 4; }; }; }
protocol rip by_rip { ipv4 { import all; export none; }; interface \"eth0\" { update time 5; }; }
";

/// Waits until the router has the address, from the node, by each of the three protocols.
async fn learned(router: &Bird, address: IpAddr, node: IpAddr) -> Outcome {
    let what = format!("{address} by three protocols");
    let found = wait_for(2 * SOON, &what, async || {
        let said = router.ask(&format!("show route for {address} all"));
        let said = said.map_err(|error| error.to_string())?;
        let known = ["by_ospf", "by_rip", "bgp"].map(|it| said.contains(it));
        let via = said.contains(&format!("via {node}"));
        if known == [true; 3] && via {
            Ok(())
        } else {
            Err(said)
        }
    });
    Ok(found.await?)
}

/// Waits until the router has nothing of it any more.
async fn forgotten(router: &Bird, address: IpAddr) -> Outcome {
    let what = format!("no route to {address}");
    let found = wait_for(2 * SOON, &what, async || {
        let said = router.ask(&format!("show route for {address}"));
        match said.map_err(|error| error.to_string()) {
            Ok(said) if said.contains("via ") => Err(said),
            _ => Ok(()),
        }
    });
    Ok(found.await?)
}

/// One node, a router beside it, and a Service on `kube-lb0`, as in `examples/linux`.
async fn beside_a_router(lab: &lab::Lab) -> Outcome<(Stage, Bird, IpAddr)> {
    let mut stage = Stage::build(lab, 1).await?;
    stage.remove("l2adver.yaml")?;
    let example = include_str!("../../../../examples/linux/advertisement.yaml");
    stage.write("linux.yaml", example)?;
    let pool = crate::support::POOL.replace("10.0.0.101-10.0.0.150", "10.9.0.0/24");
    stage.write("pool.yaml", &pool)?;
    stage.serve("one")?;
    let router = lab.host("router").await?;
    stage.scene.lan.attach(&router, &["10.0.0.1/24"]).await?;
    let router = Bird::start(&router, ROUTER).await?;
    stage.start()?;
    let address = ip("10.9.0.0");
    have(&stage, DEVICE, address, &["node-1"], 32).await?;
    Ok((stage, router, address))
}

#[test]
fn bird_carries_it_by_bgp_ospf_and_rip() {
    lab::run("native::bird_carries_it_by_bgp_ospf_and_rip", async |lab| {
        let (stage, router, address) = beside_a_router(&lab).await?;
        let node = &stage.scene.nodes[0];
        let example = include_str!("../../../../examples/linux/bird.conf");
        let _bird = Bird::start(&node.host, example).await?;
        learned(&router, address, node.ip).await?;
        stage.remove("one.yaml")?;
        forgotten(&router, address).await
    });
}

#[test]
fn frr_carries_it_by_bgp_ospf_and_rip() {
    lab::run("native::frr_carries_it_by_bgp_ospf_and_rip", async |lab| {
        let (stage, router, address) = beside_a_router(&lab).await?;
        let node = &stage.scene.nodes[0];
        let mut frr = Frr::start(&node.host, "", "").await?;
        frr.add("ospfd").await?;
        frr.add("ripd").await?;
        frr.configure(include_str!("../../../../examples/linux/frr.conf"))?;
        learned(&router, address, node.ip).await?;
        stage.remove("one.yaml")?;
        forgotten(&router, address).await
    });
}
