//! Another BGP speaker on the node, toward the same router.

use lab::router::{Bird, Frr};
use lab::wait_for;

use crate::sessions::{one_service, says, times_up};
use crate::stage::{Outcome, ROUTER, SOON, Stage, known, object};

/// As Calico's, with graceful restart.
const BIRD: &str = "\
router id 10.0.0.11;
protocol device {}
protocol static { ipv4; route 192.0.2.1/32 blackhole; }
protocol bgp uplink {
  local 10.0.0.11 as 64500;
  neighbor 10.0.0.1 as 64501;
  graceful restart on;
  connect retry time 1;
  connect delay time 1;
  error wait time 1, 2;
  ipv4 { export all; import none; next hop self; };
}
";

const PREFIX: &str = "192.168.1.1/32";

/// How often the agent gave way.
fn gave_way(log: &str) -> usize {
    log.matches("another BGP speaker of this node has a session")
        .count()
}

async fn established(bird: &Bird) -> Outcome {
    let up = wait_for(SOON, "BIRD's session", async || {
        let said = bird.ask("show protocols uplink");
        let said = said.map_err(|error| error.to_string())?;
        if said.contains("Established") {
            Ok(())
        } else {
            Err(said)
        }
    });
    Ok(up.await?)
}

#[test]
fn two_speakers_do_not_end_each_others_sessions() {
    lab::run(
        "rival::two_speakers_do_not_end_each_others_sessions",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let frr = Frr::start(&stage.router, ROUTER, "").await?;
            let node = &stage.scene.nodes[0].host;
            let bird = Bird::start(node, BIRD).await?;
            established(&bird).await?;
            let peer = "myASN: 64500, peerASN: 64501, peerAddress: 10.0.0.1, connectTime: 1s, \
                        enableGracefulRestart: true";
            one_service(&stage, &object("BGPPeer", "router", peer))?;
            let agent = stage.start()?.pop().expect("one");

            // It is there first: we wait, and say for what.
            says(&agent, "router", "(10.0.0.11:").await?;
            assert_eq!(gave_way(&agent.log()), 1, "{}", agent.log());
            assert_eq!(times_up(&frr)?, Some(1));
            // It ends: the session is ours.
            drop(bird);
            known(&frr, PREFIX, &["10.0.0.11 as=64500"]).await?;

            // It comes again: the router takes it for us come back, and we give way once.
            let bird = Bird::start(node, BIRD).await?;
            wait_for(SOON, "the agent to give way", async || {
                let count = gave_way(&agent.log());
                (count == 2).then_some(()).ok_or_else(|| count.to_string())
            })
            .await?;
            established(&bird).await?;
            let ups = times_up(&frr)?;
            drop(bird);
            known(&frr, PREFIX, &["10.0.0.11 as=64500"]).await?;
            assert_eq!(times_up(&frr)?, ups.map(|ups| ups + 1));
            assert_eq!(gave_way(&agent.log()), 2, "{}", agent.log());
            Ok(())
        },
    );
}
