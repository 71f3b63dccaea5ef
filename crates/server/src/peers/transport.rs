//! What the Raft host sends, and the tasks that bring it there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sagitta_consensus::{NodeId, Transport};
use sagitta_env::{Env, JoinHandle};
use tokio::sync::{mpsc, watch};

use super::link::Link;
use super::queue::{Dropped, Queue};
use super::{AddressBook, Inbox, PeerCounters, PeerIdentity, Timing, until_told};

/// The transport of a host: takes messages into one bounded queue for each node, and never waits.
pub struct GrpcTransport {
    shared: Arc<Shared>,
}

/// The other half of a [`GrpcTransport`]: what it takes waits until this is started, since a host needs its transport
/// before there is a host to report to.
pub struct Outbound {
    env: Env,
    me: PeerIdentity,
    timing: Timing,
    shared: Arc<Shared>,
    fresh: mpsc::UnboundedReceiver<Fresh>,
}

/// Messages are being sent until this is stopped or dropped.
pub struct Sending {
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<()>,
}

/// What the Raft thread and the tasks have in common. It does not hold the host, which holds it.
struct Shared {
    me: NodeId,
    book: AddressBook,
    counters: Arc<PeerCounters>,
    queues: Mutex<Queues>,
    /// Queues that need a task. As many as the address book has nodes.
    fresh: mpsc::UnboundedSender<Fresh>,
}

#[derive(Default)]
struct Queues {
    of: BTreeMap<NodeId, Arc<Queue>>,
    closed: bool,
}

type Fresh = (NodeId, Arc<Queue>);

/// A transport that goes by an address book, and what sends its messages once it is started.
pub fn outbound(
    env: &Env,
    me: PeerIdentity,
    book: AddressBook,
    counters: Arc<PeerCounters>,
) -> (GrpcTransport, Outbound) {
    outbound_in(env, me, book, counters, Timing::default())
}

pub(super) fn outbound_in(
    env: &Env,
    me: PeerIdentity,
    book: AddressBook,
    counters: Arc<PeerCounters>,
    timing: Timing,
) -> (GrpcTransport, Outbound) {
    let (fresh_sender, fresh) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared { me: me.node, book, counters, queues: Mutex::default(), fresh: fresh_sender });
    let transport = GrpcTransport { shared: shared.clone() };
    (transport, Outbound { env: env.clone(), me, timing, shared, fresh })
}

impl Transport for GrpcTransport {
    fn send(&self, to: NodeId, messages: Vec<Bytes>) {
        let dropped = match self.shared.queue(to) {
            Some(queue) => queue.push(messages),
            None => Dropped { closed: messages.len(), ..Dropped::default() },
        };
        let counters = &self.shared.counters;
        counters.no_address.add(dropped.closed);
        counters.queue_full.add(dropped.full);
        counters.too_large.add(dropped.too_large);
    }
}

impl Outbound {
    /// Begins to send; `inbox` learns which nodes cannot be reached. To be called within a tokio runtime.
    pub fn start(self, inbox: Arc<dyn Inbox>) -> Sending {
        let (stop, stopped) = watch::channel(false);
        let env = self.env.clone();
        Sending { stop, supervisor: env.spawn(self.supervise(inbox, stopped)) }
    }

    /// Gives each new queue a task.
    async fn supervise(mut self, inbox: Arc<dyn Inbox>, stopped: watch::Receiver<bool>) {
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let fresh = tokio::select! {
                () = until_told(stopped.clone()) => break,
                fresh = self.fresh.recv() => fresh,
            };
            let Some((node, queue)) = fresh else { break };
            tasks.retain(|task| !task.is_finished());
            let link = Link {
                env: self.env.clone(),
                me: self.me,
                timing: self.timing,
                node,
                queue,
                book: self.shared.book.clone(),
                counters: self.shared.counters.clone(),
                inbox: inbox.clone(),
            };
            let (shared, stopped) = (self.shared.clone(), stopped.clone());
            tasks.push(self.env.spawn(async move {
                tokio::select! {
                    () = link.run() => shared.forget(link.node, &link.queue),
                    () = until_told(stopped) => {}
                }
            }));
        }
        for task in tasks {
            // One that panicked has told so.
            let _ = task.await;
        }
        self.shared.close();
    }
}

impl Sending {
    /// Ends the connections. What waits is dropped, and so is what the host sends from now on.
    pub async fn stop(self) {
        // Nobody listening means that the tasks have ended.
        let _ = self.stop.send(true);
        let _ = self.supervisor.await;
    }
}

impl Shared {
    /// The queue of a node that the address book has.
    fn queue(&self, to: NodeId) -> Option<Arc<Queue>> {
        let mut queues = self.lock();
        if let Some(queue) = queues.of.get(&to) {
            return Some(queue.clone());
        }
        if queues.closed || to == self.me || !self.book.has(to) {
            return None;
        }
        let queue = Arc::new(Queue::default());
        self.fresh.send((to, queue.clone())).ok()?;
        queues.of.insert(to, queue.clone());
        Some(queue)
    }

    /// Lets go of the queue of a node that has left the address book.
    fn forget(&self, node: NodeId, queue: &Arc<Queue>) {
        let mut queues = self.lock();
        if queues.of.get(&node).is_some_and(|present| Arc::ptr_eq(present, queue)) {
            queues.of.remove(&node);
        }
        self.counters.no_address.add(queue.close());
    }

    fn close(&self) {
        let mut queues = self.lock();
        queues.closed = true;
        for queue in std::mem::take(&mut queues.of).into_values() {
            self.counters.no_address.add(queue.close());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl GrpcTransport {
    /// Messages and bytes that wait for a node.
    pub(super) fn waiting(&self, node: NodeId) -> (usize, usize) {
        self.shared.lock().of.get(&node).map_or((0, 0), |queue| queue.waiting())
    }
}
