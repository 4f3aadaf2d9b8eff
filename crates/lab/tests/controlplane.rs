//! The control plane in a lab host: real controllers follow the Pods that the
//! lab reports, and the API server judges the CRDs and the examples.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::controlplane::{Account, ControlPlane, ControlPlaneError, PodName, binary_or_skip};
use lab::{Host, Lab, Outcome, wait_for};

const MINUTES: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(10);

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{protocol: TCP, port: 80, targetPort: 80}]
"#;

#[test]
fn slices_follow_pods_and_bad_pools_are_refused() {
    let name = "slices_follow_pods_and_bad_pools_are_refused";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    lab::run_for(name, MINUTES, async |lab| {
        let (server, client) = two_hosts(&lab).await?;
        let lap = Lap::new(&lab);
        let plane = ControlPlane::start(&binary, &lab, &server, server.address(false)?).await?;
        lap.say("ready");
        let story = Story { plane, client, lap };
        story.accounts().await?;
        story.pods().await?;
        story.manifests().await?;
        story.plane.stop();
        assert_eq!(server.processes()?, Vec::<u32>::new());
        story.lap.say("stopped");
        Ok(())
    });
}

#[test]
fn a_process_that_ends_is_reported_with_its_log() {
    lab::run(
        "a_process_that_ends_is_reported_with_its_log",
        async |lab| {
            let (server, _) = two_hosts(&lab).await?;
            // `cat etcd --name=…` complains and ends.
            let start =
                ControlPlane::start(Path::new("cat"), &lab, &server, server.address(false)?);
            match start.await {
                Err(ControlPlaneError::Ended { log, .. }) => {
                    assert!(log.contains("option"), "{log}")
                }
                other => panic!("{other:?}"),
            }
            Ok(())
        },
    );
}

async fn two_hosts(lab: &Lab) -> Result<(Host, Host), lab::LabError> {
    let lan = lab.segment("lan").await?;
    let (server, client) = (lab.host("api").await?, lab.host("client").await?);
    lan.attach(&server, &["10.0.0.5/24"]).await?;
    lan.attach(&client, &["10.0.0.9/24"]).await?;
    Ok((server, client))
}

/// The chapters of the test; kubectl runs on `client`, across the segment.
struct Story {
    plane: ControlPlane,
    client: Host,
    lap: Lap,
}

impl Story {
    async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String, ControlPlaneError> {
        self.plane.kubectl_ok(&self.client, args, stdin).await
    }

    /// Each kubeconfig is its account's, and only the admin may do everything.
    async fn accounts(&self) -> Outcome {
        for (account, user) in [
            (Account::Admin, "admin"),
            (
                Account::Controller,
                "system:serviceaccount:metallb-system:corten-controller",
            ),
            (
                Account::Agent,
                "system:serviceaccount:metallb-system:corten-agent",
            ),
        ] {
            let config = self.plane.kubeconfig(account);
            let config = ["--kubeconfig", config.to_str().unwrap()];
            let name = [
                "auth",
                "whoami",
                "-o",
                "jsonpath={.status.userInfo.username}",
            ];
            assert_eq!(
                self.kubectl(&[&config[..], &name].concat(), "").await?,
                user
            );
            let all = [&config[..], &["auth", "can-i", "*", "*"]].concat();
            let may = self.plane.kubectl(&self.client, &all, "").await?;
            assert_eq!(
                may.status.success(),
                account == Account::Admin,
                "{account:?}"
            );
        }
        self.lap.say("three accounts, six kubectl");
        Ok(())
    }

    async fn pods(&self) -> Outcome {
        let (api, lap) = (self.plane.api(), &self.lap);
        for (name, address, range) in [
            ("n1", "10.0.0.11", "10.1.1.0/24"),
            ("n2", "10.0.0.12", "10.1.2.0/24"),
        ] {
            api.create_node(name, &[address.parse()?], &[range]).await?;
        }
        lap.say("2 nodes");
        let pod = |name| PodName {
            namespace: "default",
            name,
        };
        for (node, name, v4, v6) in [
            ("n1", "web-1", "10.1.1.2", "fd01:1::2"),
            ("n2", "web-2", "10.1.2.2", "fd01:2::2"),
        ] {
            let addresses = [v4.parse()?, v6.parse()?];
            api.run_pod(node, pod(name), &[("app", "web")], &addresses)
                .await?;
        }
        lap.say("2 pods");
        self.kubectl(&["apply", "-f", "-"], SERVICE).await?;
        lap.say("service by kubectl");

        let both = [
            "10.1.1.2 n1 ready",
            "10.1.2.2 n2 ready",
            "fd01:1::2 n1 ready",
            "fd01:2::2 n2 ready",
        ];
        self.endpoints_become(&both).await?;
        lap.say("slices have both pods");

        api.set_pod_ready(pod("web-1"), false).await?;
        self.endpoints_become(&[
            "10.1.1.2 n1",
            "10.1.2.2 n2 ready",
            "fd01:1::2 n1",
            "fd01:2::2 n2 ready",
        ])
        .await?;
        lap.say("one not ready");

        api.set_pod_ready(pod("web-1"), true).await?;
        self.endpoints_become(&both).await?;
        lap.say("ready again");

        api.delete_pod(pod("web-1")).await?;
        self.endpoints_become(&["10.1.2.2 n2 ready", "fd01:2::2 n2 ready"])
            .await?;
        lap.say("one deleted");

        let gone = api
            .get("/api/v1/namespaces/default/pods/web-1")
            .await
            .unwrap_err();
        assert_eq!(gone.status(), Some(404), "{gone}");
        Ok(())
    }

    async fn endpoints_become(&self, expected: &[&str]) -> Outcome {
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
                    ?labelSelector=kubernetes.io/service-name%3Dweb";
        let look = async || match self.plane.api().get(path).await {
            Ok(list) if endpoints(&list) == expected => Ok(()),
            Ok(list) => Err(format!("{:?}", endpoints(&list))),
            Err(error) => Err(error.to_string()),
        };
        Ok(wait_for(SOON, &format!("{expected:?}"), look).await?)
    }

    /// The CRDs are good, the examples pass and a bad pool does not.
    async fn manifests(&self) -> Outcome {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (crds, examples) = (root.join("deploy/crds"), root.join("examples/l2"));
        let (crds, examples) = (crds.to_str().unwrap(), examples.to_str().unwrap());
        self.kubectl(&["apply", "-f", crds], "").await?;
        self.kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "--timeout=20s",
                "-f",
                crds,
            ],
            "",
        )
        .await?;
        self.lap.say("CRDs established");

        self.kubectl(&["create", "namespace", "metallb-system"], "")
            .await?;
        self.kubectl(&["apply", "-f", examples], "").await?;
        self.lap.say("examples/l2 applied");

        let bad = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bad, namespace: metallb-system}
spec: {addresses: [\"10.0.0.1\"]}
";
        let refused = self
            .plane
            .kubectl(&self.client, &["apply", "-f", "-"], bad)
            .await?;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "accepted");
        assert!(said.contains("spec.addresses"), "names the field: {said}");
        self.lap.say(format!("bad pool refused: {}", said.trim()));
        Ok(())
    }
}

/// `ADDRESS NODE [ready]` of every endpoint, sorted.
fn endpoints(list: &serde_json::Value) -> Vec<String> {
    let slices = list["items"].as_array().unwrap().iter();
    let mut all: Vec<String> = slices
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .map(|endpoint| {
            let ready = endpoint["conditions"]["ready"].as_bool().unwrap();
            format!(
                "{} {}{}",
                endpoint["addresses"][0].as_str().unwrap(),
                endpoint["nodeName"].as_str().unwrap(),
                if ready { " ready" } else { "" }
            )
        })
        .collect();
    all.sort();
    all
}

/// Says how long each step took.
struct Lap {
    lab: Lab,
    last: Cell<Instant>,
}

impl Lap {
    fn new(lab: &Lab) -> Self {
        Self {
            lab: lab.clone(),
            last: Cell::new(Instant::now()),
        }
    }

    fn say(&self, step: impl std::fmt::Display) {
        let now = Instant::now();
        let took = now - self.last.replace(now);
        self.lab.say(format!("{:5} ms  {step}", took.as_millis()));
    }
}
