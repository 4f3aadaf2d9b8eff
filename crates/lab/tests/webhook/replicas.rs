//! Two replicas that start at the same moment and share one Secret.

use k8s_openapi::ByteString;
use lab::controlplane::binary_or_skip;
use lab::{Process, wait_for};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS13;
use serde_json::Value;

use crate::support::{Fault, MINUTES, NEXT_LOOK, OVERLAPS, SECRET, Story, pool, turn};
use crate::tls::{Offer, shake};

/// Each start is a race for the Secret.
const RACES: usize = 3;

#[test]
fn replicas_that_race_serve_one_certificate() {
    let name = "replicas::replicas_that_race_serve_one_certificate";
    let Some(binary) = binary_or_skip(name) else {
        return;
    };
    let _turn = turn();
    lab::run_for(name, MINUTES, async |lab| {
        let story = Story::build(&lab, &binary).await?;
        let mut replicas = Vec::new();
        for race in 0..RACES {
            // The losers of the last race are gone, and what they fought for.
            for replica in &mut replicas {
                story.end(replica).await?;
            }
            if race > 0 {
                story.plane.api().delete(SECRET).await?;
            }
            let logged = |replicas: &[Process]| -> usize {
                let made = |replica: &Process| {
                    let log = replica.log();
                    log.matches("webhook certificates made").count()
                };
                replicas.iter().map(made).sum()
            };
            // The hosts' logs go on from start to start.
            let before = logged(&replicas);
            replicas = vec![
                story.run(&story.controller, "c1", &[])?,
                story.run(&story.standby, "c2", &[])?,
            ];
            story.registered().await?;
            story.agree().await?;
            assert_eq!(
                logged(&replicas),
                before + 1,
                "one made them, the other read them"
            );
        }
        story.stays_so().await?;
        story.refused_overlap().await?;
        story.plane.stop();
        Ok(())
    });
}

impl Story {
    async fn secret(&self) -> Result<(Value, Vec<u8>, Vec<u8>), Fault> {
        let secret = self.plane.api().get(SECRET).await?;
        let part = |name: &str| -> Result<Vec<u8>, Fault> {
            let bytes: ByteString = serde_json::from_value(secret["data"][name].clone())?;
            Ok(bytes.0)
        };
        let (authority, leaf) = (part("ca.crt")?, part("tls.crt")?);
        Ok((secret, authority, leaf))
    }

    async fn bundles(&self) -> Result<Vec<String>, Fault> {
        let entries = self.entries().await?.into_iter();
        Ok(entries.map(|(_, bundle)| bundle).collect())
    }

    /// Both serve the Secret's leaf, and every entry trusts the Secret's authority.
    async fn agree(&self) -> Result<(), Fault> {
        let offer = Offer {
            version: &TLS13,
            suites: &[],
            groups: &[],
        };
        wait_for(NEXT_LOOK, "both replicas to serve the Secret", async || {
            let looked = async || -> Result<Vec<String>, Fault> {
                let (secret, _, leaf) = self.secret().await?;
                let leaf = CertificateDer::from_pem_slice(&leaf)?;
                let mut wrong = Vec::new();
                for to in ["10.0.0.10:443", "10.0.0.11:443"] {
                    match shake(&self.api, to.parse()?, offer)? {
                        Ok(spoken) if spoken.leaf == leaf => {}
                        Ok(_) => wrong.push(format!("{to} serves another leaf")),
                        Err(error) => wrong.push(format!("{to}: {error}")),
                    }
                }
                let bundle = &secret["data"]["ca.crt"];
                for (policy, found) in self.entries().await? {
                    if *bundle != found || policy != "Fail" {
                        wrong.push(format!("{policy} with another bundle"));
                    }
                }
                Ok(wrong)
            };
            match looked().await {
                Ok(wrong) if wrong.is_empty() => Ok(()),
                Ok(wrong) => Err(wrong.join("; ")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        Ok(())
    }

    /// Each replica has looked again (it probes the webhook then), and nothing was written.
    async fn stays_so(&self) -> Result<(), Fault> {
        let (secret, ..) = self.secret().await?;
        let bundles = self.bundles().await?;
        let probes = self.asked("ipaddresspool", "denied").await?;
        // Three looks within 10 s each: of two replicas neither can be the author of all.
        wait_for(2 * NEXT_LOOK, "three more looks", async || {
            match self.asked("ipaddresspool", "denied").await {
                Ok(now) if now >= probes + 3 => Ok(()),
                other => Err(format!("{other:?} after {probes}")),
            }
        })
        .await?;
        let (now, ..) = self.secret().await?;
        assert_eq!(
            now["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"],
            "the Secret was written again"
        );
        assert_eq!(self.bundles().await?, bundles);
        self.agree().await
    }

    async fn refused_overlap(&self) -> Result<(), Fault> {
        self.accepted(&pool("first", "1.1.1.0/24")).await?;
        self.refused(&pool("second", "1.1.1.128/28"), OVERLAPS)
            .await
    }
}
