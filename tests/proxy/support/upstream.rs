//! A service behind the gate that writes down what it gets, and answers as it is told.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::{PATIENCE, until};

/// What the service does when a request is there as a whole.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers with this status, these headers and this body.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Writes this, and closes.
    Raw(&'static str),
    /// Holds the request until [`Upstream::release`], then answers 200.
    Hold,
    /// Answers after this time with this status.
    Wait(Duration, u16),
    /// Closes without a word.
    Close,
    /// Resets the connection.
    Reset,
    /// What this makes of the request.
    By(fn(&Received) -> Self),
}

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// When all of it was there.
    pub(crate) at: Instant,
    /// Which it is of all; the first is 1.
    pub(crate) number: usize,
    /// Whether the service takes it, or will.
    pub(crate) is_taken: bool,
    /// Method, target and version.
    pub(crate) line: String,
    /// In the order in which they came, names as they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The id under which the gate knows it.
    #[track_caller]
    pub(crate) fn id(&self) -> &str {
        self.header("hookgate-delivery").expect("an id")
    }
}

/// The service. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Before the usual reply comes into play.
    next: VecDeque<Reply>,
    usual: Reply,
    received: Vec<Received>,
    count: usize,
    /// Keeps nothing of a request.
    forgets: bool,
    /// Requests that may be let go.
    releases: usize,
    holding: usize,
}

impl Upstream {
    /// A service that answers 200 to everything.
    pub(crate) fn start() -> Self {
        Self::with(Reply::Answer(200, &[("content-type", "text/plain")], "indexed"))
    }

    /// A service whose usual reply is this one.
    pub(crate) fn with(usual: Reply) -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"), usual)
    }

    fn on(listener: TcpListener, usual: Reply) -> Self {
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                next: VecDeque::new(),
                usual,
                received: Vec::new(),
                count: 0,
                forgets: false,
                releases: 0,
                holding: 0,
            }),
            released: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Counts requests from now on, and keeps nothing of them.
    pub(crate) fn forget(&self) {
        self.shared.state().forgets = true;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// What is done with the next request, once.
    pub(crate) fn next(&self, reply: Reply) {
        self.shared.state().next.push_back(reply);
    }

    /// What is done with every request from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        self.shared.state().usual = reply;
    }

    /// Everything that came since this was last asked.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.shared.state().received)
    }

    /// The only request that came since this was last asked.
    #[track_caller]
    pub(crate) fn take_one(&self) -> Received {
        let mut received = self.take();
        assert_eq!(received.len(), 1, "{received:#?}");
        received.remove(0)
    }

    /// The ids of all that came since this was last asked.
    pub(crate) fn take_ids(&self) -> Vec<String> {
        self.take().iter().map(|one| one.id().to_owned()).collect()
    }

    /// How many requests came in all.
    pub(crate) fn count(&self) -> usize {
        self.shared.state().count
    }

    /// Waits until so many requests are held.
    #[track_caller]
    pub(crate) fn holds(&self, wanted: usize) {
        until("upstream holds requests", || (self.shared.state().holding == wanted).then_some(()));
    }

    /// Lets one request go that is held.
    pub(crate) fn release(&self) {
        self.shared.state().releases += 1;
        self.shared.released.notify_all();
    }
}

/// A service that is down: connections to its port are refused.
#[derive(Debug)]
pub(crate) struct Down(Socket);

impl Down {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // Whose port it is until it listens.
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a port");
        Self(socket)
    }

    pub(crate) fn url(&self) -> String {
        let address = self.0.local_addr().expect("an address").as_socket().expect("of IP");
        format!("http://{address}")
    }

    /// From now on it answers 200 to everything.
    pub(crate) fn up(self) -> Upstream {
        self.0.listen(128).expect("a port of our own");
        Upstream::on(self.0.into(), Reply::Answer(200, &[], ""))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.released.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the service behind the gate panicked");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked")
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    for stream in listener.incoming() {
        if shared.is_stopped() {
            break;
        }
        let Ok(stream) = stream else { continue };
        let (ended, open) = connections.into_iter().partition(JoinHandle::is_finished);
        connections = open;
        join(ended);
        let shared = Arc::clone(shared);
        connections.push(std::thread::spawn(move || {
            // A client that goes away is none of ours.
            let _ = serve(stream, &shared);
        }));
    }
    join(connections);
}

fn join(connections: Vec<JoinHandle<()>>) {
    for connection in connections {
        connection.join().expect("a connection's thread");
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    // So that a connection that is kept alive notices the end.
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(mut received) = receive(&mut stream, &mut buffer, shared)? {
        let reply = {
            let mut state = shared.state();
            state.count += 1;
            received.number = state.count;
            let next = state.next.pop_front();
            let mut reply = next.unwrap_or_else(|| state.usual.clone());
            while let Reply::By(judge) = reply {
                reply = judge(&received);
            }
            received.is_taken = match reply {
                Reply::Answer(status, ..) | Reply::Wait(_, status) => (200..300).contains(&status),
                Reply::Hold => true,
                _ => false,
            };
            if !state.forgets {
                state.received.push(received);
            }
            reply
        };
        match reply {
            Reply::By(_) => unreachable!("judged above"),
            Reply::Answer(status, headers, body) => answer(&mut stream, status, headers, body)?,
            Reply::Raw(text) => return stream.write_all(text.as_bytes()),
            Reply::Hold => {
                hold(shared);
                answer(&mut stream, 200, &[], "held")?;
            }
            Reply::Wait(time, status) => {
                std::thread::sleep(time);
                answer(&mut stream, status, &[], "")?;
            }
            Reply::Close => return Ok(()),
            Reply::Reset => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
        }
    }
    Ok(())
}

fn hold(shared: &Shared) {
    let mut state = shared.state();
    state.holding += 1;
    while state.releases == 0 && !shared.is_stopped() {
        let waited = shared.released.wait_timeout(state, Duration::from_millis(50));
        state = waited.expect("no thread panicked").0;
    }
    state.releases = state.releases.saturating_sub(1);
    state.holding -= 1;
}

fn answer(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(text.as_bytes())
}

/// The next request; `None` at the end of the connection. The gate always declares a length.
fn receive(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    shared: &Shared,
) -> io::Result<Option<Received>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if !fill(stream, buffer, shared)? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let at = Instant::now();
    let mut received = Received { at, number: 0, is_taken: false, line, headers, body: Vec::new() };
    let length = received.header("content-length").and_then(|length| length.parse().ok());
    let length = length.unwrap_or(0);
    while buffer.len() < length {
        if !fill(stream, buffer, shared)? {
            return Ok(None);
        }
    }
    received.body = buffer.drain(..length).collect();
    received.at = Instant::now();
    Ok(Some(received))
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>, shared: &Shared) -> io::Result<bool> {
    let mut piece = [0; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                buffer.extend_from_slice(&piece[..read]);
                return Ok(true);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                if shared.is_stopped() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}
