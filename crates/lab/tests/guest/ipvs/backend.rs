//! The back end as the agent uses it: Services' ports in, packets through virtual servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use dataplane::ipvs::{DEVICE, Ipvs};
use dataplane::nft::Look;
use linux::ipvs::{PERSISTENT, Request, Settings, Socket};
use plan::forward::ipvs::Scheduling;
use plan::forward::{Frontend, FrontendKind, PortKey, ServicePort};
use plan::name::ServiceKey;
use plan::net::{Family, Protocol};
use plan::world::Policy;
use socket2::{Domain, SockAddr, Socket as Raw, Type};

use super::ground::{
    Found, Ground, MODULES, Open, SOON, ask, endpoint, refusal, server, silence, turns, until,
};

pub(crate) type Desired = BTreeMap<PortKey, ServicePort>;

/// A family's addresses: a cluster IP, an external one, the node's, the client's.
pub(crate) struct Addresses {
    family: Family,
    pub(crate) cluster: IpAddr,
    pub(crate) external: IpAddr,
    pub(crate) node: IpAddr,
    pub(crate) client: IpAddr,
}

pub(crate) fn families() -> [Addresses; 2] {
    let of = |family, [cluster, external, node, client]: [&str; 4]| {
        let ip = |text: &str| text.parse().expect("an address");
        Addresses {
            family,
            cluster: ip(cluster),
            external: ip(external),
            node: ip(node),
            client: ip(client),
        }
    };
    [
        of(
            Family::V4,
            ["10.96.0.1", "192.168.10.1", "10.0.0.11", "10.0.0.9"],
        ),
        of(Family::V6, ["fd96::1", "fd97::1", "fd00::11", "fd00::9"]),
    ]
}

impl Addresses {
    /// The external address with this number at its end.
    pub(crate) fn external_of(&self, number: u8) -> IpAddr {
        match self.external {
            IpAddr::V4(_) => IpAddr::from([192, 168, 10, number]),
            IpAddr::V6(_) => IpAddr::from([0xfd97, 0, 0, 0, 0, 0, 0, u16::from(number)]),
        }
    }

    pub(crate) fn key(&self, name: &str, protocol: Protocol) -> PortKey {
        PortKey {
            service: ServiceKey::new("default", name),
            port: "p".into(),
            protocol,
            family: self.family,
        }
    }

    /// A Service's port at all kinds of addresses, with the Pods of these numbers.
    pub(crate) fn service(&self, port: u16, policy: Policy, pods: &[u8]) -> ServicePort {
        let frontend = |address, port, kind, policy| Frontend {
            address,
            port,
            kind,
            policy,
        };
        let endpoints = pods.iter().map(|pod| endpoint(self.cluster, *pod));
        let endpoints: Vec<SocketAddr> = endpoints.collect();
        ServicePort {
            frontends: vec![
                frontend(self.cluster, port, FrontendKind::ClusterIp, Policy::Cluster),
                frontend(self.external, port, FrontendKind::LoadBalancer, policy),
                frontend(self.node, 30_000 + port, FrontendKind::NodePort, policy),
            ],
            local: endpoints.clone(),
            usable_anywhere: !endpoints.is_empty(),
            cluster: endpoints,
            ..ServicePort::default()
        }
    }
}

fn open(node: &lab::Host, usual: &str) -> Found<Ipvs> {
    let usual: Scheduling = usual.parse()?;
    Ok(node.run(|| Ipvs::open(usual))??)
}

#[test]
fn services_are_reached_by_every_address() {
    let name = "ipvs::backend::services_are_reached_by_every_address";
    lab::guest::run(name, &MODULES, async |lab| {
        let ground = Ground::new(&lab).await?;
        ground.node.run(|| reach(&ground))?
    });
}

fn reach(ground: &Ground) -> lab::Outcome {
    let Ground { client, node, .. } = ground;
    let mut ipvs = open(node, "rr")?;
    let mut desired = Desired::new();
    for it in families() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = it.service(80, Policy::Cluster, &[2, 3]);
            desired.insert(it.key("web", protocol), port);
        }
        let port = it.service(81, Policy::Local, &[2]);
        let port = ServicePort {
            cluster: vec![endpoint(it.cluster, 2), endpoint(it.cluster, 3)],
            ..port
        };
        desired.insert(it.key("local", Protocol::Tcp), port);
        let elsewhere = ServicePort {
            local: Vec::new(),
            ..it.service(82, Policy::Local, &[2])
        };
        desired.insert(it.key("elsewhere", Protocol::Tcp), elsewhere);
        let nobody = it.service(83, Policy::Cluster, &[]);
        desired.insert(it.key("nobody", Protocol::Tcp), nobody);
        for (port, range) in [(84, it.client), (85, it.node)] {
            let ranged = ServicePort {
                source_ranges: vec![range.into()],
                ..it.service(port, Policy::Cluster, &[2])
            };
            desired.insert(it.key(&format!("ranged-{port}"), Protocol::Tcp), ranged);
        }
        let kept = ServicePort {
            affinity_seconds: Some(60),
            ..it.service(86, Policy::Cluster, &[2, 3])
        };
        desired.insert(it.key("kept", Protocol::Tcp), kept);
    }
    let report = ipvs.adopt(&desired)?;
    assert_eq!(report.refused, []);
    // This host's own server, at every address.
    let _own = TcpListener::bind("[::]:8022")?;

    for it in families() {
        let at = |address, port| SocketAddr::new(address, port);
        // Strictly in turn, each protocol for itself, and the client's address is kept.
        let seen = turns(client, at(it.cluster, 80), 6)?;
        assert!(["ababab", "bababa"].contains(&&*seen), "{seen}");
        let mut seen = String::new();
        for _ in 0..4 {
            let (by, heard) = ask(client, at(it.cluster, 80))?;
            assert_eq!(heard.ip(), it.client);
            seen.push_str(&by);
        }
        assert!(["abab", "baba"].contains(&&*seen), "{seen}");
        assert_eq!(Open::new(client, at(it.cluster, 80))?.heard.ip(), it.client);
        // By external addresses and node ports replies have to come back this way.
        for to in [at(it.external, 80), at(it.node, 30_080)] {
            let open = Open::new(client, to)?;
            assert_ne!(open.heard.ip(), it.client, "{to}");
            ask(client, to)?;
        }
        // This host's own connections, by every address.
        for to in [at(it.cluster, 80), at(it.external, 80), at(it.node, 30_080)] {
            let open = Open::new(node, to)?;
            assert!(
                ![it.cluster, it.external].contains(&open.heard.ip()),
                "{to}"
            );
        }

        // Policy Local: the Pod here and the client's address; this host takes the short cut.
        for to in [at(it.external, 81), at(it.node, 30_081)] {
            for _ in 0..2 {
                let open = Open::new(client, to)?;
                assert_eq!((&*open.by, open.heard.ip()), ("a", it.client), "{to}");
            }
        }
        silence(client, at(it.external, 82))?;
        Open::new(node, at(it.external, 82))?;
        for to in [at(it.cluster, 83), at(it.external, 83), at(it.node, 30_083)] {
            refusal(client, to)?;
            refusal(node, to)?;
        }

        // Source ranges are for balanced addresses only.
        Open::new(client, at(it.external, 84))?;
        silence(client, at(it.external, 85))?;
        Open::new(client, at(it.cluster, 85))?;
        Open::new(client, at(it.node, 30_085))?;

        let seen = turns(client, at(it.cluster, 86), 4)?;
        assert!(["aaaa", "bbbb"].contains(&&*seen), "{seen}");

        // This host's own servers are not reached by way of Services, but by its own address.
        for address in [it.cluster, it.external] {
            refusal(client, at(address, 8022))?;
        }
        let to = at(it.node, 8022);
        client.run(|| TcpStream::connect_timeout(&to, SOON))??;
    }

    // Somebody else's stays as it is, and the rest does not suffer.
    let foreign = server("10.96.0.9:80", 6)?;
    let settings = Settings {
        scheduler: "rr".to_owned(),
        flags: 0,
        timeout: 0,
    };
    let mut socket = node.run(Socket::open)??;
    socket.change(&[Request::AddServer(foreign, settings.clone())])?;
    let [four, _] = families();
    let mut taken = four.service(80, Policy::Cluster, &[2]);
    taken.frontends.truncate(1);
    taken.frontends[0].address = foreign.address;
    let key = four.key("taken", Protocol::Tcp);
    let report = ipvs.apply(&[(key.clone(), Some(taken))])?;
    assert_eq!(report.refused.len(), 1, "{report:?}");
    assert_eq!(report.refused[0].0, key);
    let there = socket.server(&foreign)?.map(|server| server.settings);
    assert_eq!(there.as_ref(), Some(&settings));

    // What others do to ours is seen, and mended.
    assert!(ipvs.check()?.is_zero());
    let (web, pod) = (server("[fd96::1]:80", 6)?, endpoint(foreign.address, 2));
    let another = server("10.96.0.1:80", 6)?;
    let address = format!("address del 10.96.0.1/32 dev {DEVICE}");
    let settings_of_rr = |flags| Settings {
        flags,
        ..settings.clone()
    };
    let ours = 1 << 30;
    let steps: [(&str, Vec<Request>, &str); 6] = [
        ("a server goes", vec![Request::DeleteServer(web)], ""),
        (
            "one of ours that nobody wants comes",
            vec![Request::AddServer(
                server("10.96.9.9:9", 6)?,
                settings_of_rr(ours),
            )],
            "",
        ),
        (
            "another persistence",
            vec![Request::SetServer(web, settings_of_rr(ours | PERSISTENT))],
            "",
        ),
        (
            "a destination goes",
            vec![Request::DeleteDestination(another, pod)],
            "",
        ),
        (
            "another weight",
            vec![Request::SetDestination(another, pod, 7)],
            "",
        ),
        ("an address goes", vec![], &address),
    ];
    for (what, requests, command) in steps {
        let refused = socket.change(&requests)?;
        assert!(refused.iter().all(Option::is_none), "{what}: {refused:?}");
        if !command.is_empty() {
            super::super::kernel::ip(node, command)?;
        }
        // There are no more servers than one look compares wholly, and the first look behind a
        // comparison waits for nothing.
        assert_eq!(ipvs.look()?, Look::Broken, "{what}");
        assert!(!ipvs.check()?.is_zero(), "{what}");
        assert_eq!(ipvs.look()?, Look::Untouched, "{what}");
        assert!(ipvs.check()?.is_zero(), "{what}");
    }
    // The place is free now.
    socket.change(&[Request::DeleteServer(foreign)])?;
    ipvs.check()?;
    let there = socket.server(&foreign)?.map(|server| server.settings.flags);
    assert_eq!(there, Some(ours));
    ipvs.apply(&[(key.clone(), None)])?;
    socket.change(&[Request::AddServer(foreign, settings)])?;

    // All of it goes, but for that.
    let none: Vec<_> = desired
        .keys()
        .chain([&key])
        .map(|key| (key.clone(), None))
        .collect();
    let report = ipvs.apply(&none)?;
    assert_eq!(report.refused, []);
    let left: Vec<_> = socket
        .servers()?
        .into_iter()
        .map(|server| server.key)
        .collect();
    assert_eq!(left, [foreign]);
    let link = super::super::kernel::ip(node, &format!("-o address show {DEVICE}"))?;
    assert!(
        !link.contains("10.96.") && !link.contains("fd96:"),
        "{link}"
    );
    ipvs.remove()?;
    assert_eq!(socket.servers()?.len(), 1);
    assert!(super::super::kernel::ip(node, &format!("link show {DEVICE}")).is_err());
    let tables = node.run(linux::nft::Socket::open)??.tables()?;
    assert_eq!(tables, []);
    Ok(())
}

#[test]
fn connections_outlive_endpoints_and_the_process() {
    let name = "ipvs::backend::connections_outlive_endpoints_and_the_process";
    lab::guest::run(name, &MODULES, async |lab| {
        let ground = Ground::new(&lab).await?;
        ground.node.run(|| outlive(&ground))?
    });
}

fn outlive(ground: &Ground) -> lab::Outcome {
    let Ground { client, node, .. } = ground;
    let mut ipvs = open(node, "rr")?;
    let both = families();
    let [four, six] = &both;
    let key = |it: &Addresses| it.key("web", Protocol::Tcp);
    let with = |it: &Addresses, pods: &[u8]| it.service(80, Policy::Cluster, pods);
    let mut desired: Desired = both.iter().map(|it| (key(it), with(it, &[2, 3]))).collect();
    let unrelated = (
        four.key("other", Protocol::Tcp),
        four.service(90, Policy::Cluster, &[2]),
    );
    desired.extend([unrelated]);
    ipvs.adopt(&desired)?;

    let at = |it: &Addresses| SocketAddr::new(it.cluster, 80);
    let mut kept = Vec::new();
    for it in &both {
        // In turn: one of the two is Pod a's.
        let opened = [Open::new(client, at(it))?, Open::new(client, at(it))?];
        kept.extend(opened.into_iter().filter(|open| open.by == "a"));
    }
    assert_eq!(kept.len(), 2);
    // A connection that has ended, whose port the client takes again.
    let ended = (40_001..40_003).map(|port| Ok((port, from(client, four, port)?)));
    let ended: Found<Vec<_>> = ended.collect();
    let ended = ended?.into_iter().find(|(_, ended)| ended.by == "a");
    let (port, ended) = ended.ok_or("none of the two is Pod a's")?;
    drop(ended);

    // The next process finds all as it should be.
    drop(ipvs);
    let mut ipvs = open(node, "rr")?;
    let report = ipvs.adopt(&desired)?;
    assert!(
        report.is_zero() && report.added + report.removed == 0,
        "{report:?}"
    );
    for open in &mut kept {
        open.lives()?;
    }

    // Pod a leaves: what is open goes on, new ones go elsewhere, the port that is used again too.
    for it in &both {
        ipvs.apply(&[(key(it), Some(with(it, &[3])))])?;
        desired.insert(key(it), with(it, &[3]));
        assert_eq!(turns(client, at(it), 3)?, "bbb");
    }
    assert_eq!(from(client, four, port)?.by, "b");
    assert!(ipvs.drains());
    ipvs.tick()?;
    for open in &mut kept {
        open.lives()?;
    }
    // So does a process that starts meanwhile.
    drop(ipvs);
    let mut ipvs = open(node, "rr")?;
    ipvs.adopt(&desired)?;
    assert!(ipvs.drains());
    for open in &mut kept {
        open.lives()?;
    }
    let mut socket = node.run(Socket::open)??;
    let weights = |socket: &mut Socket, it: &Addresses| -> Found<Vec<u32>> {
        let server = server(&at(it).to_string(), 6)?;
        let mut found = socket.destinations(&server)?;
        found.sort_unstable_by_key(|destination| destination.at);
        Ok(found.iter().map(|destination| destination.weight).collect())
    };
    assert_eq!(weights(&mut socket, six)?, [0, 1]);

    // The last Pod leaves too: new connections are refused, the open ones go on.
    for it in &both {
        ipvs.apply(&[(key(it), Some(with(it, &[])))])?;
        refusal(client, at(it))?;
    }
    for open in &mut kept {
        open.lives()?;
    }
    // With the last connection the destination goes.
    drop(kept);
    until("the endpoints are gone", || {
        ipvs.tick()?;
        let left = [weights(&mut socket, four)?, weights(&mut socket, six)?];
        match left.iter().all(Vec::is_empty) {
            true => Ok(()),
            false => Err(format!("{left:?}").into()),
        }
    })?;
    assert!(!ipvs.drains());

    // Back again.
    ipvs.apply(&[(key(four), Some(with(four, &[2, 3])))])?;
    assert_eq!(turns(client, at(four), 2)?.len(), 2);
    Ok(())
}

/// A connection from this port of the client.
fn from(client: &lab::Host, it: &Addresses, port: u16) -> Found<Open> {
    let to = SocketAddr::new(it.cluster, 80);
    let stream = client.run(|| -> std::io::Result<TcpStream> {
        let raw = Raw::new(Domain::for_address(to), Type::STREAM, None)?;
        raw.set_reuse_address(true)?;
        raw.bind(&SockAddr::from(SocketAddr::new(it.client, port)))?;
        raw.connect_timeout(&SockAddr::from(to), SOON)?;
        Ok(raw.into())
    })??;
    Open::of(stream)
}
