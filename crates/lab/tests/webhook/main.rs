//! The webhook on a real API server, with the manifests and rights of `deploy/`.

mod modes;
mod replicas;
mod story;
mod support;
mod tls;
