//! What stands in the kernel: kept, mended, replaced.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dataplane::nft::{Error, Look, Nft, TABLE};
use linux::nft::{Batch, Data, Element, Socket, TABLE_OWNER, TABLE_PERSIST};
use plan::forward::FrontendKind::{ClusterIp, ExternalIp, LoadBalancer};
use plan::forward::{Detector, Loopback, Sources};
use plan::net::{Family, Protocol};
use plan::world::Policy::Cluster;

use super::lab::{Desired, frontend, key, sandboxed, service};

/// Service ports s0, s1, … with a VIP and a cluster IP each.
fn services(count: u16) -> Desired {
    let one = |n: u16| {
        let [a, b] = n.to_be_bytes();
        let fronts = vec![
            frontend(&format!("10.200.{a}.{b}:80"), LoadBalancer, Cluster),
            frontend(&format!("10.96.{a}.{b}:80"), ClusterIp, Cluster),
        ];
        let key = key(&format!("s{n}"), Protocol::Tcp, Family::V4);
        (key, service(fronts, 2..4, false))
    };
    (0..count).map(one).collect()
}

/// Every element of the table, as text.
fn contents() -> BTreeSet<String> {
    let mut socket = Socket::open().expect("socket");
    let mut found = BTreeSet::new();
    for set in socket.sets(TABLE).expect("sets") {
        socket
            .elements(TABLE, &set, &mut |element| {
                found.insert(format!("{set} {element:?}"));
            })
            .expect("elements");
    }
    found
}

/// Changes the table behind the executor's back, if nobody owns it.
fn try_to_meddle(change: impl FnOnce(&mut Batch)) -> Result<(), linux::nft::Error> {
    let mut batch = Batch::new(TABLE);
    change(&mut batch);
    Socket::open().expect("socket").commit(batch)
}

fn meddle(change: impl FnOnce(&mut Batch)) {
    try_to_meddle(change).expect("the change is accepted");
}

/// A table that anybody can change, as older kernels make all: it stays so when adopted.
fn without_owner() {
    meddle(|batch| {
        batch.add_table(0);
    });
}

/// Flags and owner of the table.
fn table() -> Option<(u32, Option<u32>)> {
    let tables = Socket::open().expect("socket").tables().expect("tables");
    let table = tables.into_iter().find(|table| table.name == TABLE)?;
    Some((table.flags, table.owner))
}

#[test]
fn an_owned_table_is_safe_and_the_next_process_claims_it() {
    sandboxed(
        "state::an_owned_table_is_safe_and_the_next_process_claims_it",
        || {
            let desired = services(5);
            let mut nft = Nft::open().expect("open");
            nft.adopt(&desired).expect("adopt");
            let Some((flags, Some(_))) = table() else {
                return println!("skipped: this kernel has no owned tables that persist (6.9)");
            };
            assert_eq!(flags, TABLE_OWNER | TABLE_PERSIST);
            let refused = try_to_meddle(|batch| {
                batch.delete_table();
            });
            assert!(refused.is_err(), "somebody else deleted it");
            if let Ok(flush) = Command::new("nft").args(["flush", "ruleset"]).status() {
                println!("nft flush ruleset: {flush}");
                assert!(nft.check().expect("check").is_zero(), "flushed");
            }
            let mut second = Nft::open().expect("open");
            let error = second.adopt(&desired).expect_err("two owners");
            assert!(matches!(error, Error::Owned { .. }), "{error}");
            drop(nft);
            assert_eq!(
                table(),
                Some((TABLE_PERSIST, None)),
                "it outlives its owner"
            );
            assert!(second.adopt(&desired).expect("adopt").is_zero());
            assert!(matches!(table(), Some((_, Some(_)))));
            drop(second);
            Nft::open().expect("open").remove().expect("remove");
            assert_eq!(table(), None);
        },
    );
}

/// The name of the set that starts with `prefix`.
fn set(prefix: &str) -> String {
    let sets = Socket::open().expect("socket").sets(TABLE).expect("sets");
    let mut found = sets.into_iter().filter(|name| name.starts_with(prefix));
    found.next().expect("the set is there")
}

#[test]
fn a_restart_writes_nothing() {
    sandboxed("state::a_restart_writes_nothing", || {
        let mut desired = services(300);
        let large = key("large", Protocol::Udp, Family::V6);
        let front = frontend("[fd00::101]:53", LoadBalancer, Cluster);
        desired.insert(large, service(vec![front], 2..100, true));
        let mut nft = Nft::open().expect("open");
        let report = nft.adopt(&desired).expect("adopt");
        assert!(report.rules_replaced && report.batches > 1, "{report:?}");
        let before = contents();
        drop(nft);
        let mut nft = Nft::open().expect("open again");
        let report = nft.adopt(&desired).expect("adopt again");
        assert!(report.is_zero(), "{report:?}");
        assert_eq!((report.added, report.removed), (0, 0));
        assert_eq!(contents(), before);
    });
}

#[test]
fn a_change_is_one_small_batch() {
    sandboxed("state::a_change_is_one_small_batch", || {
        let desired = services(51);
        let name = key("s50", Protocol::Tcp, Family::V4);
        let mut port = desired[&name].clone();
        let mut nft = Nft::open().expect("open");
        nft.adopt(&services(50)).expect("adopt");
        // A new Service: two fronts, two slots, one cluster IP; its endpoints are known.
        let added = nft
            .apply(&[(name.clone(), Some(port.clone()))])
            .expect("apply");
        assert_eq!((added.batches, added.added, added.removed), (1, 5, 0));
        // An endpoint more, of this node: its slot and its hairpin, and the two fronts' class.
        let more = "10.1.0.77:8080".parse().expect("socket");
        port.cluster.push(more);
        port.local.push(more);
        let grown = nft.apply(&[(name.clone(), Some(port))]).expect("apply");
        assert_eq!((grown.batches, grown.added, grown.removed), (1, 4, 2));
        let gone = nft.apply(&[(name, None)]).expect("apply");
        assert_eq!((gone.batches, gone.added, gone.removed), (1, 0, 7));
        assert!(nft.check().expect("check").is_zero());
    });
}

/// Changes by apply end where adopting the result from nothing ends.
#[test]
fn steps_equal_adoption() {
    sandboxed("state::steps_equal_adoption", || {
        let desired = services(40);
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        let mut changes = Vec::new();
        for (number, (key, port)) in desired.iter().enumerate() {
            let mut port = port.clone();
            match number % 4 {
                0 => changes.push((key.clone(), None)),
                1 => {
                    port.cluster.remove(0);
                    changes.push((key.clone(), Some(port)));
                }
                2 => {
                    // Twice in one call, with a value that changes and changes back.
                    let mut empty = port.clone();
                    empty.cluster.clear();
                    changes.push((key.clone(), Some(empty)));
                    port.source_ranges = vec!["192.0.2.0/24".parse().expect("range")];
                    changes.push((key.clone(), Some(port)));
                }
                _ => {}
            }
        }
        let report = nft.apply(&changes).expect("apply");
        assert_eq!(report.batches, 1, "{report:?}");
        let stepwise = contents();
        let mut result = desired;
        for (key, port) in changes {
            match port {
                Some(port) => result.insert(key, port),
                None => result.remove(&key),
            };
        }
        nft.remove().expect("remove");
        nft.adopt(&result).expect("adopt");
        assert_eq!(contents(), stepwise);
    });
}

#[test]
fn what_others_break_is_mended() {
    sandboxed("state::what_others_break_is_mended", || {
        without_owner();
        let desired = services(20);
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        let right = contents();
        type Break = (&'static str, fn(&mut Batch));
        let breaks: [Break; 6] = [
            ("rules deleted", |b| {
                b.delete_rules();
            }),
            ("elements flushed", |b| {
                b.flush_set(&set("slot4"));
            }),
            ("constant map emptied", |b| {
                b.flush_set(&set("fate"));
            }),
            ("foreign element", |b| {
                let key = [10, 0, 0, 1];
                let element = Element {
                    key: &key,
                    key_end: None,
                    data: Data::None,
                };
                b.add_elements(&set("clusterip4"), [element]);
            }),
            ("value changed", |b| {
                // Front 10.200.0.3:80/TCP, to a class that exists and slots that do not.
                let key = [10, 200, 0, 3, 6, 0, 0, 0, 0, 80, 0, 0];
                let element = |data| Element {
                    key: &key,
                    key_end: None,
                    data,
                };
                b.delete_elements(&set("front4"), [element(Data::None)]);
                b.add_elements(&set("front4"), [element(Data::Value(&[1; 16]))]);
            }),
            ("table deleted", |b| {
                b.delete_table();
            }),
        ];
        for (name, change) in breaks {
            assert_eq!(nft.look().expect("look"), Look::Untouched, "before: {name}");
            meddle(change);
            let seen = nft.look().expect("look");
            let of_elements = ["elements flushed", "foreign element", "value changed"];
            match of_elements.contains(&name) {
                true => assert_eq!(seen, Look::Uncertain, "{name}"),
                false => assert_eq!(seen, Look::Broken, "{name}"),
            }
            let report = nft.check().expect("check");
            assert!(!report.is_zero(), "{name} goes unnoticed");
            assert_eq!(contents(), right, "{name}");
            assert!(nft.check().expect("check").is_zero(), "{name}");
        }
    });
}

/// Others' transactions are told from our own, and cost no comparison of all.
#[test]
fn a_look_tells_others_from_ourselves() {
    sandboxed("state::a_look_tells_others_from_ourselves", || {
        without_owner();
        let mut desired = services(41);
        let (last, port) = desired.pop_last().expect("one");
        let mut nft = Nft::open().expect("open");
        assert_eq!(
            nft.look().expect("look"),
            Look::Untouched,
            "nothing is known yet"
        );
        nft.adopt(&desired).expect("adopt");
        assert_eq!(nft.look().expect("look"), Look::Untouched);
        nft.apply(&[(last, Some(port))]).expect("apply");
        assert_eq!(nft.look().expect("look"), Look::Untouched, "our own change");
        for flags in [0, 0, 0] {
            let mut batch = Batch::new("other");
            batch.add_table(flags);
            batch.delete_table();
            Socket::open()
                .expect("socket")
                .commit(batch)
                .expect("commit");
            assert_eq!(nft.look().expect("look"), Look::Uncertain);
            assert_eq!(
                nft.look().expect("look"),
                Look::Uncertain,
                "until all is compared"
            );
        }
        assert!(nft.check().expect("check").is_zero());
        assert_eq!(nft.look().expect("look"), Look::Untouched);
    });
}

/// A change after somebody's `flush ruleset` restores everything, not only itself.
#[test]
fn a_change_after_a_flush_restores_all() {
    sandboxed("state::a_change_after_a_flush_restores_all", || {
        without_owner();
        let mut desired = services(21);
        let (last, port) = desired.pop_last().expect("one");
        let mut nft = Nft::open().expect("open");
        nft.adopt(&desired).expect("adopt");
        meddle(|batch| {
            batch.delete_table();
        });
        let report = nft.apply(&[(last, Some(port))]).expect("apply");
        assert!(report.rules_replaced, "{report:?}");
        assert!(report.refused.is_empty(), "{report:?}");
        assert!(nft.check().expect("check").is_zero());
    });
}

/// What an older version left: its rules go, its sets with another schema go, equal sets stay.
#[test]
fn another_versions_rules_are_swapped_and_equal_sets_kept() {
    sandboxed(
        "state::another_versions_rules_are_swapped_and_equal_sets_kept",
        || {
            without_owner();
            let desired = services(20);
            let mut nft = Nft::open().expect("open");
            nft.adopt(&desired).expect("adopt");
            let right = contents();
            drop(nft);
            meddle(|batch| {
                batch.delete_rules();
                batch.add_rule("nat-prerouting", &[], b"of another version");
                batch.add_chain(&linux::nft::ChainSpec {
                    name: "old".to_owned(),
                    base: None,
                });
                batch.add_set(&linux::nft::SetSpec {
                    name: "front4-00000000".to_owned(),
                    key_type: 7,
                    fields: vec![4],
                    shape: linux::nft::Shape::Key,
                    intervals: false,
                    dynamic: 0,
                });
                let element = Element {
                    key: &[10, 0, 0, 1],
                    key_end: None,
                    data: Data::None,
                };
                batch.add_elements("front4-00000000", [element]);
                batch.delete_set(&set("front4"));
            });
            let mut nft = Nft::open().expect("open");
            let report = nft.adopt(&desired).expect("adopt");
            // The fronts are written anew, slots and all others are not.
            assert_eq!((report.added, report.removed), (40, 0), "{report:?}");
            assert!(report.rules_replaced);
            assert_eq!(contents(), right);
        },
    );
}

#[test]
fn of_two_services_with_one_address_one_is_refused_by_name() {
    sandboxed(
        "state::of_two_services_with_one_address_one_is_refused_by_name",
        || {
            let mut desired = services(3);
            let thief = key("thief", Protocol::Tcp, Family::V4);
            let fronts = vec![
                frontend("10.200.0.1:80", ExternalIp, Cluster),
                frontend("10.200.99.1:80", ExternalIp, Cluster),
            ];
            let mut nft = Nft::open().expect("open");
            nft.adopt(&desired).expect("adopt");
            let port = service(fronts, 5..6, true);
            let report = nft
                .apply(&[(thief.clone(), Some(port.clone()))])
                .expect("apply");
            let reason =
                "10.200.0.1:80/TCP is taken by default/s1:p/TCP/IPv4; give one of the two \
                          another address or port"
                    .to_owned();
            assert_eq!(report.refused, [(thief.clone(), reason)]);
            // Its other address works: one front, one slot, one hairpin.
            assert_eq!((report.batches, report.added), (1, 3));
            // It inherits the address.
            let holder = key("s1", Protocol::Tcp, Family::V4);
            let report = nft.apply(&[(holder.clone(), None)]).expect("apply");
            assert!(
                report.refused.is_empty() && report.batches == 1,
                "{report:?}"
            );
            desired.remove(&holder);
            desired.insert(thief, port);
            let stepwise = contents();
            nft.remove().expect("remove");
            nft.adopt(&desired).expect("adopt");
            assert_eq!(contents(), stepwise);
        },
    );
}

/// The kernel itself refuses Services' elements: somebody left a set of ours with room for two
/// cluster IPs. Who found no room is left out and named, the others work; room that is left is taken.
#[test]
fn services_that_the_kernel_has_no_room_for_are_left_out_and_named() {
    sandboxed(
        "state::services_that_the_kernel_has_no_room_for_are_left_out_and_named",
        || {
            without_owner();
            let mut nft = Nft::open().expect("open");
            nft.adopt(&services(0)).expect("adopt");
            let sets = Socket::open().expect("socket").sets(TABLE).expect("sets");
            let set = sets.iter().find(|name| name.starts_with("clusterip4"));
            let name = set.expect("a set of cluster IPs").clone();
            nft.remove().expect("remove");
            drop(nft);
            meddle(|batch| {
                batch.add_table(0);
                batch.add_set(&linux::nft::SetSpec {
                    name: name.clone(),
                    key_type: 7,
                    fields: vec![4],
                    shape: linux::nft::Shape::Key,
                    intervals: false,
                    dynamic: 2,
                });
            });
            let mut nft = Nft::open().expect("open");
            let report = nft.adopt(&services(4)).expect("the others");
            let named = |report: &dataplane::nft::Report| -> Vec<String> {
                let refused = report.refused.iter();
                refused
                    .map(|(key, why)| {
                        // ENFILE
                        let words = "the kernel refuses it (Too many open files in system";
                        assert!(why.starts_with(words), "{why}");
                        key.service.name.to_string()
                    })
                    .collect()
            };
            assert_eq!(named(&report), ["s2", "s3"]);
            // Two fronts each, and nothing of those that were refused.
            let fronts = || {
                contents()
                    .iter()
                    .filter(|it| it.starts_with("front4"))
                    .count()
            };
            assert_eq!(fronts(), 4);
            let gone = key("s0", Protocol::Tcp, Family::V4);
            let report = nft.apply(&[(gone, None)]).expect("apply");
            assert_eq!(named(&report), ["s3"]);
            assert_eq!(fronts(), 4);
        },
    );
}

#[test]
fn removal_leaves_nothing_and_may_be_repeated() {
    sandboxed("state::removal_leaves_nothing_and_may_be_repeated", || {
        let mut nft = Nft::open().expect("open");
        nft.remove().expect("nothing to remove");
        nft.adopt(&services(3)).expect("adopt");
        nft.remove().expect("remove");
        let tables = Socket::open().expect("socket").tables().expect("tables");
        assert!(tables.is_empty(), "{tables:?}");
    });
}

const LOADER: &str = "CORTEN_TEST_LOADER";
const LOADED: u16 = 20_000;

/// Not a test by itself: the process that the next one kills.
#[test]
fn loader() {
    if std::env::var_os(LOADER).is_none() {
        return;
    }
    let mut nft = Nft::open().expect("open");
    nft.adopt(&services(LOADED)).expect("adopt");
}

/// Elements of a set that are there, as far as they can be read while it changes.
fn seen(set: &str) -> usize {
    let mut count = 0;
    let mut socket = Socket::open().expect("socket");
    // Not there yet, or changing: what was read before the error is there.
    let _ = socket.elements(TABLE, set, &mut |_| count += 1);
    count
}

/// Kills a loader that has loaded something; the set of fronts, and how many of them it has.
fn killed_load() -> (String, usize) {
    let mut loader = Command::new(std::env::current_exe().expect("own path"))
        .args(["state::loader", "--exact"])
        .env(LOADER, "1")
        .stdout(Stdio::null())
        .spawn()
        .expect("start");
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut socket = Socket::open().expect("socket");
    let mut fronts: Option<String> = None;
    while fronts.as_ref().is_none_or(|set| seen(set) == 0) {
        assert!(Instant::now() < deadline, "nothing was loaded");
        let sets = socket.sets(TABLE).unwrap_or_default();
        fronts = sets.into_iter().find(|name| name.starts_with("front4"));
    }
    loader.kill().expect("kill");
    loader.wait().expect("wait");
    let fronts = fronts.expect("the set is there");
    let count = seen(&fronts);
    (fronts, count)
}

/// Killed in the middle of the first load, the next start finishes the work.
#[test]
fn a_killed_load_is_finished() {
    sandboxed("state::a_killed_load_is_finished", || {
        let all = 2 * usize::from(LOADED);
        let desired = services(LOADED);
        // On a busy machine the load may be over before anybody sees that it has begun.
        let fronts = (0..10).find_map(|_| {
            let (fronts, before) = killed_load();
            if before < all {
                return Some(fronts);
            }
            Nft::open().expect("open").remove().expect("remove");
            None
        });
        let fronts = fronts.expect("the load was always over before it was killed");
        let mut nft = Nft::open().expect("open");
        let report = nft.adopt(&desired).expect("adopt");
        assert!(!report.rules_replaced && report.removed == 0, "{report:?}");
        assert_eq!(seen(&fronts), all);
        assert!(nft.check().expect("check").is_zero());
    });
}

/// The nft program, where it is installed, reads the table and finds it as it is meant.
#[test]
fn the_nft_program_understands_the_table() {
    sandboxed("state::the_nft_program_understands_the_table", || {
        let mut nft = Nft::open().expect("open");
        let mut desired = services(2);
        for port in desired.values_mut() {
            port.affinity_seconds = Some(10_800);
        }
        let sources = Sources {
            detector: Detector::ClusterCidr(
                ["10.244.0.0/20", "fd00:244::/56"]
                    .map(|range| range.parse().expect("range"))
                    .to_vec(),
            ),
            masquerade_all: false,
        };
        let mut locality = sources.on(None);
        locality.loopback = Loopback {
            v4: Some([10, 200, 0, 9].into()),
            v6: Some("fd00::9".parse().expect("an address")),
        };
        nft.set_locality(locality);
        nft.adopt(&desired).expect("adopt");
        let output = match Command::new("nft").args(["list", "ruleset"]).output() {
            Ok(output) => output,
            Err(error) => return println!("skipped: nft: {error}"),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        for expected in [
            "table inet corten",
            "type nat hook prerouting priority dstnat - 5; policy accept;",
            "type nat hook postrouting priority srcnat; policy accept;",
            "10.200.0.1 . tcp . 80",
            "masquerade fully-random",
            "comment \"pick a slot",
            "goto pick-2",
            "comment \"session affinity",
            "comment \"client seen before",
            "comment \"for 10800 s",
            "ip saddr 10.244.0.0/20",
            "comment \"local Pods keep their address",
            "ip saddr set 10.200.0.9",
            "ip6 saddr set fd00::9",
            "ip daddr set ct reply ip daddr",
            "tcp dport set ct original proto-src",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let json = Command::new("nft").args(["-j", "list", "ruleset"]).output();
        let json = json.expect("as before");
        assert!(
            json.status.success(),
            "{}",
            String::from_utf8_lossy(&json.stderr)
        );
    });
}

#[test]
fn without_the_right_it_says_which() {
    sandboxed("state::without_the_right_it_says_which", || {
        // A thread of a user that is nobody, in the same namespace.
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups", "--bounding-set=-all"])
            .arg(std::env::current_exe().expect("own path"))
            .args(["state::unprivileged", "--exact", "--nocapture"])
            .env(LOADER, "1")
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => return println!("skipped: setpriv: {error}"),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.code() == Some(127) {
            return println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(output.status.success(), "{text}");
    });
}

/// Not a test by itself: the process without rights.
#[test]
fn unprivileged() {
    if std::env::var_os(LOADER).is_none() {
        return;
    }
    assert!(matches!(Nft::open(), Err(Error::Denied)));
}
