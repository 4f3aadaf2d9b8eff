//! BGP end to end, with real routers.

mod advertising;
mod bfd;
mod drain;
mod graceful;
mod listen;
mod others;
mod receive;
mod routers;
mod sessions;
mod stage;
mod story;
mod subject;
