//! A TLS client that trusts everybody and says what was spoken.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use lab::Host;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{ALL_CIPHER_SUITES, ALL_KX_GROUPS, default_provider};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup,
    ProtocolVersion, SignatureScheme, SupportedProtocolVersion,
};

use crate::support::Fault;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a client offers.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) version: &'static SupportedProtocolVersion,
    /// All when empty.
    pub(crate) suites: &'static [CipherSuite],
    /// All when empty.
    pub(crate) groups: &'static [NamedGroup],
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) suite: Option<CipherSuite>,
    /// The server's own certificate.
    pub(crate) leaf: CertificateDer<'static>,
}

/// Shakes hands from a host. The inner error is the server's refusal.
pub(crate) fn shake(
    from: &Host,
    to: SocketAddr,
    offer: Offer,
) -> Result<Result<Spoken, io::Error>, Fault> {
    let mut provider = default_provider();
    provider.cipher_suites = ALL_CIPHER_SUITES
        .iter()
        .filter(|suite| offer.suites.is_empty() || offer.suites.contains(&suite.suite()))
        .copied()
        .collect();
    provider.kx_groups = ALL_KX_GROUPS
        .iter()
        .filter(|group| offer.groups.is_empty() || offer.groups.contains(&group.name()))
        .copied()
        .collect();
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[offer.version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("metallb-webhook-service.metallb-system.svc")?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let shaken = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Ok(Spoken {
            version: connection.protocol_version(),
            suite: connection
                .negotiated_cipher_suite()
                .map(|suite| suite.suite()),
            leaf: leaf
                .cloned()
                .ok_or(io::ErrorKind::InvalidData)?
                .into_owned(),
        })
    })?;
    Ok(shaken)
}

/// Who is served is not the question here.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            leaf,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            leaf,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
