//! SCTP, which the machine's own kernel may lack: by nftables and by IPVS.

use std::io::Read as _;
use std::net::SocketAddr;

use dataplane::ipvs::Ipvs;
use dataplane::nft::Nft;
use plan::forward::ipvs::Scheduling;
use plan::net::Protocol;
use socket2::{Domain, SockAddr, Socket, Type};

use super::backend::{Addresses, Desired, families};
use super::ground::{Found, Ground, MODULES, PORT, SOON, endpoint};

/// A socket for one association, at this address: SCTP tells the other end all that it may have.
fn socket(at: SocketAddr) -> std::io::Result<Socket> {
    let protocol = Some(socket2::Protocol::from(i32::from(Protocol::Sctp.number())));
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, protocol)?;
    socket.bind(&SockAddr::from(at))?;
    Ok(socket)
}

/// Whoever connects to the Pod's endpoint is told its name.
fn serve(pod: &lab::Host, name: &'static str, at: SocketAddr) -> lab::Outcome {
    let listening = pod.run(|| socket(at).and_then(|it| it.listen(8).map(|()| it)))??;
    std::thread::spawn(move || {
        while let Ok((association, _)) = listening.accept() {
            let _ = association.send(name.as_bytes());
        }
    });
    Ok(())
}

/// Which Pod answers an association with `to`.
fn ask(client: &lab::Host, it: &Addresses, to: SocketAddr) -> Found<String> {
    let mut association = client.run(|| {
        let socket = socket(SocketAddr::new(it.client, 0))?;
        socket.connect_timeout(&SockAddr::from(to), SOON)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok::<_, std::io::Error>(socket)
    })??;
    let mut name = [0];
    association.read_exact(&mut name)?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

#[test]
fn associations_with_services() {
    let name = "ipvs::sctp::associations_with_services";
    lab::guest::run(name, &MODULES, async |lab| {
        let ground = Ground::new(&lab).await?;
        ground.node.run(|| associate(&ground))?
    });
}

fn associate(ground: &Ground) -> lab::Outcome {
    let Ground { client, node, pods } = ground;
    let mut desired = Desired::new();
    for it in families() {
        for (pod, (name, number)) in pods.iter().zip([("a", 2), ("b", 3)]) {
            serve(
                pod,
                name,
                SocketAddr::new(endpoint(it.cluster, number).ip(), PORT),
            )?;
        }
        let port = it.service(80, plan::world::Policy::Cluster, &[2, 3]);
        desired.insert(it.key("sctp", Protocol::Sctp), port);
    }
    let all = || -> Found<String> {
        let mut by = String::new();
        for it in families() {
            for address in [it.cluster, it.external, it.cluster, it.external] {
                by += &ask(client, &it, SocketAddr::new(address, 80))?;
            }
        }
        Ok(by)
    };
    let mut nft = node.run(Nft::open)??;
    assert_eq!(nft.adopt(&desired)?.refused, []);
    let by = all()?;
    assert_eq!(by.len(), 8, "{by}");

    // The same table, with other rules: the back end is changed as it runs.
    drop(nft);
    let usual = Scheduling::default();
    let mut ipvs = node.run(|| Ipvs::open(usual))??;
    assert_eq!(ipvs.adopt(&desired)?.refused, []);
    // Each address takes turns for itself.
    let by = all()?;
    for turns in by.as_bytes().chunks(4) {
        let [one, two, three, four] = turns else {
            return Err(format!("{by} is not of eight").into());
        };
        assert!(one != three && two != four, "{by}");
    }
    ipvs.remove().map_err(Into::into)
}
