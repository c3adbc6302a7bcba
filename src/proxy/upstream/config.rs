//! Where upstream is and how it is reached: read, checked, and ready to be used.
//!
//! A service on a Unix socket is written as nginx writes it: `unix:/run/service.sock`, and with a path
//! `unix:/run/service.sock:/base`. It hears `Host: localhost`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::HeaderValue;
use http::uri::{Authority, Scheme};
use hyper_rustls::HttpsConnector;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::connect::Connector;
use crate::proxy::socket::check_path;

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// A service behind the gate.
///
/// Two that are equal reach the same service in the same way, so that a configuration that is read
/// again need not give up its connections.
///
/// `Debug` shows no path, since it can hold upstream's key.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// The authority as the value of `Host`.
    pub(super) host: HeaderValue,
    /// The URL's own path without a final slash: empty, or it begins with one.
    pub(super) path: String,
    /// The Unix socket that is connected in place of the authority.
    pub(super) socket: Option<Arc<Path>>,
    pub(super) timeout: Duration,
    /// The only authorities that are trusted; `None` for the public ones.
    authorities: Option<Arc<[CertificateDer<'static>]>>,
}

impl UpstreamConfig {
    /// What one call may take unless [`timeout`](Self::timeout) says otherwise: 30 seconds.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    /// For an `http` or `https` URL with a host, a port if need be, and a path that stands before
    /// that of every request; or for the path of a Unix socket behind `unix:`, and behind another
    /// colon that path.
    ///
    /// # Errors
    ///
    /// If the URL is something else, has a user or password, a query or a fragment. The error never
    /// repeats the URL.
    pub fn new(url: &str) -> Result<Self, UpstreamConfigError> {
        use UpstreamConfigError as E;
        // `Uri` would drop it without a word.
        if url.contains('#') {
            return Err(E::Fragment);
        }
        if let Some(rest) = url.strip_prefix(UNIX) {
            return Self::unix(rest);
        }
        let uri: Uri = url.parse().map_err(|_| E::Malformed)?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.ok_or(E::Scheme)?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(E::Scheme);
        }
        let authority = parts.authority.ok_or(E::Host)?;
        if authority.as_str().contains('@') {
            return Err(E::UserInfo);
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(name).map_err(|_| E::Host)?;
        // `Authority` lets an empty port and one of 70000 pass, and the client would then take the
        // scheme's.
        match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {}
            Some(port) if port.strip_prefix(':').is_some_and(is_port) => {}
            _ => return Err(E::Port),
        }
        let path = parts.path_and_query.ok_or(E::Malformed)?;
        if path.query().is_some() {
            return Err(E::Query);
        }
        Ok(Self {
            host: HeaderValue::from_str(authority.as_str()).map_err(|_| E::Host)?,
            path: path.path().trim_end_matches('/').to_owned(),
            scheme,
            authority,
            socket: None,
            timeout: Self::DEFAULT_TIMEOUT,
            authorities: None,
        })
    }

    fn unix(text: &str) -> Result<Self, UpstreamConfigError> {
        let (socket, path) = text.split_once(':').unwrap_or((text, ""));
        if !socket.starts_with('/') || socket.ends_with('/') || check_path(socket.as_ref()).is_err()
        {
            return Err(UpstreamConfigError::Socket);
        }
        if !path.is_empty() && !path.starts_with('/') {
            return Err(UpstreamConfigError::SocketPath);
        }
        let service = Self::new(&format!("http://localhost{path}"))?;
        Ok(Self { socket: Some(Path::new(socket).into()), ..service })
    }

    /// What one call may take from its begin to the last byte of the answer.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub fn timeout(self, timeout: Duration) -> Result<Self, UpstreamConfigError> {
        if timeout.is_zero() {
            return Err(UpstreamConfigError::Timeout);
        }
        Ok(Self { timeout, ..self })
    }

    /// The text of a file with the certificates (PEM) of the only authorities that are trusted.
    ///
    /// They take the place of the public authorities: whoever names his own authority for a service
    /// does not want others to be able to vouch for it. To trust both, put both into the file.
    /// Without this, the public authorities are those of Mozilla's list. It has no effect on an
    /// `http` URL.
    ///
    /// # Errors
    ///
    /// If the text holds no certificate, or one that cannot be read.
    pub fn certificate_authorities(self, pem: &[u8]) -> Result<Self, UpstreamConfigError> {
        let authorities = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Arc<[_]>, _>>()
            .map_err(|_| UpstreamConfigError::Certificate)?;
        if authorities.is_empty() {
            return Err(UpstreamConfigError::NoCertificate);
        }
        let mut roots = RootCertStore::empty();
        for authority in authorities.iter() {
            roots.add(authority.clone()).map_err(|_| UpstreamConfigError::Certificate)?;
        }
        Ok(Self { authorities: Some(authorities), ..self })
    }

    /// Scheme and authority, such as `https://jira.example.com:8443`, or `unix:/run/service.sock`: what a
    /// log may show.
    pub fn origin(&self) -> String {
        match &self.socket {
            Some(socket) => format!("{UNIX}{}", socket.display()),
            None => format!("{}://{}", self.scheme, self.authority),
        }
    }

    /// What makes connections to the service, over TLS if it wants that.
    pub fn connector(&self) -> HttpsConnector<Connector> {
        HttpsConnector::from((Connector::new(self.socket.clone()), self.client_tls()))
    }

    /// The host, without brackets, and the port.
    pub fn address(&self) -> (&str, u16) {
        let default = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        (host, self.authority.port_u16().unwrap_or(default))
    }

    /// TLS towards the service, with the authorities that are trusted.
    pub fn client_tls(&self) -> ClientConfig {
        // The provider is named: the default of a process that has two of them panics.
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions of TLS")
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    fn roots(&self) -> RootCertStore {
        match &self.authorities {
            // All of them were accepted when they were read.
            Some(own) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(own.iter().cloned());
                roots
            }
            None => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        }
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConfig")
            .field("origin", &self.origin())
            .field("timeout", &self.timeout)
            .field("own_authorities", &self.authorities.as_ref().map_or(0, |own| own.len()))
            .finish_non_exhaustive()
    }
}

/// The error of describing an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamConfigError {
    /// Not a URL at all.
    Malformed,
    /// No scheme, or another one than `http` and `https`.
    Scheme,
    /// No host, or none that could be looked up.
    Host,
    /// A user or password.
    UserInfo,
    /// A port that is none.
    Port,
    /// A query.
    Query,
    /// A fragment.
    Fragment,
    /// No absolute path of a Unix socket, or one that is too long.
    Socket,
    /// Something other than a path behind that of a Unix socket.
    SocketPath,
    /// A timeout of zero.
    Timeout,
    /// No certificate in the text that should hold some.
    NoCertificate,
    /// A certificate that cannot be read.
    Certificate,
}

impl fmt::Display for UpstreamConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a URL, expected one such as http://127.0.0.1:9000",
            Self::Scheme => "the upstream URL must begin with http://, https:// or unix:/",
            Self::Host => "the upstream URL has no host name or address that could be looked up",
            Self::UserInfo => "the upstream URL must not have a user or password",
            Self::Port => "the port of the upstream URL must be a number from 1 to 65535",
            Self::Query => "the upstream URL must not have a query",
            Self::Fragment => "the upstream URL must not have a fragment",
            Self::Socket => {
                "expected the absolute path of a Unix socket of at most some 100 bytes, such as \
                 unix:/run/service.sock"
            }
            Self::SocketPath => {
                "behind the path of the socket and a colon comes another path, such as \
                 unix:/run/service.sock:/base"
            }
            Self::Timeout => "the upstream timeout must be longer than zero",
            Self::NoCertificate => {
                "no certificate found, expected -----BEGIN CERTIFICATE----- sections (PEM)"
            }
            Self::Certificate => "a certificate of the upstream authorities cannot be read",
        })
    }
}

impl std::error::Error for UpstreamConfigError {}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0) && !text.starts_with('+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_scheme_host_and_the_path_before_all_others() {
        for (url, origin, path) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000", ""),
            ("http://127.0.0.1:9000/", "http://127.0.0.1:9000", ""),
            ("HTTPS://jira.example.com/jira//", "https://jira.example.com", "/jira"),
            ("http://[::1]:8080/a/b/", "http://[::1]:8080", "/a/b"),
            ("http://indexer", "http://indexer", ""),
            ("https://my_host.internal:443", "https://my_host.internal:443", ""),
        ] {
            let config = UpstreamConfig::new(url).expect(url);
            assert_eq!((config.origin().as_str(), config.path.as_str()), (origin, path));
            assert_eq!(config.timeout, Duration::from_secs(30));
        }
    }

    #[test]
    fn a_unix_socket_may_have_a_path_behind_it() {
        for (url, path) in [
            ("unix:/run/svc.sock", ""),
            ("unix:/run/svc.sock:", ""),
            ("unix:/run/svc.sock:/", ""),
            ("unix:/run/svc.sock:/jira/", "/jira"),
            ("unix:/run/svc.sock:/a:b/c", "/a:b/c"),
        ] {
            let config = UpstreamConfig::new(url).expect(url);
            assert_eq!((&*config.origin(), &*config.path), ("unix:/run/svc.sock", path), "{url}");
            assert_eq!(
                (&config.scheme, config.host.as_bytes()),
                (&Scheme::HTTP, &b"localhost"[..])
            );
        }
        let other = UpstreamConfig::new("unix:/run/other.sock").unwrap();
        assert_ne!(UpstreamConfig::new("unix:/run/svc.sock").unwrap(), other);
        assert_ne!(UpstreamConfig::new("http://localhost").unwrap(), other);
        let long = format!("unix:/{}", "x".repeat(200));
        assert_eq!(UpstreamConfig::new(&long), Err(UpstreamConfigError::Socket));
    }

    #[test]
    fn a_url_that_is_something_else_is_refused_with_the_reason() {
        use UpstreamConfigError as E;
        for (url, expected) in [
            ("", E::Malformed),
            ("http://", E::Malformed),
            ("http:///path", E::Malformed),
            ("http://a b/", E::Malformed),
            ("127.0.0.1:9000", E::Scheme),
            ("indexer", E::Scheme),
            ("/path", E::Scheme),
            ("ftp://indexer/", E::Scheme),
            ("unix://indexer/", E::Socket),
            ("unix:", E::Socket),
            ("unix:run/a.sock", E::Socket),
            ("unix:/run/", E::Socket),
            ("unix:/run/:/base", E::Socket),
            ("unix:/run/a.sock:base", E::SocketPath),
            ("unix:/run/a.sock:@host/", E::SocketPath),
            ("unix:/run/a.sock:/base?key=1", E::Query),
            ("unix:/run/a.sock:/base#top", E::Fragment),
            ("unix:/run/a.sock:/a b", E::Malformed),
            ("http://user@indexer/", E::UserInfo),
            ("http://user:password@indexer/", E::UserInfo),
            ("http://:9000/", E::Host),
            ("http://a..b/", E::Host),
            ("http://indexer:/", E::Port),
            ("http://indexer:0/", E::Port),
            ("http://indexer:70000/", E::Port),
            ("http://indexer:http/", E::Port),
            ("http://[::1]x:80/", E::Port),
            ("http://indexer/?key=1", E::Query),
            ("http://indexer/path?", E::Query),
            ("http://indexer/#top", E::Fragment),
        ] {
            assert_eq!(UpstreamConfig::new(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_path_of_the_url() {
        let config = UpstreamConfig::new("http://indexer/reindex/s3cret-key").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        let error = UpstreamConfig::new("http://indexer/s3cret-key?").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        let config = UpstreamConfig::new("http://indexer").unwrap();
        let longer = config.clone().timeout(Duration::from_millis(1)).unwrap();
        assert_ne!(longer, config);
        assert_eq!(config.timeout(Duration::ZERO), Err(UpstreamConfigError::Timeout));
    }

    #[test]
    fn own_authorities_take_the_place_of_the_public_ones() {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let public = UpstreamConfig::new("https://indexer").unwrap();
        assert!(public.roots().len() > 50);
        let config = public.clone().certificate_authorities(own.as_bytes()).unwrap();
        assert_eq!(config.roots().len(), 1);
        let two = config.clone().certificate_authorities(own.repeat(2).as_bytes()).unwrap();
        assert_eq!(two.roots().len(), 2);
        assert!(config != public && config != two && config == config.clone());
    }

    #[test]
    fn a_file_without_a_good_certificate_is_refused() {
        use UpstreamConfigError as E;
        let key = rcgen::KeyPair::generate().unwrap();
        let config = UpstreamConfig::new("https://indexer").unwrap();
        let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n";
        let empty = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        for (pem, expected) in [
            ("", E::NoCertificate),
            ("no PEM at all", E::NoCertificate),
            (&*key.serialize_pem(), E::NoCertificate),
            (torn, E::Certificate),
            (empty, E::Certificate),
        ] {
            let error = config.clone().certificate_authorities(pem.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{pem}");
        }
    }
}
