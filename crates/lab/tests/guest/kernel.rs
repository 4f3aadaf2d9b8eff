//! The guest itself: what the lab says of it is so.

use std::fs;
use std::path::Path;

use lab::Host;
use socket2::{Domain, Protocol, Socket, Type};

/// Runs `ip` on a host.
pub(crate) fn ip(host: &Host, arguments: &str) -> Result<String, String> {
    let mut command = host.command("ip").map_err(|error| error.to_string())?;
    let output = command.args(arguments.split_whitespace()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("ip {arguments}: {}", said.trim()))
    }
}

#[test]
fn links_that_the_machine_may_lack() {
    let name = "kernel::links_that_the_machine_may_lack";
    let modules = ["bridge", "dummy", "ip_vs", "macvlan", "sctp", "veth", "vrf"];
    lab::guest::run(name, &modules, async |lab| {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        lab.say(format!("kernel {}", release.trim()));
        assert!(release.trim().ends_with("-amd64"), "{release}");
        let lan = lab.segment("lan").await?;
        let host = lab.host("one").await?;
        lan.attach(&host, &["10.0.0.1/24"]).await?;
        for link in [
            "type dummy",
            "type vrf table 9",
            "link eth0 type macvlan mode bridge",
        ] {
            ip(&host, &format!("link add name it {link}"))?;
            ip(&host, "link del it")?;
        }
        assert!(host.run(|| Path::new("/proc/thread-self/net/ip_vs").exists())?);
        let sctp = Some(Protocol::from(132));
        host.run(|| Socket::new(Domain::IPV4, Type::STREAM, sctp))??;
        Ok(())
    });
}
