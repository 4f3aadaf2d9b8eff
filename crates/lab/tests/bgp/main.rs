//! BGP end to end, with real routers.
//!
//! The tests of advertising run twice: with Corten, and with FRR and MetalLB's template in its place
//! (`metallb::Subject`). `subject` compares all that routers see of both.
//!
//! What a speaker must do, and who says here that it does. Tests of pure code stand where a router
//! has no part in it, or cannot be made to show it.
//!
//! | What | FRR | BIRD | Others, and pure code |
//! |---|---|---|---|
//! | OPEN, capabilities, 4-octet AS numbers | `subject` | `bird` (`enable as4 off`) | `others`; `proto::bgp::oracle` |
//! | Both families on one session, IPv4 over IPv6 | `advertising`, `forms` | `bird` | `others` |
//! | Extended next hop | `unnumbered`, `forms` | `unnumbered`, `bird` | |
//! | Unnumbered peer, router advertisements | `unnumbered` | `unnumbered` | |
//! | Dynamic AS | `forms` (2/2 on the wire), `unnumbered` | `sessions` | |
//! | Local AS | `forms` | `sessions` | |
//! | Multihop, source address | `forms` | `sessions` | |
//! | GTSM, also on one side alone | `forms` | `sessions`, `listen` | |
//! | TCP MD5, a new password | `sessions`, `causes`, `listen` | `sessions`, `listen` | |
//! | TCP-AO | | | not in this kernel, not served |
//! | VRF | | `guest` (in Debian's kernel) | `causes` (any device) |
//! | Waiting for the neighbour, other ports | `listen` | `listen`, `hub` | |
//! | Collision | | | a peer dials or waits, never both; `proto::bgp::fsm` simulates both |
//! | Hold, keepalive, connect times | `sessions` | `sessions` | `proto::bgp::fsm`, in its own time |
//! | Send hold timer | | | `proto::bgp::fsm` |
//! | Backoff after errors | | | `garbage`: bare bytes |
//! | NOTIFICATIONs and their words | `forms`, `causes`, `drain` | `bird`, `receive` | |
//! | BFD Down (6/10) | `bfd` | `bird_bfd` | |
//! | Hard reset | `drain` | `bird` | |
//! | Router ID, AS 0 | | `choices` (IDs) | `plan`, `garbage` |
//! | Extended messages | `subject` | `bird` | |
//! | BGP roles, routes for customers only | `roles` | `roles` | `proto::bgp::role` |
//! | Host name capability | `subject` | `choices` | |
//! | A route an address, aggregates | `advertising` | `bird`, `choices` | |
//! | Packing, withdraw first | | | `proto::bgp::adj_out`, `cargo xtask bench bgp` |
//! | Communities, large ones, union | `advertising`, `subject` | `bird` | `others` |
//! | Link bandwidth, weighted ECMP | `weights` | `bird` (carries it) | `plan::announce::bgp` |
//! | LOCAL_PREF | `advertising` | `bird` | |
//! | MED | `subject` | `bird` | `others` |
//! | AS path prepended | `forms` | `bird` | |
//! | Selectors of nodes and peers | `advertising` | `choices` | |
//! | Other next hops | `forms` | `choices` | |
//! | Receive policy, most prefixes | `receive` | `receive` | |
//! | Add-path | `hub` | `hub` | |
//! | Route refresh, both ways | `graceful`, `receive` | `bird`, `receive` | |
//! | End-of-RIB | `subject` | `choices` | |
//! | Graceful restart of ours | `graceful`, `subject` | `bird` | `others` |
//! | Graceful restart of theirs, long-lived too | `receive` | `receive` | |
//! | Graceful shutdown | `advertising`, `drain` | `bird` | |
//! | Malformed attributes (RFC 7606), AS_SET | | | `rfc7606`: bare bytes, ExaBGP |
//! | Another speaker on the node | `rival` | `rival`, `hub` | |
//! | BFD: one hop, link-local, a silent path | `bfd`, `unnumbered` | `bird` | |
//! | BFD: many hops, minimum TTL, passive | `bfd`, `forms` | `bird_bfd` | |
//! | BFD: orderly ends | `bfd` | `bird_bfd` (takes ours for a failure, says nothing at its own) | `proto::bfd` |
//! | BFD: echo | `bfd` | BIRD has none | `proto::bfd` |

mod advertising;
mod bfd;
mod bird;
mod bird_bfd;
mod causes;
mod choices;
mod drain;
mod forms;
mod garbage;
mod graceful;
mod hub;
mod listen;
mod metallb;
mod others;
mod receive;
mod rfc7606;
mod rival;
mod roles;
mod routers;
mod sessions;
mod stage;
mod story;
mod subject;
mod unnumbered;
mod weights;
