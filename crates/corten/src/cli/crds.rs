//! `corten crds`

use std::io::Write;

use super::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Let the webhook behind this Service (NAMESPACE/NAME) convert BGPPeer between its versions,
    /// as MetalLB does. Without it the API server converts by itself, and needs no webhook.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    conversion_webhook: Option<String>,
}

pub(super) fn main(options: &Options) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let service = match &options.conversion_webhook {
        Some(text) => Some(text.split_once('/').ok_or_else(|| {
            format!("--conversion-webhook {text}: give it as NAMESPACE/NAME of the Service")
        })?),
        None => None,
    };
    for mut crd in api::crds::all() {
        if let Some((namespace, name)) = service
            && crd["metadata"]["name"] == crate::webhook::registration::PEER_CRD
        {
            crd["spec"]["conversion"] = crate::webhook::registration::conversion(namespace, name);
        }
        write!(out, "---\n{}", api::crds::yaml::emit(&crd))?;
    }
    Ok(())
}
