//! TLS towards the git hosts: one certificate, which can be replaced while connections are open.
//!
//! - rustls with *ring*, which is named here and not looked up: a process-wide default could be
//!   another one, or none.
//! - ALPN offers `h2` and `http/1.1`. A client that names neither is told so and turned away; one without
//!   ALPN gets HTTP/1.1.
//! - TLS 1.2 and 1.3. No 0-RTT: a repeated delivery would be a second delivery.
//! - [`ServerTls::reload`] takes a new pair for the handshakes that begin from then on. While only one of the two
//!   files has been replaced they do not belong together; then the old pair stays and the error says so, and the
//!   caller tries again at the next change.
//!
//! Nothing here watches files. No error holds anything of the key file's content.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// The name of HTTP/2 in ALPN.
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// How a request came to the listener; an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Over TCP as it is.
    Plain,
    /// Over TLS.
    Tls,
}

impl Transport {
    /// The scheme of the URL that the client used: `http` or `https`.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Tls => "https",
        }
    }
}

/// The server's side of TLS. Clones share the certificate.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

impl ServerTls {
    /// From the certificate chain (the server's own first) and its private key, both in PEM.
    ///
    /// The key may be PKCS #8, PKCS #1 or SEC 1, not encrypted.
    ///
    /// # Errors
    ///
    /// Either is missing or not usable, or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = certified_key(certificate, key, &provider)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN_H2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), current })
    }

    /// As [`from_pem`](Self::from_pem), from two files.
    ///
    /// # Errors
    ///
    /// As there, or a file cannot be read.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |role, path| match std::fs::read(path) {
            Ok(bytes) => Ok(Zeroizing::new(bytes)),
            Err(error) => Err(TlsError { kind: TlsErrorKind::Read(role), source: Some(error) }),
        };
        Self::from_pem(&read(PemRole::Certificate, certificate)?, &read(PemRole::Key, key)?)
    }

    /// Takes another certificate chain and key for the handshakes that begin from now on.
    ///
    /// Open connections go on as they are. A client that resumes a session sees no certificate.
    ///
    /// # Errors
    ///
    /// As for [`from_pem`](Self::from_pem). The pair in use stays.
    pub fn reload(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let pair = certified_key(certificate, key, self.config.crypto_provider())?;
        self.current.0.store(Arc::new(pair));
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("current", &self.current).finish_non_exhaustive()
    }
}

/// Which of the two files an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemRole {
    /// The certificate chain.
    Certificate,
    /// The private key.
    Key,
}

impl fmt::Display for PemRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate file",
            Self::Key => "private key file",
        })
    }
}

/// Why a certificate and key are not taken.
///
/// An opaque struct, so that it can carry more later; match on [`kind`](Self::kind).
#[derive(Debug)]
pub struct TlsError {
    kind: TlsErrorKind,
    source: Option<io::Error>,
}

impl TlsError {
    /// What is wrong.
    pub const fn kind(&self) -> TlsErrorKind {
        self.kind
    }
}

/// What is wrong with a certificate and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsErrorKind {
    /// The file cannot be read.
    Read(PemRole),
    /// The file is not PEM, or what should be in it is not.
    Pem(PemRole),
    /// What is in the file cannot be used.
    Unusable(PemRole),
    /// The key is not that of the certificate: perhaps only one of the two was replaced so far.
    Mismatch,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TlsErrorKind::Read(role) => write!(f, "cannot read the {role}"),
            TlsErrorKind::Pem(PemRole::Certificate) => {
                write!(f, "the {} holds no certificate in PEM", PemRole::Certificate)
            }
            TlsErrorKind::Pem(PemRole::Key) => {
                write!(f, "the {} holds no unencrypted private key in PEM", PemRole::Key)
            }
            TlsErrorKind::Unusable(PemRole::Certificate) => {
                write!(f, "the {} holds a certificate that cannot be read", PemRole::Certificate)
            }
            TlsErrorKind::Unusable(PemRole::Key) => {
                write!(f, "the {} holds a key of an unknown or unsupported kind", PemRole::Key)
            }
            TlsErrorKind::Mismatch => f.write_str("the private key is not that of the certificate"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<TlsErrorKind> for TlsError {
    fn from(kind: TlsErrorKind) -> Self {
        Self { kind, source: None }
    }
}

/// The pair that the next handshake gets.
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the pair, nothing but its length: the key is in it.
        f.debug_struct("Current").field("chain", &self.0.load().cert.len()).finish_non_exhaustive()
    }
}

fn certified_key(
    certificate: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    // The errors of the parsers are dropped: those of PEM quote the file's lines.
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsErrorKind::Pem(PemRole::Certificate))?;
    if chain.is_empty() {
        return Err(TlsErrorKind::Pem(PemRole::Certificate).into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsErrorKind::Pem(PemRole::Key))?;
    let signing_key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| TlsErrorKind::Unusable(PemRole::Key))?;
    let pair = CertifiedKey::new(chain, signing_key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsErrorKind::Mismatch.into()),
        Err(_) => Err(TlsErrorKind::Unusable(PemRole::Certificate).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh pair: certificate and key in PEM.
    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    fn refused(certificate: &str, key: &str) -> TlsErrorKind {
        let error = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err();
        error.kind()
    }

    fn in_use(tls: &ServerTls) -> CertificateDer<'static> {
        tls.current.0.load().cert[0].clone()
    }

    fn der(certificate: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()
    }

    #[test]
    fn a_pair_that_belongs_together_is_taken_and_another_is_not() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        assert!(ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).is_ok());
        assert_eq!(refused(&certificate, &other), TlsErrorKind::Mismatch);
    }

    #[test]
    fn what_is_missing_or_not_usable_is_named_by_its_file() {
        let (certificate, key) = pair();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let half = &key[..key.len() / 2];
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (certificate, key, kind) in [
            ("", &*key, TlsErrorKind::Pem(PemRole::Certificate)),
            (&*key, &*key, TlsErrorKind::Pem(PemRole::Certificate)),
            (not_der, &*key, TlsErrorKind::Unusable(PemRole::Certificate)),
            (&*certificate, "", TlsErrorKind::Pem(PemRole::Key)),
            (&*certificate, &*certificate, TlsErrorKind::Pem(PemRole::Key)),
            (&*certificate, &*encrypted, TlsErrorKind::Pem(PemRole::Key)),
            (&*certificate, half, TlsErrorKind::Pem(PemRole::Key)),
            (&*certificate, no_key, TlsErrorKind::Unusable(PemRole::Key)),
        ] {
            assert_eq!(refused(certificate, key), kind);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_by_its_role() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        let paths = [folder.path().join("tls.crt"), folder.path().join("tls.key")];
        let open = || ServerTls::from_files(&paths[0], &paths[1]);
        assert_eq!(open().unwrap_err().kind(), TlsErrorKind::Read(PemRole::Certificate));
        std::fs::write(&paths[0], certificate).unwrap();
        let error = open().unwrap_err();
        assert_eq!(error.to_string(), "cannot read the private key file");
        std::fs::write(&paths[1], key).unwrap();
        assert!(open().is_ok());
    }

    #[test]
    fn a_reload_that_fails_keeps_the_pair_in_use_until_one_succeeds() {
        let (old, new) = (pair(), pair());
        let tls = ServerTls::from_pem(old.0.as_bytes(), old.1.as_bytes()).unwrap();
        for (certificate, key, kind) in [
            (&new.0, &old.1, TlsErrorKind::Mismatch),
            (&old.0, &new.1, TlsErrorKind::Mismatch),
            (&new.0, &String::new(), TlsErrorKind::Pem(PemRole::Key)),
        ] {
            let error = tls.reload(certificate.as_bytes(), key.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert_eq!(in_use(&tls), der(&old.0));
        }
        tls.clone().reload(new.0.as_bytes(), new.1.as_bytes()).unwrap();
        assert_eq!(in_use(&tls), der(&new.0));
    }

    #[test]
    fn neither_errors_nor_debug_show_anything_of_the_key() {
        let (certificate, key) = pair();
        let secret = key.lines().nth(1).unwrap();
        let torn = format!("-----BEGIN {secret}\n{secret}\n");
        let error = ServerTls::from_pem(certificate.as_bytes(), torn.as_bytes()).unwrap_err();
        let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        let shown = format!("{error} {error:?} {tls:?}");
        assert!(!shown.contains(&secret[..16]), "{shown}");
        assert!(shown.contains("private key file") && shown.contains("ServerTls"));
    }
}
