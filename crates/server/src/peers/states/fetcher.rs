//! Fetches states from other nodes.

use std::sync::Arc;
use std::time::Duration;

use sagitta_consensus::{Manifest, NodeId, Order, Part, Parts, Question, StateFile, StateSource};
use sagitta_env::{Env, JoinHandle};
use sagitta_model::ErrorKind;
use sagitta_wire::Failure;
use sagitta_wire::internal::state_service_client::StateServiceClient;
use sagitta_wire::state::{AskParts, FetchState, ListedPart, ListedParts};
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::super::pace::{Cause, Pace};
use super::super::{AddressBook, PeerIdentity, Timing, link, until_told};
use super::CHUNK_BYTES;
use super::writing::{Writing, sync_folders};

/// States that are fetched at once: more would only share the same disk and network.
const MAX_FETCHES: usize = 2;
/// HTTP/2 windows: room for what is on its way over a long line.
const WINDOW_BYTES: u32 = 4 << 20;
/// The largest message: a chunk and the few bytes that protobuf puts before it.
const MAX_MESSAGE_BYTES: usize = CHUNK_BYTES + 64;

/// Fetches states from other nodes, from any thread, until it is dropped.
pub struct StateFetcher {
    // Unbounded, and small: a group has one order and one question at a time.
    orders: mpsc::UnboundedSender<Errand>,
    /// Dropped with it, which ends what is under way.
    _stop: watch::Sender<bool>,
    _supervisor: JoinHandle<()>,
}

enum Errand {
    Fetch(Order),
    Ask(Question),
}

/// What all fetches of a node share.
struct Shared {
    env: Env,
    me: PeerIdentity,
    book: AddressBook,
    timing: Timing,
    places: Semaphore,
}

/// One state on its way.
struct Fetch {
    shared: Arc<Shared>,
    from: NodeId,
    service: Option<StateServiceClient<Channel>>,
    pace: Pace,
    /// When the last bytes came.
    progress: Duration,
}

/// Why a stream ended before its file.
enum End {
    /// It may be taken up again.
    Broken(Cause, String),
    /// There is no use in that.
    Final(String),
}

impl StateFetcher {
    /// Ready to fetch from the nodes of an address book. To be called within a tokio runtime.
    pub fn start(env: &Env, me: PeerIdentity, book: AddressBook) -> Self {
        Self::start_in(env, me, book, Timing::default())
    }

    pub(in super::super) fn start_in(env: &Env, me: PeerIdentity, book: AddressBook, timing: Timing) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let shared = Shared { env: env.clone(), me, book, timing, places: Semaphore::new(MAX_FETCHES) };
        let supervisor = env.spawn(supervise(Arc::new(shared), received, stopped));
        Self { orders, _stop: stop, _supervisor: supervisor }
    }
}

impl StateSource for StateFetcher {
    fn fetch(&self, order: Order) {
        self.send(Errand::Fetch(order));
    }

    fn ask(&self, question: Question) {
        self.send(Errand::Ask(question));
    }
}

impl StateFetcher {
    fn send(&self, errand: Errand) {
        let over = || "this node is shutting down".to_owned();
        match self.orders.send(errand) {
            Ok(()) => {}
            Err(mpsc::error::SendError(Errand::Fetch(order))) => (order.done)(Err(over())),
            Err(mpsc::error::SendError(Errand::Ask(question))) => (question.done)(Err(over())),
        }
    }
}

/// Gives each errand a task.
async fn supervise(shared: Arc<Shared>, mut errands: mpsc::UnboundedReceiver<Errand>, stopped: watch::Receiver<bool>) {
    while let Some(errand) = errands.recv().await {
        let (shared, stopped) = (shared.clone(), stopped.clone());
        let env = shared.env.clone();
        let over = "this node is shutting down".to_owned();
        env.clone().spawn(async move {
            match errand {
                Errand::Fetch(order) => {
                    let fetched = tokio::select! {
                        fetched = fetch(shared, &order) => fetched,
                        () = until_told(stopped) => Err(over),
                    };
                    let done = order.done;
                    // It opens what has come, which takes a disk's time.
                    env.spawn_blocking(move || done(fetched));
                }
                Errand::Ask(Question { group, of, done }) => {
                    let answered = tokio::select! {
                        answered = ask(shared, group.0, of) => answered,
                        () = until_told(stopped) => Err(over),
                    };
                    env.spawn_blocking(move || done(answered));
                }
            }
        });
    }
}

/// Asks a node for the parts of a group's state, once: whoever wants to know asks again.
async fn ask(shared: Arc<Shared>, group: u64, of: NodeId) -> Result<Parts, String> {
    let (env, patience) = (shared.env.clone(), shared.timing.fetch_patience);
    let mut request = Request::new(AskParts { group }.into_proto());
    shared.me.hello_to(of).write_to(request.metadata_mut());
    let answer = async {
        let mut service = connect(&shared, of).await?;
        Ok::<_, End>(service.parts(request).await?.into_inner())
    };
    let answer = env.timeout(patience, Box::pin(answer)).await.map_err(|_| "it says nothing".to_owned())?;
    let answer = answer.map_err(|end| match end {
        End::Broken(_, why) | End::Final(why) => why,
    })?;
    let ListedParts { leads, working, parts } = ListedParts::from_proto(answer).map_err(|failure| failure.message)?;
    let part = |ListedPart { manifest, rows, last }| {
        let manifest = Manifest::decode(&manifest).map_err(|error| error.to_string())?;
        Ok::<_, String>(Part { manifest, rows, last })
    };
    Ok(Parts { leads, working, parts: parts.into_iter().map(part).collect::<Result<_, _>>()? })
}

/// Brings all files of a state, each checked and on disk.
async fn fetch(shared: Arc<Shared>, order: &Order) -> Result<(), String> {
    let _place = shared.places.acquire().await.map_err(|_| "this node is shutting down".to_owned())?;
    let env = shared.env.clone();
    let (files, bytes, from) = (order.manifest.files(), order.manifest.bytes(), order.from);
    tracing::info!(group = %order.group, %from, files = files.len(), bytes, "fetching a state");
    let began = env.now();
    let mut fetch = Fetch { shared: shared.clone(), from, service: None, pace: Pace::default(), progress: began };
    for file in files {
        fetch.file(order, file).await?;
    }
    let into = order.into.clone();
    blocking(&env, move || sync_folders(&into)).await?;
    tracing::info!(group = %order.group, %from, bytes, took = ?(env.now() - began), "a state is here");
    Ok(())
}

impl Fetch {
    /// One file, over as many connections as it takes while there is progress.
    async fn file(&mut self, order: &Order, file: &StateFile) -> Result<(), String> {
        let env = self.shared.env.clone();
        let (into, entry) = (order.into.clone(), file.clone());
        let mut writing = Some(blocking(&env, move || Writing::begin(&into, &entry)).await?);
        let mut before = 0;
        while let Some(reached) = writing.as_ref().map(Writing::bytes).filter(|bytes| *bytes < file.bytes) {
            if reached > before {
                (self.pace, before) = (Pace::default(), reached);
            }
            let (cause, what) = match self.stream(order, file, &mut writing).await {
                Ok(()) => continue,
                Err(End::Final(why)) => return Err(why),
                Err(End::Broken(cause, what)) => (cause, what),
            };
            self.service = None;
            let patience = self.shared.timing.fetch_patience;
            if env.now() - self.progress >= patience {
                return Err(format!("no progress for {patience:?}: {what}"));
            }
            let (wait, say) = self.pace.after(cause, Duration::ZERO, &self.shared.timing, &env);
            if say {
                tracing::warn!(group = %order.group, from = %self.from, what, "fetching a state was interrupted; trying on");
            }
            env.sleep(wait).await;
        }
        let writing = writing.take().ok_or("writing failed")?;
        blocking(&env, move || writing.end()).await
    }

    /// One stream, from where the file ends so far.
    async fn stream(&mut self, order: &Order, file: &StateFile, writing: &mut Option<Writing>) -> Result<(), End> {
        if !order.is_wanted() {
            return Err(End::Final("nobody waits for it any more".to_owned()));
        }
        let env = self.shared.env.clone();
        let offset = writing.as_ref().map_or(0, Writing::bytes);
        let wanted =
            FetchState { group: order.group.0, offer: order.manifest.offer(), file: file.name.clone(), offset };
        let mut request = Request::new(wanted.into_proto());
        self.shared.me.hello_to(self.from).write_to(request.metadata_mut());
        let patience = self.shared.timing.fetch_patience;
        let silent = |_| End::broken("it says nothing");
        let service = self.service().await?;
        let calling = Box::pin(service.fetch(request));
        let mut chunks = env.timeout(patience, calling).await.map_err(silent)??.into_inner();
        while let Some(chunk) = env.timeout(patience, chunks.message()).await.map_err(silent)?? {
            let Some(mut before) = writing.take() else { return Err(End::Final("writing failed".to_owned())) };
            let written = blocking(&env, move || before.take(&chunk.data).map(|()| before)).await;
            *writing = Some(written.map_err(End::Final)?);
            self.progress = env.now();
            if !order.is_wanted() {
                return Err(End::Final("nobody waits for it any more".to_owned()));
            }
        }
        match writing {
            Some(writing) if writing.bytes() == file.bytes => Ok(()),
            _ => Err(End::broken("it ended the stream early")),
        }
    }

    /// The connection to the other node, made if there is none.
    async fn service(&mut self) -> Result<&mut StateServiceClient<Channel>, End> {
        if self.service.is_none() {
            self.service = Some(connect(&self.shared, self.from).await?);
        }
        self.service.as_mut().ok_or_else(|| End::broken("there is no connection"))
    }
}

async fn connect(shared: &Shared, to: NodeId) -> Result<StateServiceClient<Channel>, End> {
    let Shared { env, book, timing, .. } = shared;
    let address = book.get(to).ok_or_else(|| End::broken("its address is not known"))?;
    let endpoint = link::endpoint(&address, timing)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let connecting = env.timeout(timing.handshake, Box::pin(book.connect(endpoint)));
    let connected = connecting.await.map_err(|_| End::broken("it did not answer in time"))?;
    let channel = connected.map_err(|error| End::Broken(Cause::Broken, link::why(&error)))?;
    Ok(StateServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

impl End {
    fn broken(what: &str) -> Self {
        Self::Broken(Cause::Broken, what.to_owned())
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let failure = Failure::from_status(&status);
        match failure.kind {
            ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Corrupt => Self::Final(failure.message),
            // The address may have passed to another node: the book will say where this one is.
            ErrorKind::Denied => Self::Broken(Cause::Refused, failure.message),
            _ => Self::Broken(Cause::Broken, failure.message),
        }
    }
}

async fn blocking<T: Send + 'static>(
    env: &Env,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    env.spawn_blocking(work).await.map_err(|_| "writing a state failed unexpectedly".to_owned())?
}
