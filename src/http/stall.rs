//! Clients that ask and then do not read: a connection that could not send a byte for a while is
//! closed, with whatever was made for it. That goes for who reads a trickle too: once its buffer is full, the
//! kernel takes no byte until a third of it is free (`listen::SEND_BUFFER_BYTES`, which it doubles), so a client
//! must take about 43 KB in that time, 9 KB/s with the default settings.

use std::{
    future::{Ready, ready},
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum_server::accept::Accept;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// Accepts connections that may stall for this long.
#[derive(Clone, Copy, Debug)]
pub struct StallGuard(pub Duration);

impl<S> Accept<TcpStream, S> for StallGuard {
    type Stream = Guarded;
    type Service = S;
    type Future = Ready<io::Result<(Guarded, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        // Else a small write, such as an event, waits until the client has acknowledged the one before.
        let guarded = stream.set_nodelay(true).map(|()| Guarded { stream, patience: self.0, stalled: None });
        ready(guarded.map(|guarded| (guarded, service)))
    }
}

/// A connection that fails when nothing can be written for too long.
#[derive(Debug)]
pub struct Guarded {
    stream: TcpStream,
    patience: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket},
    };

    use super::*;

    const MUCH: usize = 64 << 20;

    /// Both ends of a connection that takes little unless it is read.
    async fn connection(patience: Duration) -> (Guarded, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (StallGuard(patience).accept(stream, ()).await.unwrap().0, client)
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_given_up() {
        let (mut guarded, _client) = connection(Duration::from_millis(200)).await;
        let error = guarded.write_all(&vec![0; MUCH]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_slow_client_is_not() {
        let (mut guarded, mut client) = connection(Duration::from_secs(1)).await;
        let reading = tokio::spawn(async move {
            let (mut buffer, mut count) = (vec![0; MUCH / 16], 0);
            while count < MUCH {
                sleep(Duration::from_millis(100)).await;
                count += client.read_exact(&mut buffer).await.unwrap();
            }
        });
        guarded.write_all(&vec![0; MUCH]).await.unwrap();
        reading.await.unwrap();
    }
}
