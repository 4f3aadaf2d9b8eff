//! Bare hosts end to end: `corten run DIR` and `corten agent --dir DIR`, with real packets.

mod contested;
mod edits;
mod failover;
mod families;
mod forms;
mod health;
mod leaving;
mod links;
mod local;
mod loopback;
mod native;
mod node_ports;
mod pause;
mod refusals;
mod repair;
mod reply;
mod state;
mod stays;
mod story;
mod strangers;
mod support;
mod tracking;
mod udp;
mod virtual_mac;
