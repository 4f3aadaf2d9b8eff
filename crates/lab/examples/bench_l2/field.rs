//! Where it is played: three nodes, a warm client and a cold one on one segment, agents on the
//! nodes.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::scene::Node;
use lab::{Host, Lab, wait_until};
use linux::netlink::Mac;

use super::clients::{Clients, PORT};
use super::support::{self, Stage};
use super::{Fault, SOON, echo};

/// The Service's address.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);

/// What happens to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Its link is cut somewhere: its own carrier stays.
    Cut,
    /// Its interface is set down, by itself.
    Down,
    /// It has no power: its link is gone, and all its processes are killed.
    Off,
}

pub(crate) struct Field {
    pub(crate) stage: Stage,
    cold: Host,
    /// Who owns the address where all is well, and its Ethernet address.
    pub(crate) owner: String,
    pub(crate) mac: Mac,
}

impl Field {
    /// Builds it; nothing runs yet.
    pub(crate) async fn build(lab: &Lab) -> Result<Self, Fault> {
        let stage = Stage::build(lab, 3).await?;
        let cold = lab.host("cold").await?;
        stage.scene.lan.attach(&cold, &["10.0.0.8/24"]).await?;
        stage.scene.lan.stop_capture();
        for node in &stage.scene.nodes {
            echo::serve(&node.pod, Ipv4Addr::UNSPECIFIED)?;
        }
        Ok(Self {
            stage,
            cold,
            owner: String::new(),
            mac: Mac::default(),
        })
    }

    /// The node that owns the address where all is well.
    pub(crate) fn first(&self) -> Host {
        self.stage.scene.node(&self.owner).host.clone()
    }

    /// Starts all agents with this profile. The endpoints are on the other nodes than the owner: a
    /// connection to an endpoint of a dead node is lost whoever answers for the address.
    pub(crate) async fn start_agents(&mut self, profile: &'static str) -> Result<(), Fault> {
        self.serve(|_| true)?;
        self.stage.profile = profile;
        self.stage.start()?;
        self.owner = self.stage.owner(ADDRESS.into()).await?;
        self.mac = self.first().mac("eth0").await?;
        let owner = self.owner.clone();
        self.serve(|node| node.host.name() != owner)?;
        let pod = self.stage.scene.node(&owner).pod.name();
        let mut others = 0;
        wait_until(SOON, "the owner's pod to be out of it", async || {
            let page = self.stage.scene.page(ADDRESS.into()).await;
            others = if page.is_ok_and(|from| from != pod) {
                others + 1
            } else {
                0
            };
            others > 20
        })
        .await?;
        Ok(())
    }

    fn serve(&self, on: impl Fn(&Node) -> bool) -> Result<(), Fault> {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: one}}\nspec:\n  \
             type: LoadBalancer\n  ports:\n  - {{name: http, port: 80}}\n  \
             - {{name: udp, protocol: UDP, port: {PORT}}}\n  - {{name: tcp, port: {PORT}}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: one-1\n  \
             labels: {{kubernetes.io/service-name: one}}\naddressType: IPv4\nports:\n\
             - {{name: http, port: 80}}\n- {{name: udp, protocol: UDP, port: {PORT}}}\n\
             - {{name: tcp, port: {PORT}}}\nendpoints:\n"
        );
        for node in self.stage.scene.nodes.iter().filter(|node| on(node)) {
            text += &format!(
                "- {{addresses: [\"{}\"], nodeName: {}}}\n",
                node.pod_ip,
                node.host.name()
            );
        }
        self.stage.write("one.yaml", &text)
    }

    /// Announces by layer 2, or on the LAN's interface.
    pub(crate) fn announce(&self, linux: bool) -> Result<(), Fault> {
        let (old, new, text) = if linux {
            let text = "apiVersion: corten.dev/v1alpha1\nkind: Advertisement\n\
                        metadata: {name: linux, namespace: metallb-system}\n\
                        spec: {linux: {device: lan}}\n";
            ("l2adver.yaml", "linux.yaml", text)
        } else {
            ("linux.yaml", "l2adver.yaml", support::ADVERTISEMENT)
        };
        self.stage.write(new, text)?;
        if self.stage.dir.join(old).exists() {
            self.stage.remove(old)?;
        }
        Ok(())
    }

    /// Asks the owner to give everything away, or no longer.
    pub(crate) fn drain(&self, drains: bool) -> Result<(), Fault> {
        let mut text = String::new();
        for node in &self.stage.scene.nodes {
            let name = node.host.name();
            let drains = drains && name == self.owner;
            text += &format!(
                "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  \
                 annotations: {{corten.dev/drain: \"{drains}\"}}\n\
                 status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n---\n",
                node.ip
            );
        }
        self.stage.write("nodes.yaml", &text)
    }

    /// Stops all agents, and waits until the last one's kernel answers no more.
    pub(crate) async fn stop_agents(&mut self) -> Result<(), Fault> {
        for name in self.stage.others("") {
            self.stage.on(&name).terminate();
            self.stage.on(&name).wait(SOON).await?;
        }
        self.stage.unowned(ADDRESS.into()).await?;
        Ok(())
    }

    /// The clients, once `owner` answers them; with connections if they are to be.
    pub(crate) async fn clients(&self, owner: Mac, talks: bool) -> Result<Clients, Fault> {
        self.clients_of(ADDRESS, owner, talks).await
    }

    /// The clients of another address.
    pub(crate) async fn clients_of(
        &self,
        address: Ipv4Addr,
        owner: Mac,
        talks: bool,
    ) -> Result<Clients, Fault> {
        Clients::start((self.stage.client(), &self.cold), address, owner, talks).await
    }

    pub(crate) async fn harm(&mut self, host: &Host, harm: Harm) -> Result<(), Fault> {
        match harm {
            Harm::Cut => host.cut().await?,
            Harm::Down => {
                let index = host.netlink().index_of("eth0").await?;
                host.netlink().set_down(index).await?;
            }
            // The link first: nothing that dies can say goodbye.
            Harm::Off => {
                self.stage.scene.lan.unplug(host).await?;
                for pid in host.processes()? {
                    if self.stage.on(host.name()).pid() == pid {
                        self.stage.on(host.name()).kill();
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn mend(&mut self, host: &Host, harm: Harm) -> Result<(), Fault> {
        match harm {
            Harm::Cut => host.heal().await?,
            Harm::Down => {
                let index = host.netlink().index_of("eth0").await?;
                host.netlink().set_up(index).await?;
                // The kernel has forgotten the routes to other nodes' pods.
                for node in self.stage.scene.nodes.iter().filter(|it| it.host != *host) {
                    let pod = format!("{}/32", node.pod_ip);
                    host.add_route(&pod, &node.ip.to_string()).await?;
                }
            }
            Harm::Off => {
                host.heal().await?;
                self.stage.start_on(host.name())?;
            }
        }
        Ok(())
    }
}

/// Time passes, until `time` after `since`.
pub(crate) async fn until(since: std::time::Instant, time: Duration) {
    tokio::time::sleep_until((since + time).into()).await;
}
