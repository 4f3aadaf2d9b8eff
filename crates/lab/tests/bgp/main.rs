//! BGP end to end, with real routers.

mod routers;
mod stage;
mod story;
