//! TLS as the flags of MetalLB ask for it (`spec/metallb.md` §6.1), with Go's names.
//!
//! Three rules of Go are kept: suites concern TLS 1.2 alone (those of 1.3 are always on), curves
//! are numbers of Go's `CurveID` (their names are taken too), and the minimum is TLS 1.3 unless
//! said otherwise. What Go knows and rustls does not offer (CBC, RSA key exchange, P-521) is
//! accepted with a note, as long as something is left to speak.

use std::sync::Arc;

use rustls::crypto::ring::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite, version};
use tokio::sync::watch;

/// The certificate that is served now; an empty cell refuses handshakes.
pub type CurrentCertificate = watch::Receiver<Option<Arc<CertifiedKey>>>;

/// Why the TLS flags cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFlagError {
    /// No such version.
    #[error("--tls-min-version {given}: unknown; give one of {}", VERSIONS.map(|(name, _)| name).join(", "))]
    Version {
        /// As given.
        given: String,
    },
    /// Go does not know the suite.
    #[error(
        "--tls-cipher-suites {given}: unknown; give some of {}",
        offered_suites()
    )]
    Suite {
        /// As given.
        given: String,
    },
    /// Nothing is left of the list.
    #[error("{flag} {given}: none of them is offered; give some of {offered}")]
    NoneOffered {
        /// The flag.
        flag: &'static str,
        /// As given.
        given: String,
        /// What can be given.
        offered: String,
    },
    /// As in MetalLB: the suites of TLS 1.3 cannot be chosen.
    #[error(
        "--tls-cipher-suites: cipher suites cannot be configured with TLS 1.3; \
         add --tls-min-version VersionTLS12, or leave the suites out"
    )]
    SuitesOfTls13,
    /// Go does not know the curve.
    #[error(
        "--tls-curve-preferences {given}: unknown; give some of {}",
        offered_groups()
    )]
    Curve {
        /// As given.
        given: String,
    },
    /// Named twice.
    #[error("--tls-curve-preferences: duplicate curve preference {given}; leave one out")]
    DuplicateCurve {
        /// As given.
        given: String,
    },
}

/// What is spoken.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    tls12: bool,
    provider: Arc<CryptoProvider>,
    /// What was accepted without effect, to be logged.
    pub notes: Vec<String>,
}

/// Go's name, and whether rustls speaks it.
const VERSIONS: [(&str, bool); 4] = [
    ("VersionTLS10", false),
    ("VersionTLS11", false),
    ("VersionTLS12", true),
    ("VersionTLS13", true),
];

/// Go's names of what rustls offers for TLS 1.2.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Names that Go's list has besides: older spellings, suites of TLS 1.3, and those that rustls
/// leaves out for good reason.
const OTHER_SUITES: [&str; 20] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_FALLBACK_SCSV",
];

/// Go's number and name of a curve, and the group where rustls offers it.
const CURVES: [(&str, &str, Option<&'static dyn SupportedKxGroup>); 7] = [
    ("23", "CurveP256", Some(kx_group::SECP256R1)),
    ("24", "CurveP384", Some(kx_group::SECP384R1)),
    ("25", "CurveP521", None),
    ("29", "X25519", Some(kx_group::X25519)),
    ("4587", "SecP256r1MLKEM768", None),
    ("4588", "X25519MLKEM768", None),
    ("4589", "SecP384r1MLKEM1024", None),
];

fn offered_suites() -> String {
    SUITES.map(|(name, _)| name).join(", ")
}

fn offered_groups() -> String {
    let offered = CURVES.iter().filter(|(.., group)| group.is_some());
    let names: Vec<String> = offered
        .map(|(id, name, _)| format!("{id} ({name})"))
        .collect();
    names.join(", ")
}

/// The parts of a comma-separated list.
fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

impl TlsSettings {
    /// From the values of `--tls-min-version`, `--tls-cipher-suites`, `--tls-curve-preferences`;
    /// each may be empty.
    pub fn from_flags(minimum: &str, suites: &str, curves: &str) -> Result<Self, TlsFlagError> {
        let mut notes = Vec::new();
        let mut provider = ring::default_provider();
        let minimum = match minimum.trim() {
            "" => "VersionTLS13",
            given => given,
        };
        let Some((_, spoken)) = VERSIONS.iter().find(|(name, _)| *name == minimum) else {
            return Err(TlsFlagError::Version {
                given: minimum.to_owned(),
            });
        };
        if !spoken {
            notes.push(format!(
                "--tls-min-version {minimum}: the oldest version that is spoken is VersionTLS12"
            ));
        }
        let tls12 = minimum != "VersionTLS13";
        if parts(suites).next().is_some() {
            if !tls12 {
                return Err(TlsFlagError::SuitesOfTls13);
            }
            provider.cipher_suites = choose_suites(suites, &mut notes)?;
        }
        if parts(curves).next().is_some() {
            provider.kx_groups = choose_groups(curves, &mut notes)?;
        }
        Ok(Self {
            tls12,
            provider: Arc::new(provider),
            notes,
        })
    }

    /// A server's configuration that serves whatever certificate is current.
    pub fn server_config(
        &self,
        certificate: CurrentCertificate,
    ) -> Result<ServerConfig, rustls::Error> {
        let versions: &[_] = match self.tls12 {
            true => &[&version::TLS13, &version::TLS12],
            false => &[&version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Current(certificate)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The suites of TLS 1.3, and those of TLS 1.2 that are named.
fn choose_suites(
    list: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>, TlsFlagError> {
    let all = ring::ALL_CIPHER_SUITES.iter().copied();
    let mut chosen: Vec<_> = all.filter(|suite| suite.tls13().is_some()).collect();
    for given in parts(list) {
        // Go has two spellings of the same suite.
        let name = match given {
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
                format!("{given}_SHA256")
            }
            other => other.to_owned(),
        };
        if let Some((_, suite)) = SUITES.iter().find(|(known, _)| *known == name) {
            let known: Vec<CipherSuite> = chosen.iter().map(SupportedCipherSuite::suite).collect();
            if !known.contains(&suite.suite()) {
                chosen.push(*suite);
            }
        } else if OTHER_SUITES.contains(&name.as_str()) {
            notes.push(format!(
                "--tls-cipher-suites {given}: not a choice here (TLS 1.3 is always on; \
                 suites without forward secrecy or AEAD are not offered)"
            ));
        } else {
            return Err(TlsFlagError::Suite {
                given: given.to_owned(),
            });
        }
    }
    Ok(chosen)
}

fn choose_groups(
    list: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<&'static dyn SupportedKxGroup>, TlsFlagError> {
    let mut chosen: Vec<&'static dyn SupportedKxGroup> = Vec::new();
    let mut seen = Vec::new();
    for given in parts(list) {
        let known = CURVES
            .iter()
            .find(|(id, name, _)| *id == given || *name == given);
        let Some((id, name, group)) = known else {
            return Err(TlsFlagError::Curve {
                given: given.to_owned(),
            });
        };
        if seen.contains(id) {
            return Err(TlsFlagError::DuplicateCurve {
                given: given.to_owned(),
            });
        }
        seen.push(*id);
        match group {
            Some(group) => chosen.push(*group),
            None => notes.push(format!(
                "--tls-curve-preferences {given}: {name} is not offered"
            )),
        }
    }
    if chosen.is_empty() {
        return Err(TlsFlagError::NoneOffered {
            flag: "--tls-curve-preferences",
            given: list.to_owned(),
            offered: offered_groups(),
        });
    }
    Ok(chosen)
}

/// Serves the certificate of the moment: rotation needs no new listener.
#[derive(Debug)]
struct Current(CurrentCertificate);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions, suites of TLS 1.2, groups, notes; or the error.
    fn told(
        minimum: &str,
        suites: &str,
        curves: &str,
    ) -> Result<(bool, usize, String, usize), String> {
        let settings =
            TlsSettings::from_flags(minimum, suites, curves).map_err(|error| error.to_string())?;
        let of_12 = settings.provider.cipher_suites.iter();
        let groups = settings.provider.kx_groups.iter();
        let groups: Vec<String> = groups.map(|group| format!("{:?}", group.name())).collect();
        Ok((
            settings.tls12,
            of_12.filter(|suite| suite.tls13().is_none()).count(),
            groups.join(" "),
            settings.notes.len(),
        ))
    }

    #[test]
    fn flags_mean_what_go_means_by_them() {
        let all = "X25519 secp256r1 secp384r1";
        let cases = [
            (("", "", ""), (false, 6, all, 0)),
            (("VersionTLS13", "", ""), (false, 6, all, 0)),
            (("VersionTLS12", "", ""), (true, 6, all, 0)),
            (("VersionTLS10", "", ""), (true, 6, all, 1)),
            (
                (
                    "VersionTLS12",
                    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
                    "",
                ),
                (true, 2, all, 0),
            ),
            // Known to Go, not offered: TLS 1.3 is left.
            (
                ("VersionTLS12", "TLS_RSA_WITH_AES_128_CBC_SHA", ""),
                (true, 0, all, 1),
            ),
            (("", "", "23,29"), (false, 6, "secp256r1 X25519", 0)),
            (("", "", "4588,CurveP384"), (false, 6, "secp384r1", 1)),
        ];
        for ((minimum, suites, curves), (tls12, of_12, groups, notes)) in cases {
            let got = told(minimum, suites, curves);
            let want = Ok((tls12, of_12, groups.to_owned(), notes));
            assert_eq!(
                got.map(|(a, b, c, d)| (a, b, c.replace('"', ""), d)),
                want,
                "{minimum} {suites} {curves}"
            );
        }
    }

    #[test]
    fn what_go_does_not_know_is_refused_with_the_list() {
        let cases = [
            (("1.3", "", ""), "VersionTLS12"),
            (
                ("VersionTLS12", "ECDHE-RSA-AES128-GCM-SHA256", ""),
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ),
            (
                ("", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ""),
                "--tls-min-version VersionTLS12",
            ),
            (("", "", "0"), "29 (X25519)"),
            (("", "", "23,23"), "duplicate curve preference 23"),
            (("", "", "25"), "none of them is offered"),
        ];
        for ((minimum, suites, curves), fragment) in cases {
            let error = told(minimum, suites, curves).expect_err(fragment);
            assert!(error.contains(fragment), "{error}");
        }
    }

    #[test]
    fn a_server_needs_no_certificate_yet() {
        let (_set, certificate) = watch::channel(None);
        let settings = TlsSettings::from_flags("", "", "").expect("defaults");
        assert!(settings.server_config(certificate).is_ok());
    }
}
