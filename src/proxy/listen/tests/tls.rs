//! TLS: which protocol, which certificate, and for how long.

use std::time::Instant;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::proxy::tls::{ServerTls, TlsErrorKind};

const SHORT: Duration = Duration::from_millis(150);

/// A certificate and its key, in PEM.
pub(super) struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    pub(super) fn new() -> Self {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { certificate: pair.cert.pem(), key: pair.signing_key.serialize_pem() }
    }

    pub(super) fn server(&self) -> ServerTls {
        ServerTls::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    /// Connects, trusting this certificate alone.
    pub(super) async fn connect(
        &self,
        server: &Server,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(server.connect().await.stream, alpn).await
    }

    /// The same over a connection that there is already.
    pub(super) async fn over(
        &self,
        stream: TcpStream,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

fn start(pair: &Pair, config: ListenConfig) -> Server {
    Server::start(ListenConfig { tls: Some(pair.server()), ..config })
}

#[tokio::test]
async fn http_1_is_spoken_by_alpn_and_without_alpn() {
    let pair = Pair::new();
    let server = start(&pair, config());
    for alpn in [&["http/1.1"][..], &[]] {
        let mut client = Client::new(pair.connect(&server, alpn).await.unwrap());
        for _ in 0..2 {
            assert_eq!(client.ask(GET).await.body, "127.0.0.1 https / 0");
        }
    }
}

#[tokio::test]
async fn http_2_is_spoken_by_alpn_and_preferred() {
    let pair = Pair::new();
    let server = start(&pair, config());
    let stream = pair.connect(&server, &["http/1.1", "h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (status, body) = http2::ask_once(stream, "/x", "abc").await;
    assert_eq!((status, &*body), (200, "127.0.0.1 https /x 3"));
}

#[tokio::test]
async fn a_client_that_speaks_neither_is_turned_away() {
    let pair = Pair::new();
    let server = start(&pair, config());
    assert!(pair.connect(&server, &["spdy/3"]).await.is_err());
    server.idle_after(1).await;
    assert_eq!(load(&server.stats.handshake_failures), 1);
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_a_failed_handshake() {
    let pair = Pair::new();
    let server = start(&pair, config());
    let mut client = server.connect().await;
    client.send(GET).await;
    client.closed().await;
    server.idle_after(1).await;
    assert_eq!(load(&server.stats.handshake_failures), 1);
    assert_eq!(load(&server.signals.requests), 0);
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut() {
    let pair = Pair::new();
    let server = start(&pair, ListenConfig { handshake_timeout: SHORT, ..config() });
    let begun = Instant::now();
    let mut client = server.connect().await;
    // The beginning of a handshake record.
    client.send([0x16, 3, 1, 2, 0]).await;
    client.closed().await;
    assert!(begun.elapsed() >= SHORT);
    server.idle_after(1).await;
    assert_eq!(load(&server.stats.handshake_timeouts), 1);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_handshake() {
    let pair = Pair::new();
    let server = start(&pair, config());
    let stats = Arc::clone(&server.stats);
    let mut client = server.connect().await;
    until(|| load(&stats.active) == 1).await;
    assert_eq!(server.stop().await, 0);
    client.closed().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_handshakes_and_a_half_replaced_pair_for_none() {
    let (old, new) = (Pair::new(), Pair::new());
    let tls = old.server();
    let server = Server::start(ListenConfig { tls: Some(tls.clone()), ..config() });
    let mut before = Client::new(old.connect(&server, &[]).await.unwrap());
    assert_eq!(before.ask(GET).await.status, 200);

    let error = tls.reload(new.certificate.as_bytes(), old.key.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), TlsErrorKind::Mismatch);
    assert!(old.connect(&server, &[]).await.is_ok());
    assert!(new.connect(&server, &[]).await.is_err());

    tls.reload(new.certificate.as_bytes(), new.key.as_bytes()).unwrap();
    assert!(old.connect(&server, &[]).await.is_err());
    let after = new.connect(&server, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(after.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(before.ask(GET).await.status, 200, "open connections go on");
}

#[tokio::test]
async fn a_source_over_its_share_is_closed_before_the_handshake() {
    let pair = Pair::new();
    let server = start(&pair, ListenConfig { connections: 4, per_source: 25, ..config() });
    let mut client = Client::new(pair.connect(&server, &[]).await.unwrap());
    assert_eq!(client.ask(GET).await.status, 200);
    let mut refused = server.connect().await;
    refused.closed().await;
    assert_eq!(refused.buffer, b"", "plain text on a TLS port would help nobody");
    assert_eq!(load(&server.stats.refused_by_share), 1);
}

#[tokio::test]
async fn an_early_refusal_arrives_over_tls_too() {
    let pair = Pair::new();
    let server = start(&pair, ListenConfig { linger: PATIENCE, ..config() });
    let mut client = Client::new(pair.connect(&server, &[]).await.unwrap());
    let answer =
        client.ask("POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await;
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert_eq!(client.rest().await, b"");
    for _ in 0..10 {
        client.send([b'x'; 4096]).await;
    }
    drop(client);
    server.idle().await;
}
