//! Where connections come from: plain ones as the kernel gives them, TLS ones after their handshake.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::tls::Certificates;

/// Whoever is slower than this is no client of a registry.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Handshakes at a time. Each holds some kilobytes.
const HANDSHAKES_MAX: usize = 512;
/// Of a plain request that is refused so much is read, so that its sender sees the answer.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;
/// The first byte of a TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// The words are those of Go's servers, which people find explained.
const PLAIN_ANSWER: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
    {\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"Client sent an HTTP request to an HTTPS server.\",\"detail\":null}]}\n";

/// Gives connections that are ready for HTTP.
pub(super) enum Front {
    Plain(TcpListener),
    Tls { ready: mpsc::Receiver<(Box<TlsStream<TcpStream>>, SocketAddr)>, address: SocketAddr, accepting: AbortHandle },
}

/// A connection that is ready for HTTP.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What is known of a connection before it says anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
}

impl Front {
    /// Must be called within a runtime: handshakes are done beside each other.
    pub(super) fn new(listener: TcpListener, address: SocketAddr, certificates: Option<Arc<Certificates>>) -> Self {
        let Some(certificates) = certificates else { return Self::Plain(listener) };
        let (done, ready) = mpsc::channel(1);
        let accepting = tokio::spawn(accept_all(listener, certificates, done)).abort_handle();
        Self::Tls { ready, address, accepting }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Self::Tls { accepting, .. } = self {
            accepting.abort();
        }
    }
}

impl Listener for Front {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self {
            Self::Plain(listener) => {
                // Which errors of accepting to wait for is axum's knowledge.
                let (stream, address) = Listener::accept(listener).await;
                (Connection::Plain(prepared(stream)), address)
            }
            Self::Tls { ready, .. } => match ready.recv().await {
                Some((stream, address)) => (Connection::Tls(stream), address),
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(listener) => listener.local_addr(),
            Self::Tls { address, .. } => Ok(*address),
        }
    }
}

impl Connected<IncomingStream<'_, Front>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Front>) -> Self {
        Self { address: *stream.remote_addr(), is_tls: matches!(stream.io(), Connection::Tls(_)) }
    }
}

fn prepared(stream: TcpStream) -> TcpStream {
    // Small answers must not wait for the next packet. A failure only costs time.
    let _ = stream.set_nodelay(true);
    stream
}

type Ready = mpsc::Sender<(Box<TlsStream<TcpStream>>, SocketAddr)>;

async fn accept_all(mut listener: TcpListener, certificates: Arc<Certificates>, done: Ready) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    loop {
        let turn = Arc::clone(&turns).acquire_owned().await.expect("the turns are never closed");
        let (stream, address) = Listener::accept(&mut listener).await;
        while handshakes.try_join_next().is_some() {}
        let (certificates, done) = (Arc::clone(&certificates), done.clone());
        handshakes.spawn(async move {
            let shaken = timeout(HANDSHAKE_WAIT_MAX, shake_hands(prepared(stream), &certificates)).await;
            drop(turn);
            // Whoever broke off hears nothing; the client knows more about it than we do.
            if let Ok(Ok(Some(stream))) = shaken {
                let _ = done.send((Box::new(stream), address)).await;
            }
        });
    }
}

async fn shake_hands(mut stream: TcpStream, certificates: &Certificates) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] != HANDSHAKE_RECORD {
        stream.write_all(PLAIN_ANSWER.as_bytes()).await?;
        stream.shutdown().await?;
        // What was sent and not read would reset the connection before its end reads the answer.
        let _ = tokio::io::copy(&mut stream.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await;
        return Ok(None);
    }
    TlsAcceptor::from(certificates.current()).accept(stream).await.map(Some)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
