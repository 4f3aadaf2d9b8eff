//! Corten on a real Kubernetes API server: one controller or two, an agent on each node, each with
//! the rights of `deploy/rbac.yaml` and no more. The lab plays the kubelet.

mod accepted;
mod agents;
mod beside;
mod controllers;
mod crash;
mod deposed;
mod kept;
mod rows;
mod services;
mod stage;
mod succession;
mod unfit;
