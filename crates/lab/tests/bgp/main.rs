//! BGP end to end, with real routers.

mod advertising;
mod bfd;
mod causes;
mod drain;
mod graceful;
mod hub;
mod listen;
mod others;
mod receive;
mod rival;
mod routers;
mod sessions;
mod stage;
mod story;
mod subject;
mod unnumbered;
