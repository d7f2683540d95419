//! Sockets: accepts connections within the limits, and ends those whose client does not read.

use super::connections::{Connection, Connections, HEAD_TIMEOUT};
use crate::{
    limits::{Limit, LogThrottle},
    metrics::Metrics,
};
use axum::extract::connect_info::Connected;
use axum_server::{AddrListener, Address, Handle, Server};
use hyper_util::rt::TokioTimer;
use socket2::SockRef;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};

/// Pause after a failed accept, for instance without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum unsent bytes that the system buffers per client.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// Errors of accept(2) without free descriptors: ENFILE and EMFILE, on every Unix.
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

/// A listener that accepts connections within limits.
pub(crate) struct BoundedListener {
    listener: TcpListener,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    write_timeout: Duration,
    log: LogThrottle,
}

impl BoundedListener {
    /// # Errors
    /// Fails if the listener cannot be made non-blocking.
    pub(crate) fn new(
        listener: std::net::TcpListener,
        connections: Arc<Connections>,
        metrics: &Arc<Metrics>,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, connections, metrics: Arc::clone(metrics), write_timeout, log: LogThrottle::default() })
    }

    fn failed(&self, error: &io::Error) {
        let is_full = error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code));
        if is_full {
            self.metrics.limits().refused(Limit::Descriptors);
            self.connections.close_one();
        }
        if let Some(count) = self.log.due(Instant::now()) {
            let hint = if is_full {
                "raise the limit on open files (ulimit -n), or lower gateway.connections_max"
            } else {
                ""
            };
            tracing::warn!(%error, count, hint, "cannot accept connections; retrying");
        }
    }
}

/// The peer of a connection.
#[derive(Clone)]
pub(crate) struct Peer(pub(crate) Arc<Connection>);

impl Connected<Peer> for Peer {
    fn connect_info(peer: Peer) -> Self {
        peer
    }
}

impl Address for Peer {
    type Stream = Stream;
    type Listener = BoundedListener;
}

impl AddrListener<Stream, Peer> for BoundedListener {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(Stream, Peer)> {
        loop {
            let (tcp, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                // The client left before it was accepted.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) =>
                {
                    continue;
                }
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A refused client sees its connection closed.
            let Some(connection) = self.connections.admit(address.ip()) else { continue };
            let stream = Stream::new(tcp, Arc::clone(&connection), self.write_timeout);
            self.connections.room().await;
            return Ok((stream, Peer(connection)));
        }
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Asks the system to buffer little for a client that does not read, and to end its connection. Other systems leave that to
/// [`Stream`], which notices it later: once the system's buffers are full.
#[cfg(target_os = "linux")]
fn limit_buffers(tcp: &TcpStream, write_timeout: Duration) {
    let socket = SockRef::from(tcp);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    let _ = socket.set_tcp_user_timeout(Some(write_timeout));
}

#[cfg(not(target_os = "linux"))]
fn limit_buffers(tcp: &TcpStream, _: Duration) {
    let _ = SockRef::from(tcp).set_send_buffer_size(UNSENT_BYTES_MAX as usize);
}

/// A connection that ends when it is closed for another one, or when its client reads nothing for the write timeout.
pub(crate) struct Stream {
    tcp: TcpStream,
    connection: Arc<Connection>,
    write_timeout: Duration,
    /// Timer of a write that waits.
    blocked: Option<Pin<Box<Sleep>>>,
    is_unread: bool,
}

impl Stream {
    fn new(tcp: TcpStream, connection: Arc<Connection>, write_timeout: Duration) -> Self {
        limit_buffers(&tcp, write_timeout);
        Self { tcp, connection, write_timeout, blocked: None, is_unread: false }
    }

    fn ended<T>(&self) -> Option<Poll<io::Result<T>>> {
        self.connection.is_closed().then(|| Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())))
    }

    /// Makes a pending read or write end as soon as the connection is closed.
    fn pending<T>(&self, context: &Context<'_>) -> Poll<io::Result<T>> {
        self.connection.wake_when_closed(context.waker());
        // It may have been closed before the waker was registered.
        self.ended().unwrap_or(Poll::Pending)
    }

    /// Counts a client that does not read, once.
    fn unread(&mut self) -> io::Error {
        if !self.is_unread {
            self.is_unread = true;
            self.connection.count_unread();
        }
        io::ErrorKind::TimedOut.into()
    }

    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Poll::Ready(Err(self.unread())),
            Poll::Ready(written) => {
                if self.blocked.take().is_some() {
                    self.connection.blocked(false);
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                let timer = match &mut self.blocked {
                    Some(timer) => timer,
                    None => {
                        self.connection.blocked(true);
                        self.blocked.insert(Box::pin(tokio::time::sleep(self.write_timeout)))
                    }
                };
                match timer.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(Err(self.unread())),
                    Poll::Pending => self.pending(context),
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ended) = self.ended() {
            return ended;
        }
        match Pin::new(&mut self.tcp).poll_read(context, buffer) {
            // The system gave the connection up: the client did not read in time.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Poll::Ready(Err(self.unread())),
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => self.pending(context),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(ended) = self.ended() {
            return ended;
        }
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(ended) = self.ended() {
            return ended;
        }
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.release(HEAD_TIMEOUT);
    }
}

/// Limits how long the server waits for the head of a request.
pub(crate) fn patient<A>(server: Server<Peer, A>, handle: Handle<Peer>) -> Server<Peer, A> {
    let mut server = server.handle(handle).first_request_timeout(HEAD_TIMEOUT);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    server
}

/// Binds to an address.
///
/// # Errors
/// Fails if the address is in use.
pub(crate) fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address).map_err(|error| {
        let hint = "is something else on that port? (:0 takes a free one)";
        anyhow::Error::from(error).context(format!("gateway.{setting} = {address}: cannot listen there; {hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A listener on a free port, with its metrics.
    fn bounded(total_max: usize, write_timeout: Duration) -> (BoundedListener, SocketAddr, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let connections = Connections::new(total_max, total_max, Limit::Connections, &metrics);
        let listener = listen("bind", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        (BoundedListener::new(listener, connections, &metrics, write_timeout).unwrap(), address, metrics)
    }

    #[tokio::test]
    async fn the_oldest_silent_connection_is_closed_for_a_new_one() {
        let (bounded, address, metrics) = bounded(2, Duration::from_secs(60));
        let mut clients = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
            streams.push(bounded.accept_stream().await.unwrap().0);
        }
        let mut buffer = [0];
        let error = streams[0].read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        drop(streams.remove(0));
        assert_eq!(clients[0].read(&mut buffer).await.unwrap(), 0, "the client sees the end");
        clients[2].write_all(b"x").await.unwrap();
        assert_eq!(streams[1].read(&mut buffer).await.unwrap(), 1, "the new one is served");
        assert_eq!(metrics.limits().refusals(Limit::Connections), 1);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_dropped_and_counted_once() {
        let (bounded, address, metrics) = bounded(2, Duration::from_millis(200));
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = bounded.accept_stream().await.unwrap();
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 1 << 20]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(stream.write(&[0]).await.is_err());
        assert_eq!(metrics.limits().refusals(Limit::Write), 1);
    }
}
