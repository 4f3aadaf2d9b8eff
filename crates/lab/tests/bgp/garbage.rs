//! Neighbours that speak no BGP, or have no AS number.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lab::router::speaker::{Session, Speaker};

use crate::sessions::{one_service, says};
use crate::stage::{Outcome, SOON, Stage, object};

/// Less than the shortest wait after the third failure, 4 s less the jitter of a quarter; more than
/// the longest after the first, 1 s.
const RARER: Duration = Duration::from_secs(2);

fn peer(name: &str, ip: Ipv4Addr) -> String {
    let spec = format!("myASN: 64500, peerASN: 65001, peerAddress: {ip}, connectTime: 30s");
    object("Peer", name, &spec)
}

/// The agent's next OPEN, answered by this; the time of the answer, and the NOTIFICATION for it.
async fn answer(speaker: &Speaker, bytes: &[u8]) -> Outcome<(Instant, Option<[u8; 2]>)> {
    let answer = async {
        let mut connection: Session = speaker.connection().await?;
        let at = Instant::now();
        connection.send(bytes).await?;
        Ok((at, connection.end().await?))
    };
    tokio::time::timeout(SOON, answer).await?
}

#[test]
fn it_is_named_and_met_less_and_less_often() {
    lab::run(
        "garbage::it_is_named_and_met_less_and_less_often",
        async |lab| {
            let stage = Stage::of(&lab, 1).await?;
            let host = lab.router("speakers").await?;
            stage
                .scene
                .lan
                .attach(&host, &["10.0.0.2/24", "10.0.0.3/24"])
                .await?;
            let [other, nobody] = [2, 3].map(|last| Ipv4Addr::new(10, 0, 0, last));
            one_service(&stage, &(peer("other", other) + &peer("nobody", nobody)))?;
            let other = Speaker::listen(&host, other, 65001)?;
            let nobody = Speaker::listen(&host, nobody, 0)?;
            let mut agent = stage.start()?.pop().expect("one");

            // RFC 7607: 2/2.
            let (_, told) = answer(&nobody, &nobody.open()).await?;
            assert_eq!(told, Some([2, 2]));
            says(&agent, "nobody", "RFC 7607").await?;
            // No marker: 1/1. It answers as soon as it is asked, so that all of the time between is
            // the agent's.
            let mut times = Vec::new();
            for _ in 0..4 {
                let (at, told) = answer(&other, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").await?;
                assert_eq!(told, Some([1, 1]));
                times.push(at);
            }
            says(&agent, "other", "peer sent a malformed message").await?;
            let last = times[3] - times[2];
            assert!(last > RARER, "{last:?}");
            assert!(agent.try_wait()?.is_none());
            Ok(())
        },
    );
}
