//! Pieces worked on by all processors, whose results come in the pieces' order.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

/// More threads than this wait for the one that reads and hashes.
const THREADS_MAX: usize = 8;

/// How many threads work.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

struct Job {
    piece: Vec<u8>,
    reply: Sender<io::Result<Vec<u8>>>,
}

/// Threads that turn pieces into other pieces. They end with it.
pub(super) struct Ordered {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    /// Pieces at work, in order. Their number bounds the memory.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
}

impl Ordered {
    /// Starts the threads; each works with what `worker` gives it.
    pub(super) fn start<W>(worker: impl Fn() -> W) -> Self
    where
        W: FnMut(&[u8]) -> io::Result<Vec<u8>> + Send + 'static,
    {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        let work = |_| {
            let (receiver, mut work) = (receiver.clone(), worker());
            thread::spawn(move || {
                loop {
                    let job = receiver.lock().expect("no panic while held").recv();
                    let Ok(job) = job else { return };
                    // Whoever gave up does not want the answer.
                    let _ = job.reply.send(work(&job.piece));
                }
            })
        };
        Self { jobs: Some(jobs), workers: (0..threads()).map(work).collect(), pending: VecDeque::new() }
    }

    /// Whether a result should be taken before the next piece is given.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() > threads()
    }

    /// Gives a piece to the threads.
    pub(super) fn give(&mut self, piece: Vec<u8>) -> io::Result<()> {
        let (reply, answer) = mpsc::channel();
        let jobs = self.jobs.as_ref().ok_or_else(lost)?;
        jobs.send(Job { piece, reply }).map_err(|_| lost())?;
        self.pending.push_back(answer);
        Ok(())
    }

    /// The next result; `None` if no piece is at work.
    pub(super) fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.pending.pop_front() {
            Some(answer) => answer.recv().map_err(|_| lost())?.map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // One that panicked was noticed by the answer that did not come.
            let _ = worker.join();
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("a compression thread ended early")
}
