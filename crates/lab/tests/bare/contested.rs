//! A Service of which not all can be forwarded: people are told, others go on. And addresses that no
//! Service has.

use std::net::SocketAddr;
use std::time::Duration;

use lab::{Target, wait_for, wait_until};

use crate::support::{ECHO, Outcome, SOON, Stage, ip, service, slice};

/// How long silence is listened to; a question is asked each millisecond.
const LISTEN: Duration = Duration::from_millis(300);
/// Both ports of each Service.
const PORTS: u64 = 2;

/// A Service of all Pods at this external address, at one instant: a file that is read while it is
/// written has no Service.
fn serve(stage: &Stage, name: &str, address: &str) -> Outcome {
    let text = service(name, &format!("externalIPs: [{address}]"));
    let text = text + &slice(name, false, &stage.scene.nodes);
    let new = stage.dir.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(
        &new,
        stage.dir.join(format!("{name}.yaml")),
    )?)
}

async fn refused(stage: &Stage, ports: u64) -> Outcome {
    wait_until(SOON, &format!("{ports} refused ports"), async || {
        let metric = stage.metric("node-1", "corten_forward_refused_ports").await;
        metric.is_ok_and(|found| found == ports)
    })
    .await?;
    Ok(())
}

#[test]
fn of_two_services_with_one_address_the_loser_is_told() {
    let name = "contested::of_two_services_with_one_address_the_loser_is_told";
    lab::run(name, async |lab| {
        let mut stage = Stage::build(&lab, 1).await?;
        serve(&stage, "one", "10.0.0.120")?;
        stage.start()?;
        stage.ready("node-1").await?;
        refused(&stage, 0).await?;

        serve(&stage, "two", "10.0.0.120")?;
        let echo = format!("10.0.0.120:{ECHO}/UDP");
        for (front, port, protocol) in
            [("10.0.0.120:80/TCP", "http", "TCP"), (&echo, "echo", "UDP")]
        {
            // Quotation marks are others in the log.
            let whom = format!("({protocol}, IPv4): {front} is taken by default/one:{port}/");
            let what = "; give one of the two another address or port";
            let parts = ["FailedToForward", "Service default/two", &whom, what];
            stage.logged("node-1", &parts).await?;
        }
        refused(&stage, PORTS).await?;
        // What it has of its own is forwarded.
        stage.holds("two", &["10.0.0.102"]).await?;
        let own = ip("10.0.0.102");
        stage.reach_by(own, "node-1").await?;
        stage.echo(own).await?;
        let winner = ip("10.0.0.120");
        stage.reach_by(winner, "node-1").await?;
        stage.echo(winner).await?;

        serve(&stage, "two", "10.0.0.121")?;
        refused(&stage, 0).await?;
        // Again is another time; a change that leaves it as it was is not.
        serve(&stage, "two", "10.0.0.120")?;
        refused(&stage, PORTS).await?;
        serve(&stage, "one", "10.0.0.120, 10.0.0.122")?;
        let third = ip("10.0.0.122");
        stage.reach_by(third, "node-1").await?;
        stage.echo(third).await?;
        let log = stage.on("node-1").log();
        let told = log.lines().filter(|line| line.contains("FailedToForward"));
        assert_eq!(told.count() as u64, 2 * PORTS, "{log}");
        Ok(())
    });
}

#[test]
fn fields_of_a_foreign_family_are_told_and_left_out() {
    let name = "contested::fields_of_a_foreign_family_are_told_and_left_out";
    lab::run(name, async |lab| {
        let mut stage = Stage::build(&lab, 1).await?;
        serve(&stage, "one", "10.0.0.120, 2001:db8::1")?;
        stage.start()?;
        stage.ready("node-1").await?;
        let what = "2001:db8::1 in externalIPs has incorrect IP version";
        let reason = "KubeProxyIncorrectIPVersion";
        let parts = [reason, "Service default/one", what];
        stage.logged("node-1", &parts).await?;
        let address = ip("10.0.0.120");
        stage.reach_by(address, "node-1").await?;
        stage.echo(address).await?;
        // What changes besides says it no more.
        serve(&stage, "one", "10.0.0.121, 2001:db8::1")?;
        let address = ip("10.0.0.121");
        stage.reach_by(address, "node-1").await?;
        stage.echo(address).await?;
        let log = stage.on("node-1").log();
        let told = log.lines().filter(|line| line.contains(reason));
        assert_eq!(told.count(), 1, "{log}");
        Ok(())
    });
}

/// A new range of cluster IPs is in force at once: in the kernel of the node, where somebody behind
/// it would answer for its addresses.
#[test]
fn a_cluster_ip_that_no_service_has_leads_nowhere() {
    let name = "contested::a_cluster_ip_that_no_service_has_leads_nowhere";
    lab::run(name, async |lab| {
        let mut stage = Stage::build(&lab, 1).await?;
        serve(&stage, "one", "10.0.0.120")?;
        stage.start()?;
        stage.ready("node-1").await?;
        // The Pod's own address: as good as any other that is behind the node.
        let pod = stage.scene.nodes[0].pod_ip;
        let prober = stage.scene.nodes[0]
            .host
            .probe(Target::Udp(SocketAddr::new(pod, ECHO)))?;
        wait_until(SOON, "answers of the Pod", async || prober.answered() >= 20).await?;
        let range = format!(
            "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\n\
             metadata: {{name: range}}\nspec: {{cidrs: [\"{pod}/32\"]}}\n"
        );
        stage.write("range.yaml", &range)?;
        // Known connections go on; new ones begin nowhere.
        let from = stage.scene.nodes[0].host.clone();
        let silent = async || {
            let prober = from.probe(Target::Udp(SocketAddr::new(pod, ECHO)));
            let prober = prober.map_err(|error| error.to_string())?;
            let heard = async || prober.answered() > 0 || prober.silence() >= LISTEN;
            let heard = wait_until(SOON, "an answer or silence", heard).await;
            heard.map_err(|error| error.to_string())?;
            match prober.answered() {
                0 => Ok(()),
                some => Err(format!("{some} answers")),
            }
        };
        wait_for(SOON, "silence", silent).await?;
        stage.remove("range.yaml")?;
        let prober = from.probe(Target::Udp(SocketAddr::new(pod, ECHO)))?;
        wait_until(SOON, "answers again", async || prober.answered() >= 20).await?;
        Ok(())
    });
}
