//! `--webhook-mode`, `--disable-cert-rotation`, `--metrics-cert-dir` and the TLS flags.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use k8s_openapi::ByteString;
use lab::controlplane::{Patch, binary_or_skip};
use lab::wait_for;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};
use serde_json::{Value, json};

use crate::support::{
    CONFIGURATION, Fault, MINUTES, NEXT_LOOK, OVERLAPS, SECRET, SOON, Story, pool, root, turn,
};
use crate::tls::{Offer, shake};

const WEBHOOK: &str = "10.0.0.10:443";
const METRICS: &str = "10.0.0.10:9120";

#[test]
fn each_mode_does_what_it_says() {
    let name = "modes::each_mode_does_what_it_says";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let story = Story::build(&lab, &binary).await?;
        story.disabled().await?;
        let dir = story.alone().await?;
        story.given(&dir).await?;
        story.plane.stop();
        Ok(())
    });
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    })
}

impl Story {
    async fn address_of(&self, service: &str) -> Result<Option<String>, Fault> {
        let path = format!("/api/v1/namespaces/default/services/{service}");
        let found = self.plane.api().get(&path).await?;
        let ip = &found["status"]["loadBalancer"]["ingress"][0]["ip"];
        Ok(ip.as_str().map(str::to_owned))
    }

    async fn allocated(&self, service: &str) -> Result<(), Fault> {
        let what = format!("an address for {service}");
        wait_for(SOON, &what, async || match self.address_of(service).await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        Ok(())
    }

    async fn missing(&self, path: &str) -> Result<(), Fault> {
        match self.plane.api().get(path).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            other => Err(format!("{path} is there: {other:?}").into()),
        }
    }

    /// No webhook: addresses are given, nothing listens, nothing is registered or made.
    async fn disabled(&self) -> Result<(), Fault> {
        let mut process = self.run(&self.controller, "off", &["--webhook-mode=disabled"])?;
        self.accepted(&pool("first", "1.1.1.0/24")).await?;
        self.accepted(&service("a")).await?;
        self.allocated("a").await?;
        let to: SocketAddr = WEBHOOK.parse()?;
        let refused = self.api.run(|| TcpStream::connect(to))?;
        assert!(refused.is_err(), "somebody listens for the webhook");
        self.missing(SECRET).await?;
        assert_eq!(self.entries().await?, []);
        self.end(&mut process).await?;
        self.lab.say("disabled: allocates, serves no webhook");
        Ok(())
    }

    /// The webhook alone; the default TLS. Gives a directory with the certificates that it made.
    async fn alone(&self) -> Result<PathBuf, Fault> {
        let mut process = self.run(&self.controller, "only", &["--webhook-mode=onlywebhook"])?;
        self.registered().await?;
        let probes = "10.0.0.10:17472".parse()?;
        assert_eq!(self.api.http_get(probes, "/readyz").await?.status, 200);
        self.accepted(&service("b")).await?;
        self.refused(&pool("second", "1.1.1.128/28"), OVERLAPS)
            .await?;
        for to in [WEBHOOK, METRICS] {
            let offer = |version| Offer {
                version,
                suites: &[],
                groups: &[],
            };
            let spoken = shake(&self.api, to.parse()?, offer(&TLS13))??;
            assert_eq!(spoken.version, Some(ProtocolVersion::TLSv1_3), "{to}");
            let older = shake(&self.api, to.parse()?, offer(&TLS12))?;
            assert!(older.is_err(), "{to}: TLS 1.3 is the oldest: {older:?}");
        }
        let lease =
            "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases/corten-controller";
        let lease = self.plane.api().get(lease).await?;
        assert_ne!(lease["spec"]["holderIdentity"], "only", "{lease}");
        assert_eq!(self.address_of("b").await?, None);
        // It was nothing but the mode that kept the address back.
        let flags = ["--webhook-mode=disabled"];
        let mut other = self.run(&self.standby, "other", &flags)?;
        self.allocated("b").await?;
        self.end(&mut other).await?;

        let secret = self.plane.api().get(SECRET).await?;
        let dir = self.lab.dir().join("given");
        std::fs::create_dir_all(&dir)?;
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            let bytes: ByteString = serde_json::from_value(secret["data"][name].clone())?;
            std::fs::write(dir.join(name), bytes.0)?;
        }
        self.end(&mut process).await?;
        self.lab.say("onlywebhook: judges, allocates nothing");
        Ok(dir)
    }

    /// Somebody else's certificates, and all TLS flags.
    async fn given(&self, dir: &std::path::Path) -> Result<(), Fault> {
        let api = self.plane.api();
        let secret = api.get(SECRET).await?;
        let bundle = secret["data"]["ca.crt"].clone();
        api.delete(SECRET).await?;
        api.delete(CONFIGURATION).await?;
        // As it was installed, without our entries.
        self.kubectl(&["apply", "-f", &root("deploy/webhook.yaml")])
            .await?;
        let dir_flag = |flag: &str| format!("--{flag}={}", dir.display());
        let (certs, metrics) = (dir_flag("cert-dir"), dir_flag("metrics-cert-dir"));
        let flags = [
            "--disable-cert-rotation",
            &certs,
            &metrics,
            "--tls-min-version=VersionTLS12",
            "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "--tls-curve-preferences=24",
        ];
        let mut process = self.run(&self.controller, "given", &flags)?;
        wait_for(SOON, "six entries without a bundle", async || {
            let entries = self.entries().await.map_err(|error| error.to_string())?;
            let bare = entries
                .iter()
                .all(|(policy, bundle)| policy == "Ignore" && bundle.is_empty());
            match entries.len() == 6 && bare {
                true => Ok(()),
                false => Err(format!("{entries:?}")),
            }
        })
        .await?;
        // The certificate is served once the entries are written.
        let to = WEBHOOK.parse()?;
        let offer = Offer {
            version: &TLS12,
            suites: &[],
            groups: &[],
        };
        wait_for(SOON, "the given certificate", async || {
            match shake(&self.api, to, offer) {
                Ok(Ok(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        self.handshakes(dir)?;

        // Who made the certificates says whom to trust.
        let names = [
            "bgppeer",
            "ipaddresspool",
            "bgpadvertisement",
            "community",
            "bfdprofile",
            "l2advertisement",
        ];
        let entries: Value = names
            .iter()
            .map(|name| {
                json!({
                    "name": format!("{name}validationwebhook.metallb.io"),
                    "clientConfig": {"caBundle": bundle},
                })
            })
            .collect();
        api.patch(
            CONFIGURATION,
            Patch::Strategic,
            &json!({"webhooks": entries}),
        )
        .await?;
        wait_for(
            NEXT_LOOK,
            "policy Fail with the given bundles",
            async || {
                let entries = self.entries().await.map_err(|error| error.to_string())?;
                let good = entries
                    .iter()
                    .all(|(policy, found)| policy == "Fail" && bundle == *found);
                match good {
                    true => Ok(()),
                    false => Err(format!("{entries:?}")),
                }
            },
        )
        .await?;
        self.refused(&pool("second", "1.1.1.128/28"), OVERLAPS)
            .await?;
        self.missing(SECRET).await?;
        self.end(&mut process).await?;
        let entries = self.entries().await?;
        let kept = entries.iter().all(|(_, found)| bundle == *found);
        assert!(kept, "after the stop: {entries:?}");
        self.missing(SECRET).await?;
        self.lab
            .say("given certificates: served; no Secret, no bundle of ours");
        Ok(())
    }

    /// Both servers speak what the flags say, with the given certificate.
    fn handshakes(&self, dir: &std::path::Path) -> Result<(), Fault> {
        const WANTED: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
        const OTHER: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
        let leaf = CertificateDer::from_pem_file(dir.join("tls.crt"))?;
        let offer = |version, suites, groups| Offer {
            version,
            suites,
            groups,
        };
        for to in [WEBHOOK, METRICS] {
            let shake = |offer| shake(&self.api, to.parse()?, offer);
            let spoken = shake(offer(&TLS12, &[], &[]))??;
            assert_eq!(spoken.leaf, leaf, "{to} serves another certificate");
            assert_eq!(
                (spoken.version, spoken.suite),
                (Some(ProtocolVersion::TLSv1_2), Some(WANTED)),
                "{to}"
            );
            let newer = shake(offer(&TLS13, &[], &[NamedGroup::secp384r1]))??;
            assert_eq!(newer.version, Some(ProtocolVersion::TLSv1_3), "{to}");
            let suite = shake(offer(&TLS12, &[OTHER], &[]))?;
            assert!(
                suite.is_err(),
                "{to}: a suite that was not chosen: {suite:?}"
            );
            let group = shake(offer(&TLS13, &[], &[NamedGroup::X25519]))?;
            assert!(
                group.is_err(),
                "{to}: a curve that was not chosen: {group:?}"
            );
        }
        Ok(())
    }
}
