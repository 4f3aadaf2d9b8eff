//! MetalLB beside Corten: its controller goes first, and so do its speakers. Corten says so, and
//! takes over within seconds once they are gone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lab::controlplane::{Account, ApiError, PodName, binary_or_skip};
use lab::scene::Node;
use lab::{Host, LabError, Outcome, Process, WaitError, bin, wait_for};
use serde_json::Value;

use crate::stage::{MINUTES, SOON, Stage, root, turn};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101));
const SERVICE: &str = "myapp-svc";
const SYSTEM: &str = "metallb-system";
const CONTROLLER: &str = "standing by: MetalLB's controller runs (Pod metallb-system/controller-x)";
const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases/corten-controller";

#[test]
fn metallb_goes_first_while_it_lives() {
    let name = "beside::metallb_goes_first_while_it_lives";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let beside = Beside(Stage::build(lab, &binary, 2).await?);
        let stage = &beside.0;
        let nodes = &stage.scene.nodes;
        beside.arrives("controller-x", "controller", 0).await?;
        beside.arrives("speaker-x", "speaker", 0).await?;
        beside.arrives("speaker-y", "speaker", 1).await?;
        let _controller = stage.controller(&stage.api_host)?;
        let _agents = [beside.agent(&nodes[0])?, beside.agent(&nodes[1])?];

        // All are ready, and say what they wait for.
        beside.says(&stage.api_host, CONTROLLER).await?;
        let both = "standing by in layer 2 and BGP: a speaker of MetalLB runs on this node";
        for node in nodes {
            beside.says(&node.host, both).await?;
        }
        stage
            .kubectl(&["apply", "-f", &root("examples/l2")], "")
            .await?;
        // Events come last of all: it has had the time to do what it must not.
        beside.told("api", "StandingBy", CONTROLLER).await?;
        for node in nodes {
            beside.told(node.host.name(), "StandingBy", both).await?;
        }
        let lease = stage.plane.api().get(LEASE).await;
        let lease = lease.map_err(|error| error.status());
        assert_eq!(lease, Err(Some(404)));
        assert_eq!(stage.addresses(SERVICE).await, [""; 0]);
        assert_eq!(
            stage.metric(&stage.api_host, "corten_standing_by").await?,
            1.0
        );
        stage.say("everybody stands by, and says so");

        beside.goes("controller-x").await?;
        stage.has(SERVICE, &["10.0.0.101"]).await?;
        beside.says(&stage.api_host, "ok\n").await?;
        stage.say("the controller gives addresses");

        // The agents know the address: they forward it, and nobody answers for it.
        for node in nodes {
            beside.forwards(node, true).await?;
        }
        beside.nobody_answers().await?;
        beside.goes("speaker-x").await?;
        let one =
            "standing by in layer 2: a speaker of MetalLB runs (Pod metallb-system/speaker-y)";
        beside.says(&nodes[0].host, one).await?;
        beside.nobody_answers().await?;
        stage.say("one speaker is enough");

        beside.goes("speaker-y").await?;
        stage.scene.owner(ADDRESS).await?;
        stage.scene.page(ADDRESS).await?;
        for node in nodes {
            beside.says(&node.host, "ok\n").await?;
            beside.states(node, "").await?;
            beside.told(node.host.name(), "TakingOver", "").await?;
        }
        beside.told("api", "TakingOver", "").await?;
        stage.say("the last speaker is gone: the page comes");
        beside.comes_back().await
    });
}

struct Beside(Stage);

impl Beside {
    /// A Pod of MetalLB's manifests runs on a node.
    async fn arrives(&self, name: &str, part: &str, node: usize) -> Result<(), ApiError> {
        let labels = [("app", "metallb"), ("component", part)];
        let (namespace, node) = (SYSTEM, &self.0.scene.nodes[node]);
        let pod = PodName { namespace, name };
        let api = self.0.plane.api();
        api.run_pod(node.host.name(), pod, &labels, &[node.ip])
            .await
    }

    async fn goes(&self, name: &str) -> Result<(), ApiError> {
        let namespace = SYSTEM;
        self.0
            .plane
            .api()
            .delete_pod(PodName { namespace, name })
            .await
    }

    /// An agent that tells events on its Pod.
    fn agent(&self, node: &Node) -> Result<Process, LabError> {
        let stage = &self.0;
        let mut command = node.host.command(bin("corten")?)?;
        command
            .arg("agent")
            .arg("--kubeconfig")
            .arg(stage.plane.kubeconfig(Account::Agent))
            .args(["--api-server", &format!("https://{}", stage.plane.server())])
            .args(["--forward", "all", "--node-name", node.host.name()])
            .args(["--pod-name", node.host.name(), "--log-level", "debug"])
            .args(["--http-address", "127.0.0.1:17472"]);
        node.host.spawn("agent", command)
    }

    /// Waits until the process on a host is ready and says this with it.
    async fn says(&self, host: &Host, text: &str) -> Result<(), WaitError> {
        let what = format!("{text:?} in /readyz on {}", host.name());
        let to = SocketAddr::from(([127, 0, 0, 1], 17472));
        wait_for(SOON, &what, async || {
            match host.http_get(to, "/readyz").await {
                Ok(answer) if answer.status == 200 && answer.body.contains(text) => Ok(()),
                Ok(answer) => Err(answer.body),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Waits for an event on a Pod of Corten.
    async fn told(&self, pod: &str, reason: &str, text: &str) -> Result<(), WaitError> {
        let path = format!(
            "/api/v1/namespaces/{SYSTEM}/events\
             ?fieldSelector=involvedObject.kind%3DPod,involvedObject.name%3D{pod}"
        );
        wait_for(SOON, &format!("{reason} on Pod {pod}"), async || {
            let list = self.0.plane.api().get(&path).await;
            let list = list.map_err(|error| error.to_string())?;
            let mut events = list["items"].as_array().into_iter().flatten();
            let found = events.any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["reason"] == reason && message.contains(text)
            });
            if found { Ok(()) } else { Err(list.to_string()) }
        })
        .await
    }

    /// Waits until a node has something in the kernel for the Service.
    async fn forwards(&self, node: &Node, wanted: bool) -> Result<(), WaitError> {
        let what = format!("the forwarding of {}", node.host.name());
        wait_for(SOON, &what, async || {
            let mut nft = node.host.command("nft").map_err(|e| e.to_string())?;
            let output = nft.args(["list", "table", "inet", "corten"]).output();
            let output = output.map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            match text.contains("10.0.0.101") == wanted {
                true => Ok(()),
                false => Err(text),
            }
        })
        .await
    }

    async fn nobody_answers(&self) -> Outcome {
        wait_for(SOON, "nobody to answer", async || {
            let nodes = self.0.scene.answering(ADDRESS).await;
            match nodes.map_err(|error| error.to_string())?.len() {
                0 => Ok(()),
                count => Err(format!("{count} answer")),
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until a node's state says why it stands by; empty: that it does not.
    async fn states(&self, node: &Node, why: &str) -> Result<(), WaitError> {
        let name = node.host.name();
        let path = format!("/apis/corten.dev/v1alpha1/nodestates/{name}");
        wait_for(
            SOON,
            &format!("{why:?} in the state of {name}"),
            async || {
                let state = self.0.plane.api().get(&path).await;
                let state = state.map_err(|error| error.to_string())?;
                let said = &state["status"]["standingBy"];
                let right = match said {
                    Value::String(said) => !why.is_empty() && said.contains(why),
                    _ => why.is_empty(),
                };
                if right {
                    Ok(())
                } else {
                    Err(state.to_string())
                }
            },
        )
        .await
    }

    /// MetalLB is installed again: Corten steps back, and what it forwards stays.
    async fn comes_back(&self) -> Outcome {
        let stage = &self.0;
        self.arrives("speaker-z", "speaker", 1).await?;
        self.nobody_answers().await?;
        for node in &stage.scene.nodes {
            self.states(node, "Pod metallb-system/speaker-z").await?;
            self.forwards(node, true).await?;
        }
        self.arrives("controller-x", "controller", 0).await?;
        wait_for(SOON, "the lease to be given back", async || {
            let lease = stage.plane.api().get(LEASE).await;
            let lease = lease.map_err(|error| error.to_string())?;
            match lease["spec"]["holderIdentity"].as_str() {
                None | Some("") => Ok(()),
                Some(holder) => Err(holder.to_owned()),
            }
        })
        .await?;
        self.says(&stage.api_host, CONTROLLER).await?;
        assert_eq!(stage.addresses(SERVICE).await, ["10.0.0.101"], "it stays");
        stage.say("MetalLB is back: Corten stands by again");
        self.goes("controller-x").await?;
        self.goes("speaker-z").await?;
        stage.scene.owner(ADDRESS).await?;
        wait_for(SOON, "a leader", async || {
            let lease = stage.plane.api().get(LEASE).await;
            let lease = lease.map_err(|error| error.to_string())?;
            match lease["spec"]["holderIdentity"].as_str() {
                Some("api") => Ok(()),
                _ => Err(lease.to_string()),
            }
        })
        .await?;
        Ok(())
    }
}
