//! What kube-proxy leaves goes, and nothing else does. (The real one: `crates/lab/tests/realcluster`.)

use std::io::Write as _;
use std::process::{Command, Stdio};

use dataplane::leftovers::Leftovers;
use dataplane::nft::Nft;
use plan::forward::FrontendKind::{ClusterIp, LoadBalancer};
use plan::net::{Family, Protocol};
use plan::world::Policy::Cluster;

use super::lab::{Desired, frontend, key, sandboxed, service};

/// What a program prints; `None` where it is not installed.
fn run(program: &str, arguments: &str, stdin: &str) -> Option<String> {
    let mut command = Command::new(program);
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut pipe = child.stdin.take().expect("stdin");
    pipe.write_all(stdin.as_bytes()).expect("written");
    drop(pipe);
    let output = child.wait_with_output().expect("output");
    assert!(output.status.success(), "{program} {arguments}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ruleset() -> String {
    run("nft", "-s list ruleset", "").expect("nft is installed")
}

/// The kubelet's, a CNI's and an administrator's.
const OTHERS: &str = "*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-ROUTER-SERVICES - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -j KUBE-ROUTER-SERVICES
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -j KUBE-NWPLCY-DEFAULT
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
";

/// Names of kube-proxy's where it has none.
const FOREIGN: &str = "table inet kube-proxy {
    chain x { type filter hook input priority 0; tcp dport 1 drop; }
}
table ip other {
    chain KUBE-SERVICES { drop; }
    chain y { type filter hook input priority 5; tcp dport 2 goto KUBE-SERVICES; }
}
";

/// kube-proxy's in its iptables and IPVS modes.
const LEFT: &str = "*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-EXT-ERIFXISQEP7F7OF4 - [0:0]
:KUBE-FW-ERIFXISQEP7F7OF4 - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-6RLR7GMXHKSBV5ON - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ERIFXISQEP7F7OF4 - [0:0]
-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d SERVICE -p tcp -m tcp --dport 80 -j KUBE-SVC-ERIFXISQEP7F7OF4
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-ERIFXISQEP7F7OF4
-A KUBE-EXT-ERIFXISQEP7F7OF4 -j KUBE-MARK-MASQ
-A KUBE-EXT-ERIFXISQEP7F7OF4 -j KUBE-SVC-ERIFXISQEP7F7OF4
-A KUBE-FW-ERIFXISQEP7F7OF4 -j KUBE-MARK-DROP
-A KUBE-SVC-ERIFXISQEP7F7OF4 -j KUBE-SEP-6RLR7GMXHKSBV5ON
-A KUBE-SEP-6RLR7GMXHKSBV5ON -p tcp -m tcp -j DNAT --to-destination ENDPOINT
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-I INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-I INPUT -j KUBE-IPVS-FILTER
-I FORWARD -j KUBE-FORWARD
-I FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-I OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-SERVICES -d SERVICE -p tcp -m tcp --dport 81 -j REJECT
COMMIT
";

/// Its own table in nftables mode, with what refers to chains.
const TABLE: &str = "{
    set cluster-ips { type ADDRESS; }
    map service-ips { type ADDRESS . inet_proto . inet_service : verdict; }
    map no-endpoint-services { type ADDRESS . inet_proto . inet_service : verdict; }
    chain reject-chain { reject; }
    chain endpoint-A { counter; }
    chain service-A { numgen random mod 1 vmap { 0 : goto endpoint-A } ; }
    chain services { ip daddr SERVICE tcp dport 80 goto service-A; }
    chain filter-input { type filter hook input priority -110; goto reject-chain; }
    chain nat-output { type nat hook output priority -100; jump services; }
}
";

const PROGRAMS: [(&str, &str, &str); 2] = [
    ("iptables-nft", "10.96.0.10", "10.244.1.2:80"),
    ("ip6tables-nft", "fd96::10", "[fd10::2]:80"),
];

fn corten() -> Desired {
    let fronts = vec![
        frontend("10.200.0.1:80", LoadBalancer, Cluster),
        frontend("10.96.0.1:80", ClusterIp, Cluster),
    ];
    let key = key("web", Protocol::Tcp, Family::V4);
    Desired::from([(key, service(fronts, 2..4, false))])
}

/// False where iptables-nft is not installed.
fn others() -> bool {
    run("nft", "-f -", FOREIGN).expect("nft is installed");
    PROGRAMS
        .iter()
        .all(|(program, ..)| run(&format!("{program}-restore"), "", OTHERS).is_some())
}

fn leave() {
    for (program, service, endpoint) in PROGRAMS {
        let text = LEFT
            .replace("SERVICE -p", &format!("{service} -p"))
            .replace("ENDPOINT", endpoint);
        run(&format!("{program}-restore"), "--noflush", &text);
    }
    for (family, name, address) in [
        ("ip", "ipv4_addr", "10.96.0.10"),
        ("ip6", "ipv6_addr", "fd96::10"),
    ] {
        let table = TABLE.replace("ADDRESS", name);
        let table = table.replace("ip daddr SERVICE", &format!("{family} daddr {address}"));
        run("nft", "-f -", &format!("table {family} kube-proxy {table}"));
    }
    run("ip", "link add kube-ipvs0 type bridge", "");
    run("ip", "link set kube-ipvs0 up", "");
    run("ip", "address add 10.96.0.10/32 dev kube-ipvs0", "");
}

#[test]
fn all_of_kube_proxys_goes_and_all_else_stays() {
    let name = "leftovers::all_of_kube_proxys_goes_and_all_else_stays";
    sandboxed(name, || {
        let mut nft = Nft::open().expect("open");
        nft.adopt(&corten()).expect("adopt");
        if !others() {
            return println!("skipped: no iptables-nft here");
        }
        let before = ruleset();
        assert!(Leftovers::find().expect("find").is_empty());

        leave();
        assert_ne!(ruleset(), before);
        let found = Leftovers::find().expect("find");
        assert!(!found.is_empty());
        assert_eq!(found.kept(), [""; 0]);
        assert_eq!(found.out_of_reach(), [""; 0]);
        let lines = [
            "nftables: table ip kube-proxy",
            "nftables: table ip6 kube-proxy",
            "iptables: 11 chains of table ip nat, 3 rules that led there",
            "iptables: 6 chains of table ip filter, 5 rules that led there",
            "iptables: 1 chain of table ip mangle, 0 rules that led there",
            "iptables: 11 chains of table ip6 nat, 3 rules that led there",
            "iptables: 6 chains of table ip6 filter, 5 rules that led there",
            "iptables: 1 chain of table ip6 mangle, 0 rules that led there",
            "IPVS: interface kube-ipvs0",
        ];
        assert_eq!(found.lines(), lines);

        assert_eq!(Leftovers::clean().expect("clean"), found);
        assert_eq!(ruleset(), before);
        let links = run("ip", "-o link", "").expect("ip is installed");
        assert!(!links.contains("kube-ipvs0"), "{links}");
        // Again is nothing.
        let nothing = Leftovers::clean().expect("clean");
        assert!(nothing.is_empty() && nothing.lines().is_empty());
        assert_eq!(ruleset(), before);
        // What was seen is not what is there any more: nothing is removed by halves.
        leave();
        let seen = Leftovers::find().expect("find");
        run("nft", "delete table ip6 kube-proxy", "");
        let changed = ruleset();
        assert!(!seen.remove().expect("asked"));
        assert_eq!(ruleset(), changed);
        Leftovers::clean().expect("clean");
        assert_eq!(ruleset(), before);
        assert!(nft.check().expect("check").is_zero(), "Corten's own");
    });
}

#[test]
fn what_others_rules_need_stays() {
    sandboxed("leftovers::what_others_rules_need_stays", || {
        if !others() {
            return println!("skipped: no iptables-nft here");
        }
        leave();
        let rule = "-t nat -A CNI-HOSTPORT-DNAT -p tcp -j KUBE-MARK-MASQ";
        run("iptables-nft", rule, "");
        // Known by the kernel's count alone.
        let map = "add map ip filter m { type inet_service : verdict; \
                   elements = { 80 : jump KUBE-FORWARD }; }";
        run("nft", "-f -", &format!("{map}\n"));
        let removed = Leftovers::clean().expect("clean");
        let kept = removed.kept().join("\n");
        let wanted =
            "chain KUBE-MARK-MASQ of table ip nat: a rule in chain CNI-HOSTPORT-DNAT leads there
chain KUBE-POSTROUTING of table ip nat: chain KUBE-MARK-MASQ stays
chain KUBE-FORWARD of table ip filter: a map leads there";
        assert_eq!(kept, wanted);
        let left = run("iptables-nft", "-t nat -S", "").expect("iptables-nft");
        for line in [
            "-A CNI-HOSTPORT-DNAT -p tcp -j KUBE-MARK-MASQ",
            "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
            "-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
        ] {
            assert!(left.lines().any(|it| it == line), "{line} is not in {left}");
        }
        assert!(!left.contains("KUBE-SERVICES"), "{left}");
        assert!(Leftovers::find().expect("find").is_empty());
    });
}

#[test]
fn what_only_iptables_legacy_can_remove_is_said() {
    let name = "leftovers::what_only_iptables_legacy_can_remove_is_said";
    sandboxed(name, || {
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            let text = OTHERS.replace("-m addrtype --dst-type LOCAL", "");
            if run(&format!("{program}-restore"), "", &text).is_none() {
                return println!("skipped: no {program} here");
            }
        }
        let saved = || {
            ["iptables-legacy-save", "ip6tables-legacy-save"].map(|program| {
                let lines = run(program, "", "").expect("saved");
                let lines = lines.lines().filter(|line| !line.starts_with(['#', ':']));
                lines.map(|line| format!("{line}\n")).collect::<String>()
            })
        };
        let before = saved();
        assert!(Leftovers::find().expect("find").is_empty());
        for ((_, service, endpoint), program) in PROGRAMS
            .into_iter()
            .zip(["iptables-legacy", "ip6tables-legacy"])
        {
            let text = LEFT
                .replace("SERVICE -p", &format!("{service} -p"))
                .replace("ENDPOINT", endpoint);
            run(&format!("{program}-restore"), "--noflush", &text);
        }
        let found = Leftovers::clean().expect("clean");
        assert!(found.is_removable_empty() && !found.is_empty());
        let said = found.out_of_reach();
        assert_eq!(said.len(), 6, "{said:?}");
        for line in &said {
            let (_, remedy) = line.split_once("on this node: ").expect("a remedy");
            let status = Command::new("sh").args(["-ec", remedy]).status();
            assert!(status.expect("sh").success(), "{remedy}");
        }
        assert!(Leftovers::find().expect("find").is_empty());
        assert_eq!(saved(), before);
    });
}
