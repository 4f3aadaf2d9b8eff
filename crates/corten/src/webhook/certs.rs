//! The webhook's certificates: an authority of our own and a leaf signed by it.
//!
//! Pure: time comes in as seconds since 1970. [`renew`] looks at what the Secret has and says what
//! it should have. The leaf is renewed by the same authority while that lasts; a new authority is
//! put in front of the older ones that are still valid, so that replicas that still serve the old
//! leaf stay trusted until they have read the new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

use super::validity::{date, validity};

/// Keys of the Secret, as cert-controller has them.
pub const CA_CERT: &str = "ca.crt";
/// Key of the authority.
pub const CA_KEY: &str = "ca.key";
/// The leaf.
pub const TLS_CERT: &str = "tls.crt";
/// Key of the leaf.
pub const TLS_KEY: &str = "tls.key";

const DAY: i64 = 86_400;
/// How long a leaf is valid.
const LEAF_DAYS: i64 = 365;
/// How long an authority is valid.
const CA_DAYS: i64 = 3650;
/// How long before its end a certificate is renewed.
pub const AHEAD_DAYS: i64 = 90;
/// For clocks that are behind.
const BACK_DAYS: i64 = 1;

/// Why no certificate could be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// rcgen failed.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// PEM or key are not usable.
    #[error("{part} cannot be used: {why}")]
    Unusable {
        /// The Secret's key, or the file's name.
        part: &'static str,
        /// Why.
        why: String,
    },
}

/// What the Secret holds.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// What the Secret should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// What it holds.
    Keep,
    /// This, for that reason.
    Write {
        /// The new data.
        data: SecretData,
        /// Why the old are not good enough.
        why: String,
    },
}

/// DNS names of a Service, the shortest that the API server asks for first.
pub fn service_names(service: &str, namespace: &str) -> Vec<String> {
    ["", ".cluster.local"]
        .map(|domain| format!("{service}.{namespace}.svc{domain}"))
        .into()
}

/// Judges the Secret's data at `now` and renews what does not hold for another [`AHEAD_DAYS`].
///
/// `trusted` is what this process has told the API server to trust so far: it stays in the bundle
/// while it is valid, also where the Secret has been emptied by somebody.
pub fn renew(
    data: &SecretData,
    trusted: &[u8],
    names: &[String],
    now: i64,
) -> Result<Renewal, CertError> {
    let Err(why) = judge(data, names, now, AHEAD_DAYS) else {
        return Ok(Renewal::Keep);
    };
    // The authority that we have may still sign.
    if let Some(data) = by_the_same_authority(data, names, now) {
        return Ok(Renewal::Write { data, why });
    }
    let key = KeyPair::generate()?;
    let mut bundle = ca_params(now).self_signed(&key)?.pem();
    let older = data.get(CA_CERT).map(Vec::as_slice).unwrap_or_default();
    bundle.push_str(&still_valid(&[older, trusted], now));
    let (leaf, leaf_key) = sign(names, now, &Issuer::new(ca_params(now), &key))?;
    let data = SecretData::from(
        [
            (CA_CERT, bundle),
            (CA_KEY, key.serialize_pem()),
            (TLS_CERT, leaf),
            (TLS_KEY, leaf_key),
        ]
        .map(|(name, text)| (name.to_owned(), text.into_bytes())),
    );
    Ok(Renewal::Write { data, why })
}

/// A new leaf, where the key and the first certificate of the bundle are an authority that lasts.
fn by_the_same_authority(data: &SecretData, names: &[String], now: i64) -> Option<SecretData> {
    let key = std::str::from_utf8(data.get(CA_KEY)?).ok()?;
    let key = KeyPair::from_pem(key).ok()?;
    let (leaf, leaf_key) = sign(names, now, &Issuer::new(ca_params(now), &key)).ok()?;
    let mut data = data.clone();
    let bundle = still_valid(&[data.get(CA_CERT)?], now);
    data.insert(CA_CERT.to_owned(), bundle.into_bytes());
    data.insert(TLS_CERT.to_owned(), leaf.into_bytes());
    data.insert(TLS_KEY.to_owned(), leaf_key.into_bytes());
    // Not ours, too old, or key and certificate do not belong together: then this says so.
    judge(&data, names, now, AHEAD_DAYS).ok().map(|()| data)
}

/// Whether the data serve all names at `now` and for `ahead` more days.
fn judge(data: &SecretData, names: &[String], now: i64, ahead: i64) -> Result<(), String> {
    let part = |name: &'static str| {
        let bytes = data.get(name).filter(|bytes| !bytes.is_empty());
        bytes.ok_or_else(|| format!("{name} is not there"))
    };
    let key = part(TLS_KEY)?;
    let leaf_pem = part(TLS_CERT)?;
    certified_key(leaf_pem, key).map_err(|error| error.to_string())?;
    let leaf = first_certificate(leaf_pem).ok_or("tls.crt has no certificate")?;
    let authorities = certificates(part(CA_CERT)?);
    let authority = authorities.first().ok_or("ca.crt has no certificate")?;
    let until = now + ahead * DAY;
    for (name, certificate) in [(TLS_CERT, &leaf), (CA_CERT, authority)] {
        let times = validity(certificate).map_err(|error| format!("{name}: {error}"))?;
        if now < times.not_before {
            return Err(format!("{name} is not valid yet"));
        }
        if until > times.not_after {
            return Err(format!(
                "{name} ends in {} days",
                (times.not_after - now).div_euclid(DAY)
            ));
        }
    }
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots
            .add(authority.clone())
            .map_err(|error| format!("ca.crt: {error}"))?;
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .map_err(|error| format!("ca.crt: {error}"))?;
    let seconds = u64::try_from(now).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    for name in names {
        let name = ServerName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], at)
            .map_err(|error| format!("tls.crt does not serve {}: {error}", name.to_str()))?;
    }
    Ok(())
}

/// Certificate chain and key as rustls wants them.
pub fn certified_key(cert: &[u8], key: &[u8]) -> Result<CertifiedKey, CertError> {
    let unusable = |part| {
        move |error: &dyn std::fmt::Display| CertError::Unusable {
            part,
            why: error.to_string(),
        }
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(TLS_CERT)(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(TLS_KEY)(&error))?;
    if chain.is_empty() {
        return Err(unusable(TLS_CERT)(&"no certificate"));
    }
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|error| unusable(TLS_KEY)(&error))
}

/// A certificate that signs itself, for who need not be known (metrics without a given one).
pub fn self_signed(names: &[String], now: i64) -> Result<CertifiedKey, CertError> {
    let key = KeyPair::generate()?;
    let mut params = leaf_params(names, now)?;
    valid_for(&mut params, now, CA_DAYS);
    let cert = params.self_signed(&key)?;
    certified_key(cert.pem().as_bytes(), key.serialize_pem().as_bytes())
}

fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .collect()
}

fn first_certificate(pem: &[u8]) -> Option<CertificateDer<'static>> {
    certificates(pem).into_iter().next()
}

/// The certificates of these bundles that are valid at `now`, each once, in PEM.
fn still_valid(bundles: &[&[u8]], now: i64) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut kept: Vec<CertificateDer<'static>> = Vec::new();
    let mut text = String::new();
    for bundle in bundles {
        let bundle = String::from_utf8_lossy(bundle);
        for block in bundle.split_inclusive(END) {
            let Some(certificate) = first_certificate(block.as_bytes()) else {
                continue;
            };
            let valid = validity(&certificate).is_ok_and(|times| now <= times.not_after);
            if valid && !kept.contains(&certificate) {
                kept.push(certificate);
                text.push_str(block.trim());
                text.push('\n');
            }
        }
    }
    text
}

fn ca_params(now: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("metallb-webhook-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, now, CA_DAYS);
    params
}

fn leaf_params(names: &[String], now: i64) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = name(names.first().map_or("corten", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, now, LEAF_DAYS);
    Ok(params)
}

fn sign(
    names: &[String],
    now: i64,
    issuer: &Issuer<'_, &KeyPair>,
) -> Result<(String, String), CertError> {
    let key = KeyPair::generate()?;
    let cert = leaf_params(names, now)?.signed_by(&key, issuer)?;
    Ok((cert.pem(), key.serialize_pem()))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "corten");
    // RFC 5280 appendix A: at most 64 characters.
    name.push(
        DnType::CommonName,
        common.chars().take(64).collect::<String>(),
    );
    name
}

/// Whole days around `now`, from midnight to midnight.
fn valid_for(params: &mut CertificateParams, now: i64, days: i64) {
    let midnight = |days| {
        let (year, month, day) = date(now.div_euclid(DAY) + days);
        // Years until 9999, months and days of a calendar.
        rcgen::date_time_ymd(
            i32::try_from(year).unwrap_or(9999),
            u8::try_from(month).unwrap_or(1),
            u8::try_from(day).unwrap_or(1),
        )
    };
    params.not_before = midnight(-BACK_DAYS);
    params.not_after = midnight(days);
}

#[cfg(test)]
mod tests;
