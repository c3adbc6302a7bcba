use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{
    UnixDatagram, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

#[test]
fn an_address_is_what_it_is_written_as() {
    for (text, is_local) in [
        ("127.0.0.1:8080", true),
        ("[::1]:0", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:8080", false),
        ("unix:/run/gate.sock", true),
        ("systemd:gate", false),
        ("systemd:hookgate.socket", false),
    ] {
        let address = ListenAddress::parse(text, Some(Path::new("/etc"))).expect(text);
        assert_eq!((&*address.to_string(), address.is_local()), (text, is_local));
    }
    let relative = |folder| ListenAddress::parse("unix:gate.sock", folder).unwrap();
    assert_eq!(relative(Some(Path::new("/etc"))), ListenAddress::Unix("/etc/gate.sock".into()));
    assert_eq!(relative(None), ListenAddress::Unix("gate.sock".into()));
    assert_eq!(relative(None).origin(true), "unix:gate.sock:");
    let ip = ListenAddress::from(SocketAddr::from(([127, 0, 0, 1], 80)));
    assert_eq!(
        (&*ip.origin(true), &*ip.origin(false)),
        ("https://127.0.0.1:80", "http://127.0.0.1:80")
    );
}

#[test]
fn an_address_that_is_none_is_refused_with_what_would_be_right() {
    use AddressError as E;
    let long = format!("unix:/{}", "x".repeat(110));
    for (text, expected) in [
        ("", E::Malformed),
        ("8080", E::Malformed),
        ("localhost:8080", E::Malformed),
        ("127.0.0.1", E::Malformed),
        ("systemd", E::Malformed),
        ("unix:", E::Path),
        ("unix:/run/", E::Path),
        (&long, E::TooLong),
        ("systemd:", E::Name),
        ("systemd:a:b", E::Name),
        ("systemd:a b", E::Name),
    ] {
        assert_eq!(ListenAddress::parse(text, None), Err(expected), "{text}");
    }
    // Together with its folder it counts.
    let folder = format!("/{}", "x".repeat(90));
    assert!(ListenAddress::parse("unix:gate-of-hooks.sock", None).is_ok());
    let joined = ListenAddress::parse("unix:gate-of-hooks.sock", Some(Path::new(&folder)));
    assert_eq!(joined, Err(E::TooLong));
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_socket_has_the_mode_that_it_is_to_have_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    for mode in [0o600, 0o660, 0o666] {
        let (socket, placed) = bind_unix(&path, mode).unwrap();
        assert_eq!(mode_of(&path), mode);
        StdUnixStream::connect(&path).unwrap();
        drop((socket, placed));
        assert!(!path.exists());
    }
}

#[test]
fn a_socket_on_which_somebody_listens_is_not_stolen_and_one_that_was_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let live = StdUnixListener::bind(&path).unwrap();
    let error = bind_unix(&path, 0o600).unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::InUse);
    assert_eq!(error.to_string(), format!("another process listens on {}", path.display()));
    live.accept().unwrap();
    StdUnixStream::connect(&path).expect("still there");
    drop(live);
    let (socket, _placed) = bind_unix(&path, 0o600).unwrap();
    StdUnixStream::connect(&path).unwrap();
    assert_eq!(socket.accept().map(drop).map_err(|error| error.kind()), Ok(()));
}

#[test]
fn a_socket_whose_queue_is_full_is_a_live_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _queued = StdUnixStream::connect(&path).unwrap();
    assert_eq!(bind_unix(&path, 0o600).unwrap_err().kind(), BindErrorKind::InUse);
    assert!(path.exists());
}

#[test]
fn what_is_no_stream_socket_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "precious").unwrap();
    assert_eq!(bind_unix(&path, 0o600).unwrap_err().kind(), BindErrorKind::NotASocket);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let path = dir.path().join("datagrams");
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert_eq!(bind_unix(&path, 0o600).unwrap_err().kind(), BindErrorKind::Io);
    assert!(path.exists());
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(bind_unix(&link, 0o600).unwrap_err().kind(), BindErrorKind::NotASocket);
}

#[test]
fn of_many_that_find_a_socket_that_was_left_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    drop(StdUnixListener::bind(&path).unwrap());
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| bind_unix(&path, 0o600).map_err(|it| it.kind())))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused = all.iter().filter(|it| matches!(it, Err(BindErrorKind::InUse))).count();
    assert_eq!((refused, all.len()), (7, 8), "{all:?}");
    StdUnixStream::connect(&path).expect("the one listens");
}

#[test]
fn a_socket_that_took_the_name_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let first = bind_unix(&path, 0o600).unwrap();
    fs::rename(&path, dir.path().join("moved.sock")).unwrap();
    let second = bind_unix(&path, 0o600).unwrap();
    drop(first);
    StdUnixStream::connect(&path).unwrap();
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn connections_come_with_an_address_over_tcp_and_without_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let none = &mut PassedSockets::default();
    let unix = Socket::bind(&ListenAddress::Unix(path.clone()), 0o600, none).unwrap();
    assert_eq!(unix.local_addr(), &ListenAddress::Unix(path.clone()));
    let mut client = UnixStream::connect(&path).await.unwrap();
    let (mut stream, peer) = unix.accept().await.unwrap();
    assert_eq!(peer, None);
    client.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello");
    stream.say_and_end(b"goodbye");
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "goodbye");

    let any = ListenAddress::Ip(SocketAddr::from(([127, 0, 0, 1], 0)));
    let tcp = Socket::bind(&any, 0o600, none).unwrap();
    let address = tcp.local_addr().as_ip().unwrap();
    assert_ne!(address.port(), 0);
    let _client = tokio::net::TcpStream::connect(address).await.unwrap();
    let (stream, peer) = tcp.accept().await.unwrap();
    assert_eq!(peer, Some(address.ip()));
    assert!(matches!(stream, Stream::Tcp(_)));

    let error = Socket::bind(&ListenAddress::Passed("gate".into()), 0o600, none).unwrap_err();
    assert!(error.to_string().contains("no socket was passed"), "{error}");
}
