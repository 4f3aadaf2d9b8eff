//! Values of MetalLB's chart: each is honoured, or refused with the reason.

use lab::chart::{Chart, ChartError};

/// Values, and what is then in the rendering.
const HONOURED: &[(&[&str], &[&str])] = &[
    (
        &[],
        &["--forward=off", "image: corten:0.1.0", "replicas: 2"],
    ),
    (
        &["loadBalancerClass=corten.dev/lb"],
        &["--lb-class=corten.dev/lb"],
    ),
    (
        &[
            "replyByIngress[0]=eth1=192.0.2.1",
            "replyByIngress[1]=bond*",
        ],
        &[
            "- \"--reply-by-ingress=eth1=192.0.2.1,bond*\"",
            "--reply-mark-mask=0xf000000",
        ],
    ),
    (
        &["fullnameOverride=lb"],
        &["name: lb-controller", "name: lb-agent"],
    ),
    (
        &["imagePullSecrets[0].name=pull"],
        &["imagePullSecrets:\n      - name: pull"],
    ),
    (
        &["controller.image.repository=a/b", "controller.image.tag=c"],
        &["image: a/b:c"],
    ),
    (
        &[
            "controller.logLevel=debug",
            "controller.webhookMode=disabled",
        ],
        &["--log-level=debug", "--webhook-mode=disabled"],
    ),
    (
        &["crds.validationFailurePolicy=Ignore"],
        &["--webhook-failure-policy=Ignore"],
    ),
    (
        &["speaker.secretName=mine", "speaker.ignoreExcludeLB=true"],
        &[
            "secretName: mine",
            "--ml-secret-name=mine",
            "--ignore-exclude-lb=true",
        ],
    ),
    (
        &["speaker.excludeInterfaces.enabled=false"],
        &["--exclude-l2-file=\n"],
    ),
    (
        &[
            "speaker.memberlist.mlBindPort=7946",
            "speaker.metricsPort=9120",
        ],
        &[
            "--member-port=7946",
            "name: metricshttps, containerPort: 9120",
        ],
    ),
    (
        &[
            "tls.minVersion=VersionTLS12",
            "tls.speakerMetricsTLSSecret=cert",
        ],
        &[
            "--tls-min-version=VersionTLS12",
            "--metrics-cert-dir=/etc/metrics-tls",
        ],
    ),
    (
        &[
            "prometheus.scrapeAnnotations=true",
            "prometheus.metricsPort=7472",
        ],
        &["prometheus.io/port: \"7472\"", "--port=7472"],
    ),
    (
        &[
            "prometheus.podMonitor.enabled=true",
            "prometheus.serviceAccount=prometheus",
            "prometheus.namespace=monitoring",
        ],
        &[
            "kind: PodMonitor",
            "nonResourceURLs: [/metrics]",
            "port: metricshttps",
        ],
    ),
    (
        &["prometheus.prometheusRule.enabled=true"],
        &[
            "alert: MetalLBStaleConfig",
            "alert: MetalLBAddressPoolUsage75Percent",
        ],
    ),
    (
        &[
            "forward=all",
            "apiServer=https://10.0.0.5:6443",
            "forwardArgs[0]=--cluster-cidr=10.244.0.0/16",
            "forwardArgs[1]=--conntrack-min=200000",
        ],
        &[
            "--forward=all",
            "--cluster-cidr=10.244.0.0/16",
            "--api-server=https://10.0.0.5:6443",
            "net.ipv4.ip_forward=1",
            "verbs: [list, watch] # which addresses only a Service may have",
            "- --conntrack\n        - --conntrack-min=200000\n        - net.ipv4.ip_forward=1",
        ],
    ),
    (
        &["forward=vips", "apiServer=https://10.0.0.5:6443"],
        &["--forward=vips"],
    ),
    // MetalLB's own words for what Corten does anyhow.
    (
        &[
            "speaker.frr.enabled=false",
            "frrk8s.enabled=false",
            "speaker.memberlist.enabled=true",
        ],
        &["name: speaker"],
    ),
];

/// Values, and helm's words.
const REFUSED: &[(&[&str], &str)] = &[
    (&["frrk8s.enabled=true"], "Corten runs no FRR"),
    (&["speaker.frr.enabled=true"], "Corten runs no FRR"),
    (&["replyByIngress[0]=eth1/0"], "/replyByIngress/0"),
    (&["forwardArgs[0]=--node-name=other"], "/forwardArgs/0"),
    (&["speaker.reloader.resources.x=1"], "Corten runs no FRR"),
    (
        &["speaker.memberlist.enabled=false"],
        "agents always watch each other",
    ),
    (&["controller.command=/x"], "the image holds one program"),
    (&["configInline.peers=x"], "configuration is objects"),
    (&["controller.webhookMode=on"], "'onlywebhook'"),
    (&["speaker.nosuch=1"], "'nosuch' not allowed"),
    (&["forward=all"], "needs apiServer"),
    (
        &[
            "prometheus.podMonitor.enabled=true",
            "prometheus.serviceMonitor.enabled=true",
        ],
        "scraped twice",
    ),
    (
        &["prometheus.podMonitor.enabled=true"],
        "prometheus.serviceAccount",
    ),
];

/// Only an agent in a service proxy's place asks for the ranges of cluster IPs.
#[test]
fn agents_read_service_ranges_where_they_forward_all() {
    let name = "agents_read_service_ranges_where_they_forward_all";
    let Some(chart) = Chart::or_skip(name) else {
        return;
    };
    let server = "apiServer=https://10.0.0.5:6443";
    let off: &[&str] = &[];
    for (values, wanted) in [
        (off, false),
        (&["forward=vips", server], false),
        (&["forward=all", server], true),
    ] {
        let yaml = chart.render(values).expect("good values");
        let rule = "resources: [servicecidrs]\n  verbs: [list, watch] # which addresses only";
        assert_eq!(yaml.contains(rule), wanted, "{values:?}");
    }
}

#[test]
fn metallb_s_values_are_honoured_or_refused_with_the_reason() {
    let name = "metallb_s_values_are_honoured_or_refused_with_the_reason";
    let Some(chart) = Chart::or_skip(name) else {
        return;
    };
    for (values, texts) in HONOURED {
        let yaml = chart.render(values).expect("good values");
        for text in *texts {
            assert!(yaml.contains(text), "{values:?} does not give {text:?}");
        }
    }
    for (values, words) in REFUSED {
        match chart.render(values) {
            Err(ChartError::Refused { said, .. }) => {
                assert!(said.contains(words), "{values:?}: {said:?} lacks {words:?}");
            }
            other => panic!("{values:?} is not refused: {other:?}"),
        }
    }
}
