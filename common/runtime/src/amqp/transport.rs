//! The byte stream between lapin and the broker, plain or TLS, with repaired incoming frames.

use super::legible::Frames;
use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures::{AsyncRead, AsyncWrite, Stream};
use lapin::tcp::AsyncTcpStream;
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// Maximum number of bytes per read of the socket.
const READ_BYTES: usize = 64 * 1024;

/// Returns the current tokio runtime for lapin, with [`Transport`] as its TCP stream.
pub(super) fn runtime() -> Runtime<RuntimeParts<Tokio, Network>> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Network(Tokio::current())))
}

/// Timers and network for lapin.
#[derive(Debug, Clone)]
pub(super) struct Network(Tokio);

/// A connected stream that repairs incoming frames.
pub(super) struct Transport {
    stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>,
    frames: Frames,
    buffer: Vec<u8>,
}

impl From<AsyncTcpStream<<Tokio as Reactor>::TcpStream>> for Transport {
    fn from(stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>) -> Self {
        Self { stream, frames: Frames::default(), buffer: vec![0; READ_BYTES] }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { stream, frames, buffer } = &mut *self;
        loop {
            let taken = frames.take(out);
            if taken > 0 || out.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            match ready!(Pin::new(&mut *stream).poll_read(cx, buffer))? {
                0 => {
                    frames.end();
                    return Poll::Ready(Ok(frames.take(out)));
                }
                read => frames.push(buffer.get(..read).unwrap_or_default()),
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl Reactor for Network {
    type TcpStream = Transport;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Registers sockets that the caller opened; lapin has none.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Transport, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Transport::from(AsyncTcpStream::Plain(connecting.await?))) }
    }
}
