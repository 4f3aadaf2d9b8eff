//! The lab itself: what it says is so.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::{Lab, Target, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_millis(150);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Two hosts on a segment, `.1` and `.2`.
async fn pair(lab: &Lab) -> Result<(lab::Segment, lab::Host, lab::Host), lab::LabError> {
    let lan = lab.segment("lan").await?;
    let (one, two) = (lab.host("one").await?, lab.host("two").await?);
    lan.attach(&one, &["10.0.0.1/24", "fd00::1/64"]).await?;
    lan.attach(&two, &["10.0.0.2/24", "fd00::2/64"]).await?;
    Ok((lan, one, two))
}

#[test]
fn two_hosts_talk_over_both_families() {
    lab::run("two_hosts_talk_over_both_families", async |lab| {
        let (_lan, one, two) = pair(&lab).await?;
        let echo = two.serve_udp(7)?;
        let http = two.serve_http(80)?;
        for to in [ip("10.0.0.2"), ip("fd00::2")] {
            for target in [
                Target::Icmp(to),
                Target::Udp(at(to, 7)),
                Target::Tcp(at(to, 80)),
            ] {
                let prober = one.probe(target)?;
                wait_until(SOON, &format!("20 answers to {target:?}"), async || {
                    prober.answered() >= 20
                })
                .await?;
                let gaps = prober.stop().await?;
                assert!(
                    gaps.answered <= gaps.sent && gaps.first.is_some(),
                    "{gaps:?}"
                );
            }
            let answer = one.http_get(at(to, 80), "/").await?;
            assert_eq!((answer.status, answer.backend()), (200, "two"));
            let client = answer.client().map(|c| c.ip());
            assert_eq!(client, Some(one.address(to.is_ipv6())?));
        }
        assert!(echo.counters().requests >= 40);
        assert_eq!(http.counters().clients.len(), 2, "{:?}", http.counters());
        Ok(())
    });
}

#[test]
fn a_cut_is_silent_and_an_unplugged_cable_is_not() {
    lab::run(
        "a_cut_is_silent_and_an_unplugged_cable_is_not",
        async |lab| {
            let (lan, one, _two) = pair(&lab).await?;
            lan.cut(&one).await?;
            assert!(one.interface("eth0").await?.carrier);
            lan.unplug(&one).await?;
            let carrier = async || one.interface("eth0").await.is_ok_and(|i| i.carrier);
            wait_until(SOON, "no carrier", async || !carrier().await).await?;
            lan.heal(&one).await?;
            Ok(wait_until(SOON, "a carrier", carrier).await?)
        },
    );
}

#[test]
fn a_prober_measures_a_cut() {
    lab::run("a_prober_measures_a_cut", async |lab| {
        let (_lan, one, two) = pair(&lab).await?;
        two.serve_udp(7)?;
        let prober = one.probe(Target::Udp("10.0.0.2:7".parse()?))?;
        wait_until(SOON, "answers", async || prober.answered() > 20).await?;
        let silent = Duration::from_millis(120);
        two.cut().await?;
        wait_until(SOON, "silence", async || prober.silence() > silent).await?;
        two.heal().await?;
        let before = prober.answered();
        wait_until(SOON, "answers again", async || {
            prober.answered() > before + 20
        })
        .await?;
        let gaps = prober.stop().await?;
        assert!(
            gaps.longest >= silent && gaps.longest < Duration::from_secs(2),
            "{gaps:?}"
        );
        assert!(gaps.lost() >= 60, "one question a millisecond: {gaps:?}");
        Ok(())
    });
}

#[test]
fn every_owner_of_an_address_is_heard() {
    lab::run("every_owner_of_an_address_is_heard", async |lab| {
        let (lan, one, two) = pair(&lab).await?;
        let three = lab.host("three").await?;
        lan.attach(&three, &["10.0.0.3/24", "fd00::3/64"]).await?;
        for target in [ip("10.0.0.2"), ip("fd00::2")] {
            assert_eq!(
                one.who_has("eth0", target, WINDOW).await?,
                [two.mac("eth0").await?]
            );
        }
        for target in [ip("10.0.0.9"), ip("fd00::9")] {
            assert_eq!(one.who_has("eth0", target, WINDOW).await?, [[0; 6]; 0]);
            let prefix = if target.is_ipv6() { 64 } else { 24 };
            two.add_address("eth0", &format!("{target}/{prefix}"))
                .await?;
            three
                .add_address("eth0", &format!("{target}/{prefix}"))
                .await?;
            let mut owners = one.who_has("eth0", target, WINDOW).await?;
            owners.sort();
            assert_eq!(owners, [two.mac("eth0").await?, three.mac("eth0").await?]);
        }
        Ok(())
    });
}

#[test]
fn pods_answer_through_their_nodes() {
    lab::run("pods_answer_through_their_nodes", async |lab| {
        let lan = lab.segment("lan").await?;
        let (one, two) = (lab.node("node-1").await?, lab.node("node-2").await?);
        let client = lab.host("client").await?;
        lan.attach(&one, &["10.0.0.11/24", "fd00::11/64"]).await?;
        lan.attach(&two, &["10.0.0.12/24", "fd00::12/64"]).await?;
        lan.attach(&client, &["10.0.0.50/24", "fd00::50/64"])
            .await?;
        let pods = [
            lab.pod(&one, &[ip("10.244.1.2"), ip("fd44:1::2")], "web-1")
                .await?,
            lab.pod(&one, &[ip("10.244.1.3"), ip("fd44:1::3")], "web-2")
                .await?,
            lab.pod(&two, &[ip("10.244.2.2"), ip("fd44:2::2")], "web-3")
                .await?,
        ];
        client.add_route("10.244.0.0/16", "10.0.0.12").await?;
        client.add_route("fd44::/16", "fd00::12").await?;
        for pod in &pods {
            pod.serve_http(8080)?;
            for to in pod.addresses() {
                for from in [&one, &two, &client, &pods[0], &pods[2]] {
                    let answer = from.http_get(at(to, 8080), "/").await?;
                    assert_eq!(answer.backend(), pod.name(), "{} to {to}", from.name());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_killed_host_is_silent_and_its_processes_are_gone() {
    lab::run(
        "a_killed_host_is_silent_and_its_processes_are_gone",
        async |lab| {
            let (_lan, one, two) = pair(&lab).await?;
            two.serve_udp(7)?;
            let mut command = two.command("sh")?;
            command.args([
                "-c",
                "hostname; echo here > /run/note; sleep 1000 & exec sleep 1000",
            ]);
            let mut process = two.spawn("sleep", command)?;
            wait_for(SOON, "a log and a file", async || {
                let note = std::fs::read_to_string(two.run_dir().join("note")).unwrap_or_default();
                let seen = (process.log(), note);
                if seen == ("two\n".to_owned(), "here\n".to_owned()) {
                    Ok(())
                } else {
                    Err(seen)
                }
            })
            .await?;
            wait_until(SOON, "two processes", async || {
                two.processes().is_ok_and(|p| p.len() == 2)
            })
            .await?;
            let prober = one.probe(Target::Udp("10.0.0.2:7".parse()?))?;
            wait_until(SOON, "answers", async || prober.answered() > 5).await?;
            assert_eq!(two.kill().await?.len(), 2);
            assert!(!process.wait(SOON).await?.success());
            let silent = Duration::from_millis(100);
            wait_until(SOON, "silence", async || prober.silence() > silent).await?;
            wait_until(SOON, "no process", async || {
                two.processes().is_ok_and(|p| p.is_empty())
            })
            .await?;
            Ok(())
        },
    );
}

#[test]
fn interfaces_and_their_changes_are_seen() {
    lab::run("interfaces_and_their_changes_are_seen", async |lab| {
        use linux::netlink::{Change, Changes};
        let (lan, one, _two) = pair(&lab).await?;
        let runtime = tokio::runtime::Handle::current();
        let mut changes = one.run(|| {
            let _entered = runtime.enter();
            Changes::open()
        })??;
        let eth0 = one.interface("eth0").await?;
        assert!(eth0.up && eth0.flags.broadcast && !eth0.flags.noarp && !eth0.flags.loopback);
        assert!(eth0.addresses.contains(&(ip("10.0.0.1"), 24)), "{eth0:?}");
        assert!(eth0.addresses.contains(&(ip("fd00::1"), 64)), "{eth0:?}");
        assert!(one.interface("lo").await?.flags.loopback);
        let mut next = async |what: &str, wanted: &dyn Fn(&Change) -> bool| {
            let mut seen = Vec::new();
            let look = async {
                loop {
                    let change = changes.next().await.expect("a change");
                    if wanted(&change) {
                        return;
                    }
                    seen.push(change);
                }
            };
            let found = tokio::time::timeout(SOON, look).await;
            found.unwrap_or_else(|_| panic!("no {what}; seen {seen:?}"));
        };
        one.add_address("eth0", "10.0.0.77/32").await?;
        let index = eth0.index;
        let added = Change::Address {
            index,
            ip: ip("10.0.0.77"),
            prefix: 32,
        };
        next("new address", &|c| *c == added).await;
        one.netlink()
            .del_address(index, ip("10.0.0.77"), 32)
            .await?;
        let gone = Change::AddressGone {
            index,
            ip: ip("10.0.0.77"),
            prefix: 32,
        };
        next("lost address", &|c| *c == gone).await;
        lan.unplug(&one).await?;
        next(
            "lost carrier",
            &|c| matches!(c, Change::Link(i) if i.index == index && i.up && !i.carrier),
        )
        .await;
        Ok(())
    });
}

/// Routes with several next hops: added, replaced by one hop, removed without naming it.
async fn several_next_hops(
    netlink: &linux::netlink::Netlink,
    device: u32,
) -> Result<(), linux::netlink::NetlinkError> {
    use linux::netlink::{Hop, Route};
    let hop = |via: &str| Hop {
        via: ip(via),
        device,
    };
    let listed = async |to| {
        let found = netlink.routes().await?;
        let found = found.into_iter().find(|route| route.to == to);
        Ok::<_, linux::netlink::NetlinkError>(found.map(|route| route.next_hops()))
    };
    for (to, prefix, hops) in [
        ("192.0.2.0", 24, [hop("10.0.0.2"), hop("10.0.0.3")]),
        ("198.51.100.0", 24, [hop("10.0.0.2"), hop("fd00::2")]),
        ("2001:db8::", 32, [hop("fd00::2"), hop("fd00::3")]),
    ] {
        let mut route = Route::new(ip(to), prefix);
        route.metric = Some(77);
        route.protocol = 213;
        let several = route.clone().hops(&hops);
        netlink.add_route(&several).await?;
        assert_eq!(listed(route.to).await?, Some(hops.to_vec()), "{to}");
        netlink
            .replace_route(&route.clone().hops(&hops[1..]))
            .await?;
        assert_eq!(listed(route.to).await?, Some(hops[1..].to_vec()), "{to}");
        netlink.replace_route(&several).await?;
        assert_eq!(listed(route.to).await?, Some(hops.to_vec()), "{to}");
        // Another's route to the same place is another one.
        let mut other = route.clone().via(hops[0].via);
        other.metric = Some(78);
        netlink.add_route(&other).await?;
        netlink.del_route_by_key(&route).await?;
        assert_eq!(
            listed(route.to).await?.map(|hops| hops.len()),
            Some(1),
            "{to}"
        );
        let again = netlink.del_route_by_key(&route).await;
        assert!(again.is_err_and(|error| error.is_missing()), "{to}");
        netlink
            .del_route_by_key(&Route {
                protocol: 4,
                ..other.clone()
            })
            .await
            .expect_err("static");
        netlink.del_route(&other).await?;
    }
    Ok(())
}

#[test]
fn routes_and_neighbours_are_kept() {
    lab::run("routes_and_neighbours_are_kept", async |lab| {
        use linux::netlink::Route;
        let (_lan, one, two) = pair(&lab).await?;
        let netlink = one.netlink();
        let mut v4 = Route::new(ip("192.0.2.0"), 24).via(ip("10.0.0.2"));
        v4.metric = Some(50);
        v4.protocol = 213;
        v4.table = 1000;
        let v6 = Route::new(ip("2001:db8::"), 32).via(ip("fd00::2"));
        for route in [&v4, &v6] {
            netlink.add_route(route).await?;
            assert!(netlink.add_route(route).await.is_err_and(|e| e.is_there()));
            let found = netlink.routes().await?;
            let found = found.iter().find(|r| r.to == route.to).expect("listed");
            assert_eq!(
                (found.via, found.protocol, found.table),
                (route.via, route.protocol, route.table)
            );
            netlink.del_route(route).await?;
            assert!(
                netlink
                    .del_route(route)
                    .await
                    .is_err_and(|e| e.is_missing())
            );
        }
        let index = one.interface("eth0").await?.index;
        several_next_hops(netlink, index).await?;
        netlink
            .set_neighbour(index, ip("10.0.0.2"), two.mac("eth0").await?)
            .await?;
        let known = netlink.neighbours().await?;
        let known = known
            .iter()
            .find(|n| n.ip == ip("10.0.0.2"))
            .expect("listed");
        assert_eq!(known.mac, Some(two.mac("eth0").await?));
        let error = netlink.index_of("nothing").await.expect_err("missing");
        assert!(error.is_missing(), "{error}");
        Ok(())
    });
}

#[test]
fn a_segment_s_frames_are_captured() {
    lab::run("a_segment_s_frames_are_captured", async |lab| {
        let (_lan, one, two) = pair(&lab).await?;
        two.serve_http(80)?;
        one.http_get(at(ip("10.0.0.2"), 80), "/a-path-to-look-for")
            .await?;
        // Unicast frames too, and each once.
        let file = lab.dir().join("lan.pcap");
        let count = async || {
            let capture = std::fs::read(&file).unwrap_or_default();
            capture
                .windows(19)
                .filter(|w| w == b"/a-path-to-look-for")
                .count()
        };
        wait_until(SOON, "the request in the capture", async || {
            count().await == 1
        })
        .await?;
        Ok(())
    });
}

/// Tests of failures fail in the expected way where labs are skipped.
fn skip_with(message: &str) {
    let tried = linux::namespace::Sandbox::new("/bin/true").spawn();
    if tried.is_err_and(|e| e.is_denied()) && std::env::var_os("CI").is_none() {
        panic!("skipped, instead of: {message}");
    }
}

#[test]
#[should_panic(expected = "logs and captures: ")]
fn what_hangs_is_ended() {
    skip_with("logs and captures: ");
    // Blocks the only thread: the timeout inside cannot end it, the one outside must.
    lab::run_for(
        "what_hangs_is_ended",
        Duration::from_millis(10),
        async |_lab| {
            loop {
                std::thread::park();
            }
        },
    );
}

#[test]
#[should_panic(expected = "no test has the name")]
fn a_wrong_name_is_no_pass() {
    skip_with("no test has the name");
    lab::run("a_wrong_name", async |_lab| Ok(()));
}

#[test]
fn a_binary_that_is_not_built_is_named() {
    let error = lab::bin("no-such-binary").expect_err("missing").to_string();
    assert!(error.contains("cargo build -p no-such-binary"), "{error}");
}
