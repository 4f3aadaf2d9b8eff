//! Conversion of `BGPPeer` between its versions.
//!
//! Unset timers stay unset. `MetalLB` turns them into zero durations on the way up, which gives
//! sessions without timers in place of the defaults.

use super::{peer as new, peer_v1beta1 as old};

impl From<old::BGPPeer> for new::BGPPeer {
    fn from(peer: old::BGPPeer) -> Self {
        Self {
            metadata: peer.metadata,
            spec: peer.spec.into(),
        }
    }
}

impl From<old::BGPPeerSpec> for new::BGPPeerSpec {
    fn from(spec: old::BGPPeerSpec) -> Self {
        Self {
            my_asn: spec.my_asn,
            peer_asn: spec.peer_asn,
            peer_address: spec.peer_address,
            source_address: spec.source_address,
            // The older version has no default and calls the standard port 0.
            peer_port: if spec.peer_port == 0 {
                179
            } else {
                spec.peer_port
            },
            hold_time: spec.hold_time,
            keepalive_time: spec.keepalive_time,
            router_id: spec.router_id,
            node_selectors: spec.node_selectors,
            password: spec.password,
            bfd_profile: spec.bfd_profile,
            ebgp_multi_hop: spec.ebgp_multi_hop,
            ..Self::default()
        }
    }
}

impl From<new::BGPPeer> for old::BGPPeer {
    /// Fields that the older version lacks are lost, as with `MetalLB`.
    fn from(peer: new::BGPPeer) -> Self {
        Self {
            metadata: peer.metadata,
            spec: peer.spec.into(),
        }
    }
}

impl From<new::BGPPeerSpec> for old::BGPPeerSpec {
    fn from(spec: new::BGPPeerSpec) -> Self {
        Self {
            my_asn: spec.my_asn,
            peer_asn: spec.peer_asn,
            peer_address: spec.peer_address,
            source_address: spec.source_address,
            peer_port: spec.peer_port,
            hold_time: spec.hold_time,
            keepalive_time: spec.keepalive_time,
            router_id: spec.router_id,
            node_selectors: spec.node_selectors,
            password: spec.password,
            bfd_profile: spec.bfd_profile,
            ebgp_multi_hop: spec.ebgp_multi_hop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_timers_stay_unset() {
        let peer: old::BGPPeer = serde_json::from_str(
            r#"{"spec":{"myASN":64500,"peerASN":64501,"peerAddress":"10.0.0.1"}}"#,
        )
        .expect("a peer");
        let up = new::BGPPeer::from(peer);
        assert_eq!(up.spec.hold_time, None);
        assert_eq!(up.spec.keepalive_time, None);
        assert_eq!(up.spec.peer_port, 179);
    }

    #[test]
    fn there_and_back() {
        let peer: old::BGPPeer = serde_json::from_str(
            r#"{"metadata":{"name":"p"},"spec":{"myASN":1,"peerASN":2,"peerAddress":"10.0.0.1",
                "sourceAddress":"10.0.0.2","peerPort":1179,"holdTime":"1m30s",
                "keepaliveTime":"30s","routerID":"1.1.1.1","password":"x","bfdProfile":"b",
                "ebgpMultiHop":true,"nodeSelectors":[{"matchLabels":{"a":"b"}}]}}"#,
        )
        .expect("a peer");
        let back = old::BGPPeer::from(new::BGPPeer::from(peer.clone()));
        assert_eq!(back, peer);
    }

    #[test]
    fn debug_hides_the_password() {
        let spec = new::BGPPeerSpec {
            password: "hunter2".to_owned(),
            ..Default::default()
        };
        assert!(!format!("{spec:?}").contains("hunter2"));
        assert!(!format!("{:?}", old::BGPPeerSpec::from(spec)).contains("hunter2"));
    }
}
