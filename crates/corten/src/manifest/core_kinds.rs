//! What the API server would refuse in Services and `EndpointSlices`, which have no CRD schema:
//! as much of it as Corten depends on, with the API server's messages.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::core::{AddressType, EndpointSlice, IntOrString, Service, ServiceType};
use api::object::Object;

/// Tells of a field: its path, what is wrong, what to do.
type Add<'a> = dyn FnMut(&str, String, &str) + 'a;

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

pub(super) fn check(object: &Object, add: &mut Add<'_>) {
    match object {
        Object::Service(service) => check_service(service, add),
        Object::EndpointSlice(slice) => endpoint_slice(slice, add),
        _ => {}
    }
}

fn check_service(service: &Service, add: &mut Add<'_>) {
    let spec = &service.spec;
    let headless = spec.cluster_ip == "None";
    if spec.ports.is_empty() && !headless && spec.type_ != ServiceType::ExternalName {
        add(
            "spec.ports",
            "Required value".to_owned(),
            "give the Service a port",
        );
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        if port.port == 0 {
            add(
                &format!("{field}.port"),
                format!("Invalid value: 0: {PORT_RANGE}"),
                "choose a port",
            );
        }
        if port.target_port == Some(IntOrString::Int(0)) {
            let message = format!("Invalid value: 0: {PORT_RANGE}");
            add(&format!("{field}.targetPort"), message, "choose a port");
        }
        if port.name.is_empty() && spec.ports.len() > 1 {
            let remedy = "name the ports of a Service that has several";
            add(
                &format!("{field}.name"),
                "Required value".to_owned(),
                remedy,
            );
        } else if !port.name.is_empty() && !names.insert(&port.name) {
            let message = format!("Duplicate value: {:?}", port.name);
            add(
                &format!("{field}.name"),
                message,
                "give each port its own name",
            );
        }
        if !numbers.insert((port.protocol, port.port)) {
            let message = format!("Duplicate value: {} {}", port.protocol, port.port);
            add(&field, message, "keep one of them");
        }
    }
    for (i, address) in spec.external_ips.iter().enumerate() {
        ip(&format!("spec.externalIPs[{i}]"), address, None, add);
    }
    for (i, range) in spec.load_balancer_source_ranges.iter().enumerate() {
        if !is_cidr(range.trim()) {
            let message = format!("Invalid value: {range:?}: must be a valid CIDR value");
            let field = format!("spec.loadBalancerSourceRanges[{i}]");
            add(&field, message, "write it like 10.0.0.0/8");
        }
    }
}

fn endpoint_slice(slice: &EndpointSlice, add: &mut Add<'_>) {
    let v4 = match slice.address_type {
        AddressType::IPv4 => true,
        AddressType::IPv6 => false,
        AddressType::FQDN => return,
    };
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() {
            let field = format!("endpoints[{i}].addresses");
            add(
                &field,
                "Required value".to_owned(),
                "give the endpoint an address",
            );
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            ip(
                &format!("endpoints[{i}].addresses[{j}]"),
                address,
                Some(v4),
                add,
            );
        }
    }
}

/// An address, of IPv4 or not where that is given.
fn ip(field: &str, address: &str, v4: Option<bool>, add: &mut Add<'_>) {
    let parsed = address.parse::<IpAddr>().ok();
    let good = parsed.is_some_and(|ip| v4.is_none_or(|v4| v4 == ip.is_ipv4()));
    if !good {
        let family = match v4 {
            None => "IP",
            Some(true) => "IPv4",
            Some(false) => "IPv6",
        };
        let message = format!("Invalid value: {address:?}: must be a valid {family} address");
        add(field, message, "correct the address");
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|l| l <= most)
}
