//! The nftables back end against the real kernel: each test runs in a sandbox of its own.

mod affinity;
mod conntrack;
mod lab;
mod leftovers;
mod loopback;
mod state;
mod traffic;
