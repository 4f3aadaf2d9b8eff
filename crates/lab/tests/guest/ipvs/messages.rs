//! Virtual servers written by our own messages forward packets, and are read as they were written.

use dataplane::leftovers::Leftovers;
use lab::Outcome;
use linux::ipvs::{PERSISTENT, Request, SCHEDULER_1, SCHEDULER_2, Settings, Socket, Timeouts};

use super::ground::{Ground, MODULES, endpoint, server, turns};

/// The kernel's, all of them but `twos`, which Debian's has not.
const SCHEDULERS: [&str; 13] = [
    "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh", "rr",
];
/// A bit that the kernel has no meaning for.
const FREE: u32 = 1 << 30;

#[test]
fn virtual_servers_forward_in_both_families() {
    let name = "ipvs::messages::virtual_servers_forward_in_both_families";
    lab::guest::run(name, &MODULES, async |lab| {
        let ground = Ground::new(&lab).await?;
        let mut ipvs = ground.node.run(Socket::open)??;
        for at in ["10.96.0.1:80", "[fd96::1]:80"] {
            let key = server(at, 6)?;
            let prefix = if key.address.is_ipv4() { 32 } else { 128 };
            let address = format!("{}/{prefix}", key.address);
            ground.node.add_address("lo", &address).await?;
            let settings = |scheduler: &str, flags| Settings {
                scheduler: scheduler.to_owned(),
                flags,
                timeout: 0,
            };
            let mut requests = vec![Request::AddServer(key, settings("rr", FREE))];
            requests.extend(
                [2, 3].map(|pod| Request::AddDestination(key, endpoint(key.address, pod), 1)),
            );
            // What is there cannot be added again.
            requests.push(requests[0].clone());
            let refused = ipvs.change(&requests)?;
            let refused: Vec<bool> = refused.iter().map(Option::is_some).collect();
            assert_eq!(refused, [false, false, false, true]);
            let seen = turns(&ground.client, at.parse()?, 6)?;
            assert!(["ababab", "bababa"].contains(&&*seen), "{seen}");

            let flags = [0, FREE, PERSISTENT | FREE, SCHEDULER_1 | SCHEDULER_2 | FREE];
            for (scheduler, flags) in SCHEDULERS.iter().zip(flags.iter().cycle()) {
                let mut wanted = settings(scheduler, *flags);
                wanted.timeout = 10_800;
                let refused = ipvs.change(&[Request::SetServer(key, wanted.clone())])?;
                assert!(refused[0].is_none(), "{scheduler}: {refused:?}");
                let found = ipvs.server(&key)?.map(|server| server.settings);
                assert_eq!(found, Some(wanted));
            }
            let refused =
                ipvs.change(&[Request::SetDestination(key, endpoint(key.address, 2), 0)])?;
            assert!(refused[0].is_none(), "{refused:?}");
            let found = ipvs.destinations(&key)?;
            let mut weights: Vec<_> = found.iter().map(|it| (it.at, it.weight)).collect();
            weights.sort_unstable();
            let wanted = [(endpoint(key.address, 2), 0), (endpoint(key.address, 3), 1)];
            assert_eq!(weights, wanted);
        }
        let keys: Vec<_> = ipvs
            .servers()?
            .into_iter()
            .map(|server| server.key)
            .collect();
        assert_eq!(keys.len(), 2, "{keys:?}");
        let gone: Vec<_> = keys.iter().copied().map(Request::DeleteServer).collect();
        assert!(ipvs.change(&gone)?.iter().all(Option::is_none));
        assert_eq!(ipvs.server(&keys[0])?, None);
        assert_eq!(ipvs.servers()?, []);
        let mut timeouts = ipvs.timeouts()?;
        assert_eq!((timeouts.tcp, timeouts.udp), (900, 300), "the kernel's");
        for (tcp, tcp_fin, udp) in [(1200, 0, 301), (0, 90, 0)] {
            ipvs.set_timeouts(Timeouts { tcp, tcp_fin, udp })?;
            for (now, wanted) in [
                (&mut timeouts.tcp, tcp),
                (&mut timeouts.tcp_fin, tcp_fin),
                (&mut timeouts.udp, udp),
            ] {
                // 0 leaves one alone.
                if wanted != 0 {
                    *now = wanted;
                }
            }
            assert_eq!(ipvs.timeouts()?, timeouts);
        }
        leftovers(&ground, &mut ipvs).await
    });
}

/// Of virtual servers those go that kube-proxy left, and its interface.
async fn leftovers(ground: &Ground, ipvs: &mut Socket) -> Outcome {
    let node = &ground.node;
    node.netlink().add_dummy("kube-ipvs0").await?;
    node.add_address("kube-ipvs0", "10.96.0.9/32").await?;
    let pod = endpoint("10.96.0.9".parse()?, 2);
    let elsewhere = "10.0.0.12:6443".parse()?;
    let mut requests = Vec::new();
    for (at, flags, to) in [
        ("10.96.0.9:80", 0, Some(pod)),
        ("10.96.0.9:81", 0, None),
        ("10.0.0.11:30080", 0, Some(pod)),
        ("10.0.0.11:443", 0, Some(elsewhere)),
        // Corten's own.
        ("10.96.0.9:82", FREE, Some(pod)),
    ] {
        let key = server(at, 6)?;
        let settings = Settings {
            scheduler: "rr".to_owned(),
            flags,
            timeout: 0,
        };
        requests.push(Request::AddServer(key, settings));
        requests.extend(to.map(|to| Request::AddDestination(key, to, 1)));
    }
    let refused = ipvs.change(&requests)?;
    assert!(refused.iter().all(Option::is_none), "{refused:?}");
    let removed = node.run(Leftovers::clean)??;
    assert_eq!(
        removed.lines(),
        ["IPVS: 3 virtual servers", "IPVS: interface kube-ipvs0"]
    );
    assert_eq!(removed.kept().len(), 1, "{:?}", removed.kept());
    let mut left: Vec<u16> = ipvs.servers()?.iter().map(|it| it.key.port).collect();
    left.sort_unstable();
    assert_eq!(left, [82, 443]);
    assert!(node.interface("kube-ipvs0").await.is_err());
    let again = node.run(Leftovers::clean)??;
    assert!(again.is_empty(), "{again:?}");
    Ok(())
}
