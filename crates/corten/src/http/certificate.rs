//! The certificate of the metrics server: given in a directory and read again when it changes, or
//! made at the start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::tls::CurrentCertificate;
use crate::webhook::certs::{CertError, TLS_CERT, TLS_KEY, certified_key, self_signed};
use crate::webhook::now;

/// How often the files are read again.
const PERIOD: Duration = Duration::from_secs(60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file of the directory cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no certificate, or no key of it.
    #[error(transparent)]
    Cert(#[from] CertError),
}

/// The certificate in `dir`, or a new one that signs itself for `names`.
pub fn current(
    dir: Option<&Path>,
    names: &[String],
) -> Result<CurrentCertificate, CertificateError> {
    let Some(dir) = dir else {
        let certificate = self_signed(names, now())?;
        return Ok(watch::channel(Some(Arc::new(certificate))).1);
    };
    let (mut read, certificate) = load(dir)?;
    let (set, current) = watch::channel(Some(Arc::new(certificate)));
    let dir = dir.to_owned();
    tokio::spawn(async move {
        let mut period = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                _ = period.tick() => {}
                () = set.closed() => return,
            }
            match load(&dir) {
                Ok((bytes, _)) if bytes == read => {}
                Ok((bytes, certificate)) => {
                    tracing::info!(dir = %dir.display(), "certificate read anew");
                    read = bytes;
                    set.send_replace(Some(Arc::new(certificate)));
                }
                // The old one is still good for something.
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "certificate not read anew"
                ),
            }
        }
    });
    Ok(current)
}

fn load(dir: &Path) -> Result<(Vec<u8>, CertifiedKey), CertificateError> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|source| CertificateError::File { path, source })
    };
    let (cert, key) = (read(TLS_CERT)?, read(TLS_KEY)?);
    let certificate = certified_key(&cert, &key)?;
    Ok((cert, certificate))
}
