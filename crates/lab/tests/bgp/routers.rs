//! The routers themselves: what the lab says of them is so.

use std::time::Duration;

use lab::router::{Bird, Frr};
use lab::wait_for;

const SOON: Duration = Duration::from_secs(20);

const FRR: &str = "\
frr defaults datacenter
router bgp 64512
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 timers bgp 3 9
 neighbor 10.0.0.2 remote-as 64513
 neighbor 10.0.0.2 timers connect 1
";

const BIRD: &str = "\
router id 10.0.0.2;
protocol device {}
protocol static { ipv4; route 192.0.2.1/32 blackhole; }
protocol bgp uplink {
  local 10.0.0.2 as 64513;
  neighbor 10.0.0.1 as 64512;
  connect retry time 1;
  ipv4 { export all; import all; next hop self; };
}
";

#[test]
fn frr_and_bird_exchange_routes() {
    lab::run("routers::frr_and_bird_exchange_routes", async |lab| {
        let lan = lab.segment("lan").await?;
        let (one, two) = (lab.router("one").await?, lab.router("two").await?);
        lan.attach(&one, &["10.0.0.1/24"]).await?;
        lan.attach(&two, &["10.0.0.2/24"]).await?;
        let frr = Frr::start(&one, FRR, "").await?;
        let bird = Bird::start(&two, BIRD).await?;
        wait_for(SOON, "the route at FRR", async || {
            match frr.next_hops("192.0.2.1/32") {
                Ok(hops) if hops == ["10.0.0.2"] => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        assert_eq!(frr.session("10.0.0.2")?, "Established");
        assert!(bird.ask("show protocols uplink")?.contains("Established"));
        Ok(())
    });
}
