//! The connection to one node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagitta_consensus::NodeId;
use sagitta_env::{Deadline, Env};
use sagitta_wire::ended_early;
use tokio::sync::{Notify, watch};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::Binary;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Uri};
use tower::util::MapRequest;

use super::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::peers::{AddressBook, Broken, Cause, Pace, PeerIdentity, Timing, endpoint, until_told};

/// The connections to all nodes that were ever asked something. Each is made when it is first wanted.
pub(super) struct Lines {
    env: Env,
    me: PeerIdentity,
    book: AddressBook,
    timing: Timing,
    of: Mutex<BTreeMap<NodeId, Arc<Line>>>,
}

/// One of them.
pub(super) struct Line {
    node: NodeId,
    state: watch::Sender<State>,
    /// Somebody asked for the node while it could not be reached.
    wanted: Notify,
    hello: MetadataValue<Binary>,
}

#[derive(Clone)]
enum State {
    /// Whoever asks waits.
    Connecting,
    Up(Connection),
    /// Whoever asks is told at once; the next attempt is made beside that.
    Down(Arc<str>),
}

/// Takes calls of one message.
pub(super) type Calls = MapRequest<Channel, fn(http::Request<Body>) -> http::Request<Body>>;

/// A connection that was there a moment ago.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) calls: Calls,
    /// Tells it from those before and after.
    number: u64,
}

impl Lines {
    pub(super) fn new(env: Env, me: PeerIdentity, book: AddressBook, timing: Timing) -> Arc<Self> {
        Arc::new(Self { env, me, book, timing, of: Mutex::default() })
    }

    /// The connection to a node that the address book has. Its task ends with `stopped`.
    pub(super) fn get(self: &Arc<Self>, node: NodeId, stopped: &watch::Receiver<bool>) -> Option<Arc<Line>> {
        let mut lines = self.lock();
        if let Some(line) = lines.get(&node) {
            return Some(line.clone());
        }
        if !self.book.has(node) {
            return None;
        }
        let hello = self.me.hello_to(node).to_metadata();
        let line = Arc::new(Line { node, state: watch::Sender::new(State::Connecting), wanted: Notify::new(), hello });
        lines.insert(node, line.clone());
        let (all, kept, stopped) = (self.clone(), line.clone(), stopped.clone());
        self.env.spawn(async move {
            tokio::select! {
                () = all.keep(&kept) => {}
                () = until_told(stopped) => {}
            }
            all.forget(&kept);
        });
        Some(line)
    }

    /// Keeps the connection to a node for as long as the address book has the node.
    async fn keep(&self, line: &Line) {
        let (mut pace, mut number) = (Pace::default(), 0);
        while let Some(address) = self.book.get(line.node) {
            number += 1;
            tokio::select! {
                () = self.keep_at(line, &address, number, &mut pace) => {}
                () = self.book.left(line.node, &address) => {
                    tracing::info!(node = %line.node, from = %address, "a node has another address now, or none");
                    // Calls that are under way go on with the connection that they have.
                    line.state.send_replace(State::Connecting);
                    pace = Pace::default();
                }
            }
        }
    }

    /// One connection, from the attempt until another one is worth it.
    async fn keep_at(&self, line: &Line, address: &Uri, number: u64, pace: &mut Pace) {
        let (mut lasted, began) = (Duration::ZERO, self.env.now());
        let what = match self.connect(address).await {
            Ok(channel) => {
                if pace.has_complained() {
                    tracing::info!(node = %line.node, %address, "a node can be reached again");
                }
                let calls = Calls::new(channel, ended_early);
                line.state.send_replace(State::Up(Connection { calls, number }));
                let mut state = line.state.subscribe();
                // Ends only on the condition: the line is held here.
                let broken = state.wait_for(|state| !matches!(state, State::Up(_))).await;
                lasted = self.env.now().saturating_sub(began);
                match broken.as_deref() {
                    Ok(State::Down(why)) => why.to_string(),
                    _ => "the connection broke".to_owned(),
                }
            }
            Err(Broken { what, .. }) => {
                line.state.send_replace(State::Down(what.as_str().into()));
                what
            }
        };
        let (wait, say) = pace.after(Cause::Broken, lasted, &self.timing, &self.env);
        if say {
            tracing::warn!(node = %line.node, %address, what, "a node cannot be reached; trying on when it is wanted");
        } else {
            tracing::debug!(node = %line.node, %address, what, ?wait, "a node still cannot be reached");
        }
        self.env.sleep(wait).await;
        line.wanted.notified().await;
    }

    async fn connect(&self, address: &Uri) -> Result<Channel, Broken> {
        let endpoint = endpoint(address, &self.timing)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        // The endpoint bounds the time that the sockets take, and not the resolution of a name.
        match self.env.timeout(self.timing.handshake, Box::pin(self.book.connect(endpoint))).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Broken::new("it did not take the connection in time")),
        }
    }

    fn forget(&self, line: &Arc<Line>) {
        let mut lines = self.lock();
        if lines.get(&line.node).is_some_and(|present| Arc::ptr_eq(present, line)) {
            lines.remove(&line.node);
        }
        line.state.send_replace(State::Down("the address book does not have it".into()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Line>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// How this node introduces itself on it.
    pub(super) fn hello(&self) -> MetadataValue<Binary> {
        self.hello.clone()
    }

    /// The connection, once there is one; at once why there is none when the last attempt failed.
    pub(super) async fn connection(&self, env: &Env, deadline: Deadline) -> Result<Connection, String> {
        let mut watching = self.state.subscribe();
        let settled = env.until(deadline, watching.wait_for(|state| !matches!(state, State::Connecting))).await;
        match settled {
            Ok(Ok(state)) => match &*state {
                State::Up(connection) => Ok(connection.clone()),
                State::Down(why) => {
                    self.wanted.notify_one();
                    Err(why.to_string())
                }
                State::Connecting => Err("it is being connected to".to_owned()),
            },
            Ok(Err(_)) => Err("this node is shutting down".to_owned()),
            Err(_) => Err("it was not connected to before the deadline".to_owned()),
        }
    }

    /// Learns that a connection is gone and could not be made again.
    pub(super) fn broke(&self, connection: &Connection, why: &str) {
        self.state.send_if_modified(|state| match state {
            State::Up(present) if present.number == connection.number => {
                *state = State::Down(why.into());
                true
            }
            _ => false,
        });
    }
}
