//! A TCP relay that counts bytes, lets so many of them through, and then holds everything until it is opened.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Bytes of one direction, and how many may pass.
#[derive(Clone)]
struct Meter {
    passed: Arc<AtomicU64>,
    limit: watch::Receiver<u64>,
    /// Set when bytes are held.
    held: watch::Sender<bool>,
}

/// The relay, running.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    /// Bytes towards the registry.
    pub(crate) up: Arc<AtomicU64>,
    /// Bytes from the registry.
    pub(crate) down: Arc<AtomicU64>,
    limits: [watch::Sender<u64>; 2],
    cut: watch::Sender<u64>,
    held: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Lets so many bytes through in each direction, over all connections.
    pub(crate) async fn start(target: SocketAddr, up_max: u64, down_max: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up_limit, up_limited) = watch::channel(up_max);
        let (down_limit, down_limited) = watch::channel(down_max);
        let (is_held, held) = watch::channel(false);
        let (cut, cutting) = watch::channel(0);
        let meter = |limit| Meter { passed: Arc::default(), limit, held: is_held.clone() };
        let (up, down) = (meter(up_limited), meter(down_limited));
        let counters = (Arc::clone(&up.passed), Arc::clone(&down.passed));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (up, down, mut cutting) = (up.clone(), down.clone(), cutting.clone());
                cutting.mark_unchanged();
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    tokio::select! {
                        () = pass(client_in, server_out, up) => {}
                        () = pass(server_in, client_out, down) => {}
                        _ = cutting.changed() => {}
                    }
                });
            }
        });
        Self { address, up: counters.0, down: counters.1, limits: [up_limit, down_limit], cut, held, task }
    }

    /// Waits until bytes are held.
    pub(crate) async fn holds(&mut self) {
        self.held.wait_for(|held| *held).await.unwrap();
    }

    /// Ends all connections and lets everything through from here on; the counts begin anew.
    pub(crate) fn open(&self) {
        self.cut.send_modify(|number| *number += 1);
        for counter in [&self.up, &self.down] {
            counter.store(0, Ordering::SeqCst);
        }
        for limit in &self.limits {
            limit.send_replace(u64::MAX);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut meter: Meter) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let before = meter.passed.fetch_add(length as u64, Ordering::SeqCst);
        if before >= *meter.limit.borrow() {
            meter.held.send_replace(true);
            if meter.limit.wait_for(|limit| *limit > before).await.is_err() {
                return;
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
