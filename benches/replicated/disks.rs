//! The disks' own limit: three threads write the bytes of a log entry to three files and sync them; the second to finish counts,
//! as the second replica does.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use sagitta_env::Env;

use crate::report::Run;

/// Written and synced before anything is measured: a log recycles its files, too.
const FILE_BYTES: usize = 32 << 20;
/// Threads whose data must be on disk: more than half of three.
const QUORUM: usize = 2;

/// Three files, each with its thread.
pub(crate) struct Disks {
    orders: Vec<Sender<usize>>,
    synced: Receiver<std::io::Result<u64>>,
    threads: Vec<JoinHandle<()>>,
}

impl Disks {
    pub(crate) fn open(paths: &Arc<[PathBuf]>) -> Result<Self> {
        let (done, synced) = unbounded();
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for path in paths.iter() {
            let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
            file.write_all_at(&vec![0; FILE_BYTES], 0)?;
            file.sync_all()?;
            let (order, ordered) = unbounded();
            let done = done.clone();
            threads.push(Env::real().thread("disk", move || serve(&file, &ordered, &done))?);
            orders.push(order);
        }
        Ok(Self { orders, synced, threads })
    }

    /// `count` entries of `bytes` each, `together` of them in every write.
    pub(crate) fn run(self, env: &Env, together: usize, count: usize, bytes: usize) -> Result<Run> {
        let mut run = Run::default();
        let began = env.now();
        for number in 0..count.div_ceil(together) as u64 {
            let from = env.now();
            for order in &self.orders {
                order.send(together * bytes).context("a disk's thread has ended")?;
            }
            let mut finished = 0;
            while finished < QUORUM {
                // The third of an earlier round may report now; it does not count for this one.
                finished += usize::from(self.synced.recv()?? == number);
            }
            run.took.extend(std::iter::repeat_n(env.now() - from, together));
        }
        run.wall = env.now() - began;
        drop(self.orders);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        Ok(run)
    }
}

fn serve(file: &File, orders: &Receiver<usize>, done: &Sender<std::io::Result<u64>>) {
    let (mut at, mut number) = (0, 0);
    for bytes in orders {
        let entry = vec![1; bytes.min(FILE_BYTES)];
        if at + entry.len() > FILE_BYTES {
            at = 0;
        }
        let synced = file.write_all_at(&entry, at as u64).and_then(|()| file.sync_data());
        at += entry.len();
        if done.send(synced.map(|()| number)).is_err() {
            return;
        }
        number += 1;
    }
}
