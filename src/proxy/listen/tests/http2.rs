//! HTTP/2: its settings, and how long a connection may stay.

use std::time::Instant;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::client::TlsStream;

use super::tls::Pair;
use super::*;

const SHORT: Duration = Duration::from_millis(150);
const LONGER: Duration = Duration::from_millis(600);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct Http2 {
    requests: http2::SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    async fn new(stream: TlsStream<TcpStream>) -> Self {
        Self::with(stream, http2::Builder::new(TokioExecutor::new())).await
    }

    async fn with(stream: TlsStream<TcpStream>, builder: http2::Builder<TokioExecutor>) -> Self {
        let (requests, connection) = within(builder.handshake(TokioIo::new(stream))).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    fn request(
        &mut self,
        path: &str,
        body: &str,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let uri = format!("https://localhost{path}");
        let request = Request::post(uri).body(Full::from(body.to_owned())).unwrap();
        self.requests.send_request(request)
    }

    async fn ask(&mut self, path: &str, body: &str) -> (u16, String) {
        let answer = within(self.request(path, body)).await.unwrap();
        let status = answer.status().as_u16();
        let body = within(answer.into_body().collect()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn closed(&mut self) -> hyper::Result<()> {
        within(&mut self.connection).await.unwrap()
    }
}

/// One request on a connection of its own.
pub(super) async fn ask_once(
    stream: TlsStream<TcpStream>,
    path: &str,
    body: &str,
) -> (u16, String) {
    Http2::new(stream).await.ask(path, body).await
}

async fn start(config: ListenConfig) -> (Server, Pair) {
    let pair = Pair::new();
    let server = Server::start(ListenConfig { tls: Some(pair.server()), ..config });
    (server, pair)
}

async fn connect(server: &Server, pair: &Pair) -> Http2 {
    Http2::new(pair.connect(server, &["h2"]).await.unwrap()).await
}

/// A frame: its type, its flags, its stream and its payload.
struct Frame(u8, u8, u32, Vec<u8>);

impl Frame {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    fn bytes(&self) -> Vec<u8> {
        let Self(kind, flags, stream, payload) = self;
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([*kind, *flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// `None` at the end of the connection.
    async fn read(client: &mut Client<TlsStream<TcpStream>>) -> Option<Self> {
        let mut head = [0; 9];
        within(client.stream.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        within(client.stream.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Self(head[3], head[4], stream, payload))
    }
}

/// A request for `/` on `stream`, from HPACK's static table.
fn get(stream: u32) -> Vec<u8> {
    let (get, root, https, authority) = (0x82, 0x84, 0x87, 0x41);
    let (end_stream, end_headers) = (1, 4);
    Frame(
        Frame::HEADERS,
        end_stream | end_headers,
        stream,
        vec![get, root, https, authority, 1, b'a'],
    )
    .bytes()
}

async fn raw(server: &Server, pair: &Pair) -> Client<TlsStream<TcpStream>> {
    let mut client = Client::new(pair.connect(server, &["h2"]).await.unwrap());
    client.send(PREFACE).await;
    client.send(Frame(Frame::SETTINGS, 0, 0, Vec::new()).bytes()).await;
    client
}

#[tokio::test]
async fn the_settings_are_those_of_the_listener() {
    let (server, pair) = start(config()).await;
    let mut client = raw(&server, &pair).await;
    let Frame(kind, _, _, payload) = Frame::read(&mut client).await.unwrap();
    assert_eq!(kind, Frame::SETTINGS);
    let settings: std::collections::HashMap<u16, u32> = payload
        .chunks_exact(6)
        .map(|entry| {
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            (u16::from_be_bytes([entry[0], entry[1]]), value)
        })
        .collect();
    let (max_concurrent_streams, initial_window_size, max_header_list_size) = (3, 4, 6);
    assert_eq!(settings[&max_concurrent_streams], 64);
    assert_eq!(settings[&initial_window_size], 256 * 1024);
    assert_eq!(settings[&max_header_list_size], 16 * 1024);
    let enable_connect_protocol = 8;
    assert_eq!(settings.get(&enable_connect_protocol), None);
}

#[tokio::test]
async fn many_requests_share_a_connection_and_each_has_its_answer() {
    let (server, pair) = start(config()).await;
    let mut client = connect(&server, &pair).await;
    for length in [0, 1, 100_000] {
        let body = "x".repeat(length);
        let expected = format!("127.0.0.1 https /x {length}");
        assert_eq!(client.ask("/x", &body).await, (200, expected));
    }
    let held = client.request("/hold", "");
    assert_eq!(client.ask("/refuse", "body").await, (401, "refused".to_owned()));
    server.signals.release.notify_one();
    assert_eq!(within(held).await.unwrap().status(), 200);
    assert_eq!(load(&server.stats.accepted), 1);
}

#[tokio::test]
async fn a_header_list_over_16_kib_is_431_and_one_below_is_not() {
    let (server, pair) = start(config()).await;
    let mut client = connect(&server, &pair).await;
    for (length, status) in [(15_000, 200), (17_000, 431)] {
        let request = Request::get("https://localhost/").header("x", "x".repeat(length));
        let request = request.body(Full::default()).unwrap();
        let answer = within(client.requests.send_request(request)).await;
        // hyper's client minds the server's limit by itself.
        match answer {
            Ok(answer) => assert_eq!(answer.status(), status),
            Err(error) => assert_eq!(status, 431, "{error:?}"),
        }
    }
    assert_eq!(load(&server.signals.requests), 1);
}

#[tokio::test]
async fn a_connection_without_a_request_is_told_to_go_when_one_is_due() {
    let (server, pair) = start(ListenConfig { head_timeout: SHORT, ..config() }).await;
    let begun = Instant::now();
    let mut client = connect(&server, &pair).await;
    client.closed().await.unwrap();
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(load(&server.stats.head_timeouts), 1);
    server.idle().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go_after_its_own_time() {
    let config = ListenConfig { head_timeout: SHORT, http2_idle: LONGER, ..config() };
    let (server, pair) = start(config).await;
    let mut client = connect(&server, &pair).await;
    for _ in 0..3 {
        assert_eq!(client.ask("/x", "").await.0, 200);
        tokio::time::sleep(LONGER / 3).await;
        assert!(!client.connection.is_finished());
    }
    let begun = Instant::now();
    client.closed().await.unwrap();
    assert!(begun.elapsed() >= LONGER / 3);
    assert_eq!(load(&server.stats.head_timeouts), 0);
    server.idle().await;
}

#[tokio::test]
async fn a_connection_is_not_idle_while_the_service_works() {
    let (server, pair) = start(ListenConfig { http2_idle: SHORT, ..config() }).await;
    let mut client = connect(&server, &pair).await;
    let held = client.request("/hold", "");
    tokio::time::sleep(LONGER).await;
    server.signals.release.notify_one();
    assert_eq!(within(held).await.unwrap().status(), 200);
    client.closed().await.unwrap();
}

#[tokio::test]
async fn a_client_that_opens_no_window_for_its_answer_is_idle() {
    let (server, pair) = start(ListenConfig { http2_idle: SHORT, ..config() }).await;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let mut client = Http2::with(pair.connect(&server, &["h2"]).await.unwrap(), builder).await;
    let answer = within(client.request("/x", "")).await.unwrap();
    assert_eq!(answer.status(), 200);
    server.idle_after(1).await;
    assert!(within(answer.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn a_flood_of_reset_requests_ends_the_connection() {
    let (server, pair) = start(config()).await;
    let mut client = raw(&server, &pair).await;
    let cancel = 8_u32.to_be_bytes().to_vec();
    let mut flood = Vec::new();
    for stream in (1..).step_by(2).take(1000) {
        flood.extend(get(stream));
        flood.extend(Frame(Frame::RST_STREAM, 0, stream, cancel.clone()).bytes());
    }
    // The server may close before it has taken all.
    let _ = within(client.stream.write_all(&flood)).await;
    let mut goaway = None;
    while let Some(Frame(kind, _, _, payload)) = Frame::read(&mut client).await {
        if kind == Frame::GOAWAY {
            goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    let enhance_your_calm = 11;
    assert_eq!(goaway, Some(enhance_your_calm));
    server.idle_after(1).await;
    assert!(load(&server.signals.requests) < 1000);
}

#[tokio::test]
async fn requests_that_are_not_reset_are_answered() {
    let (server, pair) = start(config()).await;
    let mut client = raw(&server, &pair).await;
    let streams: Vec<u32> = (1..).step_by(2).take(60).collect();
    client.send(streams.iter().flat_map(|stream| get(*stream)).collect::<Vec<_>>()).await;
    let mut answered = Vec::new();
    while answered.len() < streams.len() {
        let Frame(kind, _, stream, _) = Frame::read(&mut client).await.unwrap();
        if kind == Frame::DATA {
            answered.push(stream);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, streams);
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_closes_idle_connections() {
    let (server, pair) = start(config()).await;
    let signals = Arc::clone(&server.signals);
    let mut idle = connect(&server, &pair).await;
    assert_eq!(idle.ask("/x", "").await.0, 200);
    let mut busy = connect(&server, &pair).await;
    let held = busy.request("/hold", "");
    until(|| load(&signals.held) == 1).await;
    let stopped = server.stop();
    idle.closed().await.unwrap();
    signals.release.notify_one();
    assert_eq!(within(held).await.unwrap().status(), 200);
    busy.closed().await.unwrap();
    assert_eq!(stopped.await, 0);
}

#[tokio::test]
async fn a_drain_cuts_a_request_that_has_not_ended_and_gives_it_up() {
    let (server, pair) = start(ListenConfig { drain: SHORT, ..config() }).await;
    let signals = Arc::clone(&server.signals);
    let mut client = connect(&server, &pair).await;
    let held = client.request("/hold", "");
    until(|| load(&signals.held) == 1).await;
    assert_eq!(server.stop().await, 1);
    assert!(within(held).await.is_err());
    until(|| load(&signals.held) == 0).await;
}
