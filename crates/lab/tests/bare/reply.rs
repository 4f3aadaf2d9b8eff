//! Replies leave by the interface that the request came in by.
//!
//! node-1 has two ways out: eth0, with the better default route, whose gateway knows nothing of the
//! far client; and eth1, by which that client's requests come.

use std::net::SocketAddr;

use lab::{Host, Lab, Prober, Process, Segment, Target, bin, wait_for, wait_until};
use linux::netlink::Route;

use crate::support::{ECHO, Outcome, POOL, SOON, Stage, ip, service, slice};

const FAR: [&str; 2] = ["10.99.0.9", "fd99::9"];
const VIPS: [&str; 2] = ["10.0.0.101", "fd00::100"];
/// What node-1 itself serves, to whom it may concern.
const OWN: &str = "10.9.0.11:8088";
const ON: [&str; 1] = ["--reply-by-ingress=eth1"];

struct Net {
    stage: Stage,
    node: Host,
    far: Host,
    second: Segment,
    router: Host,
}

impl Net {
    async fn build(lab: &Lab) -> Outcome<Self> {
        let stage = Stage::build(lab, 2).await?;
        let pool = POOL.to_owned() + "  - fd00::100-fd00::1ff\n";
        stage.write("pool.yaml", &pool)?;
        let spec = "ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack";
        let nodes = &stage.scene.nodes;
        let text = service("one", spec) + &slice("one", false, nodes) + &slice("one", true, nodes);
        stage.write("one.yaml", &text)?;

        let node = stage.scene.node("node-1").host.clone();
        let second = lab.segment("second").await?;
        second
            .attach(&node, &["10.9.0.11/24", "fd09::11/64"])
            .await?;
        let beyond = lab.segment("beyond").await?;
        let far = lab.host("far").await?;
        beyond
            .attach(
                &far,
                &[&format!("{}/24", FAR[0]), &format!("{}/64", FAR[1])],
            )
            .await?;
        let router = lab.router("router").await?;
        let other = lab.router("other").await?;
        for (n, router) in [(1, &router), (2, &other)] {
            let near = [format!("10.9.0.{n}/24"), format!("fd09::{n}/64")];
            second.attach(router, &[&near[0], &near[1]]).await?;
            let away = [format!("10.99.0.{n}/24"), format!("fd99::{n}/64")];
            beyond.attach(router, &[&away[0], &away[1]]).await?;
            router.add_route("10.0.0.101/32", "10.9.0.11").await?;
            router.add_route("fd00::100/128", "fd09::11").await?;
        }
        by(&far, "eth0", ["10.99.0.1", "fd99::1"], 100).await?;
        // The client on the LAN forwards nothing.
        by(&node, "eth0", ["10.0.0.9", "fd00::9"], 100).await?;
        by(&node, "eth1", ["10.9.0.1", "fd09::1"], 200).await?;
        node.serve_http(8088)?;
        Ok(Self {
            stage,
            node,
            far,
            second,
            router,
        })
    }

    /// Starts `corten run` on node-1, which is ready when this returns.
    async fn start(&self, flags: &[&str]) -> Outcome<Process> {
        let mut command = self.node.command(bin("corten")?)?;
        command.arg("run").arg(&self.stage.dir);
        command.args(["--node-name", "node-1"]).args(flags);
        let process = self.node.spawn("run", command)?;
        self.stage.ready("node-1").await?;
        Ok(process)
    }

    /// Pages of both addresses, and of the node itself, for the far client.
    async fn pages(&self) -> Outcome {
        let fronts = VIPS.map(|vip| SocketAddr::new(ip(vip), 80));
        for front in fronts.into_iter().chain([OWN.parse()?]) {
            wait_for(SOON, &format!("a page from {front}"), async || {
                self.far
                    .http_get(front, "/")
                    .await
                    .map_err(|error| error.to_string())
            })
            .await?;
        }
        // Both pods: one is behind eth0.
        wait_for(SOON, "pages of both pods", async || {
            let mut pods = std::collections::BTreeSet::new();
            for _ in 0..24 {
                let page = self.far.http_get(fronts[0], "/").await;
                pods.insert(
                    page.map_err(|error| error.to_string())?
                        .backend()
                        .to_owned(),
                );
            }
            if pods.len() == 2 {
                Ok(())
            } else {
                Err(format!("{pods:?}"))
            }
        })
        .await?;
        Ok(())
    }

    fn probe(&self, vip: &str) -> Outcome<Prober> {
        Ok(self
            .far
            .probe(Target::Udp(SocketAddr::new(ip(vip), ECHO)))?)
    }

    fn output(&self, program: &str, args: &[&str]) -> Outcome<String> {
        let mut command = self.node.command(program)?;
        let output = command.args(args).output()?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same for what must succeed.
    fn does(&self, program: &str, args: &[&str]) -> Outcome {
        let output = self.node.command(program)?.args(args).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {said}");
        Ok(())
    }

    /// What there is of rules, routes and marks for replies.
    fn kernel(&self) -> Outcome<String> {
        let mut all = String::new();
        for family in ["-4", "-6"] {
            all += &self.output("ip", &[family, "rule", "show", "pref", "155"])?;
            all += &self.output(
                "ip",
                &[family, "route", "show", "table", "all", "proto", "155"],
            )?;
        }
        Ok(all + &self.output("nft", &["list", "table", "inet", "corten-reply"])?)
    }
}

/// A default route of both families over this interface, in the place of the last.
async fn by(host: &Host, device: &str, gateways: [&str; 2], metric: u32) -> Outcome {
    let index = host.netlink().index_of(device).await?;
    for (any, gateway) in ["0.0.0.0", "::"].into_iter().zip(gateways) {
        let mut route = Route::new(ip(any), 0).via(ip(gateway)).device(index);
        route.metric = Some(metric);
        host.netlink().replace_route(&route).await?;
    }
    Ok(())
}

/// Waits until that many more were answered.
async fn goes_on(probers: &[Prober], what: &str) -> Outcome {
    for prober in probers {
        let before = prober.answered();
        wait_until(SOON, &format!("answers {what}"), async || {
            prober.answered() > before + 20
        })
        .await?;
    }
    Ok(())
}

#[test]
fn replies_leave_by_the_interface_of_their_requests() {
    lab::run(
        "reply::replies_leave_by_the_interface_of_their_requests",
        async |lab| {
            let net = Net::build(&lab).await?;
            // Not asked for: replies go to a gateway that drops them.
            let mut process = net.start(&[]).await?;
            for vip in VIPS.map(ip) {
                net.stage.owner(vip).await?;
                net.stage.scene.page(vip).await?;
            }
            let lost = net.probe(VIPS[0])?;
            let page = net
                .far
                .http_get(SocketAddr::new(ip(VIPS[0]), 80), "/")
                .await;
            assert!(page.is_err(), "{page:?}");
            let page = net.far.http_get(OWN.parse()?, "/").await;
            assert!(page.is_err(), "{page:?}");
            let lost = lost.stop().await?;
            assert!(lost.sent > 20 && lost.answered == 0, "{lost:?}");
            assert_eq!(net.kernel()?, "");
            process.kill();

            let mut process = net.start(&ON).await?;
            net.pages().await?;
            for vip in VIPS.map(ip) {
                net.stage.scene.page(vip).await?;
            }
            let probers = [net.probe(VIPS[0])?, net.probe(VIPS[1])?];
            goes_on(&probers, "with the rules").await?;

            // The gateway is another one from now on.
            by(&net.far, "eth0", ["10.99.0.2", "fd99::2"], 100).await?;
            net.second.cut(&net.router).await?;
            by(&net.node, "eth1", ["10.9.0.2", "fd09::2"], 200).await?;
            goes_on(&probers, "by the other gateway").await?;

            // The agent dies, and the next one finds all in place.
            let before = net.kernel()?;
            process.kill();
            goes_on(&probers, "without an agent").await?;
            let mut process = net.start(&ON).await?;
            goes_on(&probers, "with the next agent").await?;
            assert_eq!(net.kernel()?, before);

            // What others take away comes back.
            net.does("nft", &["delete", "table", "inet", "corten-reply"])?;
            for family in ["-4", "-6"] {
                net.does("ip", &[family, "rule", "del", "pref", "155"])?;
                net.does("ip", &[family, "route", "flush", "table", "15501"])?;
            }
            wait_for(SOON, "rules, routes and marks to be back", async || {
                let now = net.kernel().map_err(|error| error.to_string())?;
                if now == before { Ok(()) } else { Err(now) }
            })
            .await?;
            goes_on(&probers, "after that").await?;

            // Somebody else translates, as kube-proxy does.
            process.terminate();
            process.wait(SOON).await?;
            net.does("nft", &["delete", "table", "inet", "corten"])?;
            let proxy = "table ip nat { chain pre { type nat hook prerouting priority dstnat; \
                         ip daddr 10.0.0.101 tcp dport 80 dnat to 10.244.1.2; }; }";
            net.does("nft", &[proxy])?;
            let process = net.start(&["--forward=off", ON[0]]).await?;
            wait_for(SOON, "a page through the other's rules", async || {
                let page = net
                    .far
                    .http_get(SocketAddr::new(ip(VIPS[0]), 80), "/")
                    .await;
                page.map_err(|error| error.to_string())
            })
            .await?;
            drop(process);

            // Nobody wants it any more.
            let mut process = net.start(&["--forward=off"]).await?;
            wait_for(SOON, "nothing to be left", async || {
                let now = net.kernel().map_err(|error| error.to_string())?;
                if now.is_empty() { Ok(()) } else { Err(now) }
            })
            .await?;
            let log = process.log();
            assert!(log.contains("are gone"), "{log}");
            process.kill();
            Ok(())
        },
    );
}

#[test]
fn a_strict_reverse_path_filter_is_named() {
    lab::run(
        "reply::a_strict_reverse_path_filter_is_named",
        async |lab| {
            let net = Net::build(&lab).await?;
            net.node.sysctl("net.ipv4.conf.eth1.rp_filter", "1")?;
            let process = net.start(&ON).await?;
            wait_for(SOON, "words about it", async || {
                let log = process.log();
                let parts = ["come in by eth1", "net.ipv4.conf.eth1.rp_filter=2"];
                let said = log
                    .lines()
                    .any(|line| parts.iter().all(|it| line.contains(it)));
                if said { Ok(()) } else { Err(log) }
            })
            .await?;
            // Following the advice helps.
            net.node.sysctl("net.ipv4.conf.eth1.rp_filter", "2")?;
            net.pages().await
        },
    );
}
