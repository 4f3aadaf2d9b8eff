use linux::netlink::LinkFlags;

use super::*;

fn interface(index: u32, name: &str) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        carrier: true,
        flags: LinkFlags {
            broadcast: true,
            ..LinkFlags::default()
        },
        master: None,
        mtu: 1500,
        addresses: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn route(to: &str, device: u32) -> Route {
    let (to, length) = to.split_once('/').expect("a prefix");
    Route::new(ip(to), length.parse().expect("a length")).device(device)
}

fn metric(route: Route, metric: u32) -> Route {
    Route {
        metric: Some(metric),
        ..route
    }
}

fn choice(interfaces: &[&str]) -> Choice {
    let interfaces = interfaces.iter().map(|it| it.parse().expect("good"));
    Choice {
        interfaces: interfaces.collect(),
        ..Choice::default()
    }
}

/// Two uplinks with default routes of two metrics, and a Pod's route.
fn host() -> (Vec<Interface>, Vec<Route>) {
    let interfaces = vec![
        interface(1, "eth0"),
        interface(2, "eth1"),
        interface(3, "veth1"),
    ];
    let routes = vec![
        metric(route("0.0.0.0/0", 1).via(ip("10.0.0.1")), 100),
        metric(route("0.0.0.0/0", 2).via(ip("10.9.0.2")), 300),
        metric(route("0.0.0.0/0", 2).via(ip("10.9.0.1")), 200),
        route("10.0.0.0/24", 1),
        route("10.9.0.0/24", 2),
        route("172.16.0.0/12", 2).via(ip("10.9.0.3")),
        route("10.244.1.2/32", 3),
        metric(route("fe80::/64", 2), 256),
        metric(route("::/0", 2).via(ip("fe80::1")), 1024),
    ];
    (interfaces, routes)
}

fn shown(wanted: &Wanted) -> Vec<String> {
    let routes = wanted.routes.iter();
    routes
        .map(|(key, way)| way.route(*key).to_string())
        .collect()
}

fn plan(choice: &Choice, interfaces: &[Interface], routes: &[Route]) -> Wanted {
    Wanted::new(choice, interfaces, routes, &mut Numbers::default())
}

#[test]
fn a_table_has_what_leads_over_its_interface_and_the_best_of_each() {
    let (interfaces, routes) = host();
    let wanted = plan(&choice(&["eth1"]), &interfaces, &routes);
    assert_eq!(
        shown(&wanted),
        [
            "0.0.0.0/0 via 10.9.0.1 on link 2 in table 15501",
            "10.9.0.0/24 on link 2 in table 15501",
            "172.16.0.0/12 via 10.9.0.3 on link 2 in table 15501",
            "::/0 via fe80::1 on link 2 in table 15501",
            "fe80::/64 on link 2 in table 15501",
        ]
    );
    assert_eq!(wanted.links, BTreeMap::from([(2, 0x0100_0000)]));
    let rules: Vec<String> = wanted.rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        [
            "155: fwmark 0x1000000/0xf000000 lookup 15501 (IPv4)",
            "155: fwmark 0x1000000/0xf000000 lookup 15501 (IPv6)"
        ]
    );
    assert_eq!(wanted.troubles, [""; 0]);
    assert_eq!(wanted.beside_default, ["eth1"]);
    // What the kernel has when it is done says the same.
    let made: Vec<Route> = wanted
        .routes
        .iter()
        .map(|(key, way)| way.route(*key))
        .collect();
    assert_eq!(ours(&made), wanted.routes);
    let again = plan(&choice(&["eth1"]), &interfaces, &[routes, made].concat());
    assert_eq!(again, wanted, "our own routes teach nothing");
}

#[test]
fn a_gateway_is_given_or_found_in_another_table_or_missed() {
    let (interfaces, mut routes) = host();
    routes.retain(|route| route.to.1 != 0 || route.device != Some(2));
    let default = |wanted: &Wanted| {
        let mut shown = shown(wanted).into_iter();
        shown.find(|line| line.starts_with("0.0.0.0/0"))
    };
    let wanted = plan(&choice(&["eth1"]), &interfaces, &routes);
    assert_eq!(default(&wanted), None);
    assert!(
        wanted.troubles.concat().contains("eth1=ADDRESS"),
        "{wanted:?}"
    );

    let mut other = route("0.0.0.0/0", 2).via(ip("10.9.0.7"));
    other.table = 100;
    routes.push(other);
    let wanted = plan(&choice(&["eth1"]), &interfaces, &routes);
    let found = "0.0.0.0/0 via 10.9.0.7 on link 2 in table 15501";
    assert_eq!(default(&wanted).as_deref(), Some(found));

    let wanted = plan(&choice(&["eth1=10.9.0.8"]), &interfaces, &routes);
    let given = "0.0.0.0/0 via 10.9.0.8 on link 2 in table 15501";
    assert_eq!(default(&wanted).as_deref(), Some(given));
    assert_eq!(wanted.troubles, [""; 0]);
}

#[test]
fn of_several_next_hops_those_on_the_interface_count() {
    let (interfaces, mut routes) = host();
    let hop = |via: &str, device| Hop {
        via: ip(via),
        device,
    };
    let mut spread = route("198.51.100.0/24", 1);
    spread.device = None;
    spread.multipath = vec![hop("10.0.0.1", 1), hop("10.9.0.2", 2), hop("10.9.0.1", 2)];
    routes.push(spread);
    let wanted = plan(&choice(&["*"]), &interfaces, &routes);
    let lines = shown(&wanted);
    let to: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with("198"))
        .collect();
    assert_eq!(
        to,
        [
            "198.51.100.0/24 via 10.0.0.1 on link 1 in table 15501",
            "198.51.100.0/24 via 10.9.0.1 on link 2 via 10.9.0.2 on link 2 in table 15502",
        ]
    );
    assert_eq!(wanted.links.len(), 2, "a Pod's end is no uplink");
    assert_eq!(wanted.beside_default, ["eth1"]);
}

#[test]
fn an_interface_keeps_its_number() {
    let (mut interfaces, routes) = host();
    let mut numbers = Numbers::default();
    numbers.adopt(&interfaces, [(2, 3), (9, 1), (1, 3), (1, 16)], &[]);
    let choice = choice(&["*"]);
    let marks = |interfaces: &[Interface], numbers: &mut Numbers| {
        let links = Wanted::new(&choice, interfaces, &routes, numbers).links;
        links
            .into_values()
            .map(|mark| choice.mask.number(mark))
            .collect::<Vec<_>>()
    };
    assert_eq!(marks(&interfaces, &mut numbers), [1, 3]);
    // It goes and comes back under another index.
    let away = interfaces.remove(1);
    assert_eq!(marks(&interfaces, &mut numbers), [1]);
    interfaces.push(Interface { index: 8, ..away });
    assert_eq!(marks(&interfaces, &mut numbers), [1, 3]);
    // Routes tell it where marks do not.
    let mut left = route("10.9.0.0/24", 8);
    (left.table, left.protocol) = (15_504, PROTOCOL);
    let mut numbers = Numbers::default();
    numbers.adopt(&interfaces, [], &[left]);
    assert_eq!(marks(&interfaces, &mut numbers), [1, 4]);
}

#[test]
fn more_interfaces_than_numbers_are_said_and_numbers_are_used_again() {
    let choice = Choice {
        mask: "0x3".parse().expect("good"),
        ..choice(&["*"])
    };
    let mut interfaces: Vec<_> = (1..=4).map(|n| interface(n, &format!("eth{n}"))).collect();
    let mut numbers = Numbers::default();
    let wanted = Wanted::new(&choice, &interfaces, &[], &mut numbers);
    assert_eq!(wanted.links, BTreeMap::from([(1, 1), (2, 2), (3, 3)]));
    assert!(wanted.troubles.concat().contains("than eth4"), "{wanted:?}");
    interfaces.remove(1);
    let wanted = Wanted::new(&choice, &interfaces, &[], &mut numbers);
    assert_eq!(wanted.links, BTreeMap::from([(1, 1), (3, 3), (4, 2)]));
}

#[test]
fn a_table_of_the_internet_is_cut_short() {
    let (interfaces, mut routes) = host();
    for n in 0..3000u32 {
        let to = Ipv4Addr::from(0x4000_0000 + (n << 8));
        routes.push(Route::new(to.into(), 24).device(2).via(ip("10.9.0.1")));
    }
    let wanted = plan(&choice(&["eth1"]), &interfaces, &routes);
    assert_eq!(wanted.routes.len(), MOST + 4);
    let lines = shown(&wanted);
    assert!(lines.iter().any(|line| line.starts_with("172.16.0.0/12")));
    assert!(lines.iter().any(|line| line.starts_with("0.0.0.0/0")));
}
