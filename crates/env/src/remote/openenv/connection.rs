//! One WebSocket, with a limit on how long anything may take.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::client::{IntoClientRequest as _, client_with_config};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::address::Address;
use crate::remote::{LONGEST_ANSWER, start_of};

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody answers at the address; again may help.
    Unreachable(String),
    /// The connection ended; another one may work.
    Lost(String),
    /// It took too long.
    Timeout(Duration),
    /// Somebody answers, but not like this.
    Nonsense(String),
}

/// A TCP stream that knows until when it may wait.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    /// `None`: what is there, without waiting.
    until: Option<Instant>,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until {
            None => Ok(None),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() { Err(late()) } else { Ok(Some(left)) }
            }
        }
    }
}

fn late() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

/// A socket's time-out has another kind on some systems.
fn in_time<T>(result: io::Result<T>, waited: bool) -> io::Result<T> {
    match result {
        Err(e) if waited && e.kind() == io::ErrorKind::WouldBlock => Err(late()),
        other => other,
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        if left.is_some() {
            self.stream.set_read_timeout(left)?;
        }
        in_time(self.stream.read(buffer), left.is_some())
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        if left.is_some() {
            self.stream.set_write_timeout(left)?;
        }
        in_time(self.stream.write(buffer), left.is_some())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A session on the server.
#[derive(Debug)]
pub(super) struct Connection {
    socket: WebSocket<Timed>,
    alive: bool,
}

impl Connection {
    /// Connects, within `patience`.
    pub(super) fn open(address: &Address, patience: Duration) -> Result<Self, Trouble> {
        let until = Instant::now() + patience;
        let unreachable = |e: &io::Error| Trouble::Unreachable(e.to_string());
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut stream = None;
        for place in address.resolve().map_err(|e| unreachable(&e))? {
            match connect(place, until) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = match stream {
            Some(stream) => stream,
            None if last.kind() == io::ErrorKind::TimedOut => {
                return Err(Trouble::Timeout(patience));
            }
            None => return Err(unreachable(&last)),
        };
        let limits = WebSocketConfig::default()
            .read_buffer_size(16 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(LONGEST_ANSWER))
            .max_frame_size(Some(LONGEST_ANSWER));
        let request = address
            .socket
            .as_str()
            .into_client_request()
            .map_err(|e| Trouble::Nonsense(e.to_string()))?;
        let timed = Timed { stream, until: Some(until) };
        match client_with_config(request, timed, Some(limits)) {
            Ok((socket, _)) => Ok(Self { socket, alive: true }),
            Err(HandshakeError::Interrupted(_)) => Err(Trouble::Timeout(patience)),
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let status = response.status().as_u16();
                let body = response.body().as_deref().unwrap_or_default();
                let body = start_of(&String::from_utf8_lossy(body));
                let what = format!("it refused the WebSocket with status {status} {body}");
                let what = what.trim_end().to_owned();
                Err(if status >= 500 || status == 429 {
                    Trouble::Unreachable(what)
                } else {
                    Trouble::Nonsense(what)
                })
            }
            Err(HandshakeError::Failure(error)) => Err(match trouble(error, patience) {
                // Whoever closes during the handshake may just be starting.
                Trouble::Lost(what) => Trouble::Unreachable(what),
                other => other,
            }),
        }
    }

    /// Sends a message and waits for the answer.
    pub(super) fn ask(&mut self, message: &str, patience: Duration) -> Result<String, Trouble> {
        if !self.alive {
            return Err(Trouble::Lost("it was closed".to_owned()));
        }
        self.socket.get_mut().until = Some(Instant::now() + patience);
        let answer = self.exchange(message, patience);
        self.alive = answer.is_ok();
        answer
    }

    fn exchange(&mut self, message: &str, patience: Duration) -> Result<String, Trouble> {
        self.socket.send(Message::text(message)).map_err(|e| trouble(e, patience))?;
        loop {
            match self.socket.read().map_err(|e| trouble(e, patience))? {
                Message::Text(text) => return Ok(text.as_str().to_owned()),
                Message::Binary(_) => {
                    return Err(Trouble::Nonsense("it sent bytes where text belongs".to_owned()));
                }
                Message::Close(frame) => {
                    let why = frame.map(|f| f.reason.as_str().to_owned()).unwrap_or_default();
                    return Err(Trouble::Lost(if why.is_empty() {
                        "the server closed it".to_owned()
                    } else {
                        format!("the server closed it: {}", start_of(&why))
                    }));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Answers pings that came while nobody waited; many servers hang up on who does not.
    pub(super) fn tend(&mut self) {
        if !self.alive || self.socket.get_ref().stream.set_nonblocking(true).is_err() {
            return;
        }
        self.socket.get_mut().until = None;
        self.alive = loop {
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => break true,
                // An answer that nobody asked for, a farewell, an error.
                _ => break false,
            }
        };
        // A pong that cannot be sent now is sent with the next message.
        let _ = self.socket.flush();
        self.alive &= self.socket.get_ref().stream.set_nonblocking(false).is_ok();
    }

    /// Whether it can be asked.
    pub(super) fn alive(&self) -> bool {
        self.alive
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.alive && self.socket.get_ref().stream.set_nonblocking(true).is_ok() {
            // A farewell, if it goes out at once.
            self.socket.get_mut().until = None;
            let _ = self.socket.close(None);
            let _ = self.socket.flush();
        }
    }
}

fn connect(place: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late());
    }
    let stream = TcpStream::connect_timeout(&place, left)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn trouble(error: Error, patience: Duration) -> Trouble {
    match error {
        Error::Io(e) if e.kind() == io::ErrorKind::TimedOut => Trouble::Timeout(patience),
        Error::Io(e) => Trouble::Lost(e.to_string()),
        Error::ConnectionClosed | Error::AlreadyClosed => {
            Trouble::Lost("the server closed it".to_owned())
        }
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            Trouble::Lost("the server hung up".to_owned())
        }
        Error::Capacity(_) => {
            Trouble::Nonsense(format!("its answer is longer than {LONGEST_ANSWER} bytes"))
        }
        other => Trouble::Nonsense(format!("it does not speak WebSocket: {other}")),
    }
}
