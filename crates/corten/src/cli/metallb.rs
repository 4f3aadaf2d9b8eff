//! Flags and environment that MetalLB's processes take besides (`spec/metallb.md` §6.1, §6.2):
//! a manifest made for them starts Corten. What means nothing here is accepted, and a line in the
//! log says so.

use clap::Args;

use super::serving::{go_bool, unused};

const NO_FRR: &str = "BGP is spoken by Corten itself";
const NO_PPROF: &str = "there is no profiler to serve";

/// Of both processes.
#[derive(Clone, Debug, Args)]
pub(super) struct Both {
    #[arg(long, hide = true, default_value = "")]
    pprof_bind_address: String,
    /// native, frr or frr-k8s: with native, peers on one node may differ in router ID and AS
    /// number, as in MetalLB's native mode. Whatever Corten can do is accepted in each.
    #[arg(long, hide = true, env = "METALLB_BGP_TYPE", default_value = "")]
    bgp_type: String,
}

impl Both {
    /// Native mode, where it is asked for by name.
    pub(super) fn native_bgp(&self) -> bool {
        self.bgp_type == "native"
    }

    fn tell(&self) {
        let frr = if self.native_bgp() {
            ""
        } else {
            &self.bgp_type
        };
        unused(&[
            ("--pprof-bind-address", &self.pprof_bind_address, NO_PPROF),
            ("METALLB_BGP_TYPE", frr, NO_FRR),
        ]);
    }
}

/// Of the speaker.
#[derive(Clone, Debug, Args)]
pub(super) struct Speaker {
    #[command(flatten)]
    pub(super) both: Both,
    #[arg(long, hide = true, env = "METALLB_HOST", default_value = "")]
    host: String,
    #[arg(long, hide = true, env = "METALLB_ML_BIND_ADDR", default_value = "")]
    ml_bindaddr: String,
    #[arg(long, hide = true, env = "METALLB_ML_BIND_PORT", default_value = "")]
    ml_bindport: String,
    #[arg(long, hide = true, env = "METALLB_ML_LABELS", default_value = "")]
    ml_labels: String,
    #[arg(long, hide = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = go_bool)]
    ml_wan_config: bool,
    #[arg(
        long,
        hide = true,
        env = "METALLB_BGP_DEBOUNCE_TIMEOUT",
        default_value = ""
    )]
    bgp_debounce_timeout: String,
    #[arg(long, hide = true, env = "FRRK8S_NAMESPACE", default_value = "")]
    frrk8s_namespace: String,
    #[arg(long, hide = true, action = clap::ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        value_parser = go_bool)]
    frrk8s_secret_passthrough: bool,
}

impl Speaker {
    /// Says what has no effect.
    pub(super) fn tell(&self) {
        const NO_MEMBERLIST: &str =
            "nodes are found by their NodeState, and failures by --member-port";
        let given = |flag: bool| if flag { "true" } else { "" };
        self.both.tell();
        unused(&[
            ("--host", &self.host, "the node is --node-name"),
            ("--ml-bindaddr", &self.ml_bindaddr, NO_MEMBERLIST),
            ("--ml-bindport", &self.ml_bindport, NO_MEMBERLIST),
            ("--ml-labels", &self.ml_labels, NO_MEMBERLIST),
            ("--ml-wan-config", given(self.ml_wan_config), NO_MEMBERLIST),
            ("--bgp-debounce-timeout", &self.bgp_debounce_timeout, NO_FRR),
            ("--frrk8s-namespace", &self.frrk8s_namespace, NO_FRR),
            (
                "--frrk8s-secret-passthrough",
                given(self.frrk8s_secret_passthrough),
                NO_FRR,
            ),
        ]);
    }
}

/// Of the controller.
#[derive(Clone, Debug, Args)]
pub(super) struct Controller {
    #[command(flatten)]
    pub(super) both: Both,
    /// Secret with the key that authenticates the agents' beats, made where there is none.
    #[arg(
        long,
        env = "METALLB_ML_SECRET_NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) ml_secret_name: String,
    /// The Deployment that owns that Secret.
    #[arg(
        long,
        env = "METALLB_DEPLOYMENT",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) deployment: String,
}

impl Controller {
    /// Says what has no effect.
    pub(super) fn tell(&self) {
        self.both.tell();
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::Cli;

    /// Every flag of MetalLB's two processes, as a manifest may have it.
    const BOTH: &str = "--port=7472 --log-level=info --lb-class= --pprof-bind-address=:6060 \
        --tls-min-version=VersionTLS12 --tls-curve-preferences=29,23 --metrics-cert-dir= \
        --tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 --health-probe-port=17472 \
        --namespace=metallb-system --pod-name=p";
    const CONTROLLER: &str = "--ml-secret-name=memberlist --deployment=controller \
        --webhook-mode=onlywebhook --webhook-secret=metallb-webhook-cert --webhook-http2 \
        --cert-service-name=metallb-webhook-service --cert-dir=/tmp/certs \
        --disable-cert-rotation=true";
    const SPEAKER: &str = "--node-name=n1 --host=10.0.0.1 --ml-bindaddr=10.0.0.1 \
        --ml-bindport=7946 --ml-labels=app=metallb --ml-secret-key-path=/etc/ml_secret_key \
        --ml-wan-config=false --ignore-exclude-lb=false --bgp-debounce-timeout=3000 \
        --frrk8s-namespace=frr --frrk8s-secret-passthrough=true";

    fn parse(command: &str, flags: &[&str]) -> Result<Cli, clap::Error> {
        let words = flags.iter().flat_map(|flags| flags.split_whitespace());
        Cli::try_parse_from(["corten", command].into_iter().chain(words))
    }

    #[test]
    fn metallb_s_flags_are_accepted() {
        for (command, flags) in [("controller", CONTROLLER), ("agent", SPEAKER)] {
            if let Err(error) = parse(command, &[BOTH, flags]) {
                panic!("{command}: {error}");
            }
        }
    }

    /// Flag, default, environment (`spec/metallb.md` §6.1); an empty default is no value or "".
    const TABLE: [(&str, &str, &str); 21] = [
        ("port", "9120", ""),
        ("namespace", "metallb-system", "METALLB_NAMESPACE"),
        ("ml-secret-name", "", "METALLB_ML_SECRET_NAME"),
        ("deployment", "", "METALLB_DEPLOYMENT"),
        ("pod-name", "", "METALLB_POD_NAME"),
        ("log-level", "info", ""),
        ("lb-class", "", ""),
        ("webhook-mode", "enabled", ""),
        ("webhook-secret", "metallb-webhook-cert", ""),
        ("webhook-http2", "false", ""),
        ("cert-service-name", "metallb-webhook-service", ""),
        ("cert-dir", "/tmp/k8s-webhook-server/serving-certs", ""),
        ("disable-cert-rotation", "false", ""),
        ("health-probe-port", "17472", ""),
        ("pprof-bind-address", "", ""),
        ("tls-min-version", "VersionTLS13", ""),
        ("tls-cipher-suites", "", ""),
        ("tls-curve-preferences", "", ""),
        ("metrics-cert-dir", "", ""),
        ("bgp-type", "", "METALLB_BGP_TYPE"),
        // The port of the webhook is no flag of MetalLB's; it is always this one.
        ("webhook-port", "9443", ""),
    ];

    #[test]
    fn defaults_and_environment_are_metallb_s() {
        let mut cli = Cli::command();
        cli.build();
        let controller = cli.find_subcommand("controller").expect("the command");
        for (flag, default, variable) in TABLE {
            let mut arguments = controller.get_arguments();
            let argument = arguments.find(|argument| argument.get_long() == Some(flag));
            let argument = argument.expect(flag);
            let values = argument.get_default_values();
            let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
            assert_eq!(values.join(","), default, "--{flag}");
            let read = argument.get_env().unwrap_or_default().to_string_lossy();
            assert_eq!(read, variable, "--{flag}");
        }
    }

    #[test]
    fn words_are_metallb_s() {
        for flags in [
            "--log-level=all",
            "--log-level=debug",
            "--log-level=info",
            "--log-level=warn",
            "--log-level=error",
            "--log-level=none",
            "--webhook-mode=enabled",
            "--webhook-mode=disabled",
            "--webhook-mode=onlywebhook",
            "--webhook-http2=f",
            "--disable-cert-rotation",
            "--port=0",
            "--health-probe-port=0",
        ] {
            if let Err(error) = parse("controller", &[flags]) {
                panic!("{flags}: {error}");
            }
        }
    }

    #[test]
    fn unknown_ones_and_bad_values_are_not() {
        for flags in [
            "--prot=9120",
            "--port=many",
            "--webhook-mode=on",
            "--webhook-http2=maybe",
        ] {
            assert!(parse("controller", &[flags]).is_err(), "{flags}");
        }
    }
}
