//! BGP end to end, with real routers.

mod bfd;
mod routers;
mod stage;
mod story;
