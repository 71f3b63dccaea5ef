//! Whole states of a replica: kept for other members of its group, fetched from them, put in the place of the present one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use sagitta_consensus::{Fetching, GroupId, Manifest, Membership, NodeId, Offer, Offering, Order, Position, States};
use sagitta_engine::kv::KvEngine;
use sagitta_env::{Env, Turn};
use sagitta_shard::{Beginning, Engines, Home, Shard, ShardError, ShardOptions, ShardSpec};

use crate::resources::{ByteSize, disk_space};

/// The shard that a replica has now. Clones are the same.
#[derive(Clone)]
pub(crate) struct Present(Arc<ArcSwap<Shard>>);

/// What it takes to open a state of a replica.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) spec: ShardSpec,
    /// How it begins, if a merge fills it.
    pub(crate) beginning: Option<Beginning>,
    pub(crate) engines: Engines,
    pub(crate) env: Env,
    pub(crate) options: ShardOptions,
}

/// The whole states of one replica. Belongs to its state machine: what is under way when that goes comes to nothing.
pub(crate) struct Whole {
    group: GroupId,
    home: Home,
    opener: Opener,
    states: States,
    offered: Arc<Mutex<Option<Offered>>>,
    fetched: Arc<Mutex<Option<Fetched>>>,
    doomed: Doomed,
}

/// States that were replaced or are of no use. Their files stay while somebody reads them. Clones are the same.
#[derive(Clone)]
pub(crate) struct Doomed {
    home: Home,
    kv: Arc<dyn KvEngine>,
    folders: Arc<Mutex<Vec<PathBuf>>>,
}

/// What is offered, or will be once it is hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Offered {
    number: u128,
    on_shelf: bool,
}

/// What is being fetched, or is here.
struct Fetched {
    number: u128,
    _wanted: Arc<()>,
    /// Once it is here: open, so that installing it takes no time.
    shard: Option<Arc<Shard>>,
}

impl Present {
    pub(crate) fn new(shard: Arc<Shard>) -> Self {
        Self(Arc::new(ArcSwap::new(shard)))
    }

    pub(crate) fn get(&self) -> Arc<Shard> {
        self.0.load_full()
    }

    /// Whether a shard is the present one.
    pub(crate) fn is(&self, shard: &Arc<Shard>) -> bool {
        Arc::ptr_eq(&self.0.load(), shard)
    }
}

impl Opener {
    pub(crate) fn open(&self, dir: &Path) -> Result<Arc<Shard>, ShardError> {
        let (spec, engines) = (self.spec.clone(), self.engines.clone());
        let (env, options) = (self.env.clone(), self.options.clone());
        match self.beginning {
            Some(beginning) => Shard::open_filling(dir, spec, beginning, engines, env, options),
            None => Shard::open(dir, spec, engines, env, options),
        }
    }
}

impl Whole {
    pub(crate) fn new(group: GroupId, home: Home, opener: Opener, states: States) -> Self {
        let doomed = Doomed { home: home.clone(), kv: opener.engines.kv.clone(), folders: Arc::default() };
        Self { group, home, opener, states, offered: Arc::default(), fetched: Arc::default(), doomed }
    }

    pub(crate) fn doomed(&self) -> Doomed {
        self.doomed.clone()
    }

    /// Whether states go from here to other nodes and back.
    pub(crate) fn is_shared(&self) -> bool {
        self.states.source.is_some()
    }

    /// Makes a checkpoint and describes it, on a thread of its own: hashing all files may take long.
    pub(crate) fn offer(&self, shard: Arc<Shard>, done: Offering) {
        self.retract();
        let number = self.opener.env.uuid();
        *lock(&self.offered) = Some(Offered { number, on_shelf: false });
        let (group, home, shelf, offered) =
            (self.group, self.home.clone(), self.states.shelf.clone(), self.offered.clone());
        self.spawn("offer", move || {
            let dir = home.offers().join(format!("{number:032x}"));
            let made = make_offer(&shard, &dir, number);
            // A lock, so that it is not taken back in between.
            let mut offered = lock(&offered);
            let wanted = *offered == Some(Offered { number, on_shelf: false });
            match made {
                Ok((manifest, position, membership, bytes)) if wanted => {
                    tracing::info!(%group, %position, files = manifest.files().len(), size = %ByteSize(manifest.bytes()), "offering a state");
                    shelf.put(group, dir, manifest);
                    *offered = Some(Offered { number, on_shelf: true });
                    drop(offered);
                    done.end(Ok((position, membership, bytes)));
                }
                made => {
                    drop(offered);
                    remove(&dir);
                    done.end(Err(made.err().unwrap_or_else(|| "nobody waits for it any more".to_owned())));
                }
            }
        });
    }

    /// Takes back what is offered.
    pub(crate) fn retract(&self) {
        let Some(Offered { number, on_shelf: true }) = lock(&self.offered).take() else { return };
        if let Some(folder) = self.states.shelf.take_away(self.group, number) {
            self.spawn("retract", move || remove(&folder));
        }
    }

    /// Has the files of a state fetched into a folder of the home, and opens it there.
    pub(crate) fn fetch(&self, from: NodeId, offer: &Offer, done: Fetching) {
        self.forget_fetched();
        let Some(source) = &self.states.source else {
            return done.end(Err("this node fetches no states".to_owned()));
        };
        let (manifest, into) = match self.prepare(offer) {
            Ok(prepared) => prepared,
            Err(why) => return done.end(Err(why)),
        };
        let number = manifest.offer();
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        *lock(&self.fetched) = Some(Fetched { number, _wanted: wanted, shard: None });
        let (opener, doomed, fetched) = (self.opener.clone(), self.doomed.clone(), self.fetched.clone());
        let (position, members, dir) = (offer.position, offer.membership.encode(), into.clone());
        let ended = move |result: Result<(), String>| {
            let gone = || "nobody waits for it any more".to_owned();
            let is_wanted = || lock(&fetched).as_ref().is_some_and(|fetched| fetched.number == number);
            // The replica may have been removed: opening would bring its folder back.
            let opened = result.and_then(|()| if is_wanted() { Ok(()) } else { Err(gone()) });
            let opened = opened.and_then(|()| open_fetched(&opener, &dir, position, &members));
            let result = opened.and_then(|shard| match &mut *lock(&fetched) {
                Some(fetched) if fetched.number == number => {
                    fetched.shard = Some(shard);
                    Ok(())
                }
                _ => Err(gone()),
            });
            if result.is_err() {
                doomed.add(dir);
                doomed.sweep();
            }
            done.end(result);
        };
        source.fetch(Order { group: self.group, from, manifest, into, done: Box::new(ended), wanted: still_wanted });
    }

    /// Reads a manifest and makes room for what it names.
    fn prepare(&self, offer: &Offer) -> Result<(Manifest, PathBuf), String> {
        let manifest = Manifest::decode(&offer.manifest).map_err(|error| error.to_string())?;
        let into = self.home.incoming(manifest.offer());
        fs::create_dir(&into).map_err(|error| format!("{}: {error}", into.display()))?;
        if let Ok(disk) = disk_space(&into)
            && disk.free_bytes < manifest.bytes()
        {
            self.doomed.add(into);
            let (needed, free) = (ByteSize(manifest.bytes()), ByteSize(disk.free_bytes));
            return Err(format!("no room on disk: the state takes {needed}, and {free} are free"));
        }
        Ok((manifest, into))
    }

    /// Puts what was fetched in the place of the present shard. On an error everything is as it was, but for
    /// [`ShardError::SwitchInDoubt`], after which both are kept until the replica is opened anew.
    pub(crate) fn install(&self, present: &Present, offer: &Offer) -> Result<(), ShardError> {
        let missing =
            || ShardError::Inconsistent { what: "the state to install is not the one that was fetched".to_owned() };
        let number = Manifest::decode(&offer.manifest).map_err(|_| missing())?.offer();
        let fetched = lock(&self.fetched).take_if(|fetched| fetched.number == number);
        let shard = fetched.and_then(|fetched| fetched.shard).ok_or_else(missing)?;
        let before = self.home.current()?;
        if let Err(error) = self.home.switch_to(number) {
            if self.home.current().is_ok_and(|now| now == before) {
                self.doomed.add(self.home.incoming(number));
            }
            return Err(error);
        }
        present.0.store(shard);
        self.doomed.add(before);
        Ok(())
    }

    fn forget_fetched(&self) {
        let fetched = lock(&self.fetched).take();
        if let Some(Fetched { number, shard: Some(shard), .. }) = fetched {
            drop(shard);
            self.doomed.add(self.home.incoming(number));
        }
    }

    /// Without a thread it is given up: whoever waits is told when the work is dropped.
    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        let mut work = Some(work);
        let turn = move |_| {
            if let Some(work) = work.take() {
                work();
            }
            Turn::Over
        };
        if let Err(error) = self.opener.env.worker(name, turn) {
            tracing::warn!(group = %self.group, %error, "no thread for work on a whole state");
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.retract();
        *lock(&self.offered) = None;
        self.forget_fetched();
    }
}

impl Doomed {
    fn add(&self, folder: PathBuf) {
        lock(&self.folders).push(folder);
    }

    /// Removes what nobody reads any more. What cannot be removed goes when the replica is opened next.
    pub(crate) fn sweep(&self) {
        let folders = std::mem::take(&mut *lock(&self.folders));
        for folder in folders {
            match self.home.remove_state(&folder, &*self.kv) {
                Ok(true) => tracing::debug!(folder = %folder.display(), "removed a state that was replaced"),
                Ok(false) => self.add(folder),
                Err(error) => tracing::warn!(%error, "a state that was replaced cannot be removed yet"),
            }
        }
    }
}

fn make_offer(
    shard: &Shard,
    dir: &Path,
    number: u128,
) -> Result<(Manifest, Position, Option<Membership>, Bytes), String> {
    if let Some(offers) = dir.parent() {
        match fs::create_dir(offers) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{}: {error}", offers.display()));
            }
            _ => {}
        }
    }
    let stands = shard.checkpoint(dir).map_err(|error| error.to_string())?;
    let position = Position { index: stands.applied_index, term: stands.applied_term };
    let membership = stands.members.as_deref().and_then(Membership::decode);
    let manifest = Manifest::of(dir, number).map_err(|error| error.to_string())?;
    let bytes = manifest.encode().map_err(|error| error.to_string())?;
    Ok((manifest, position, membership, bytes))
}

/// Opens what was fetched and notes that it is that, durably.
fn open_fetched(opener: &Opener, dir: &Path, position: Position, members: &[u8]) -> Result<Arc<Shard>, String> {
    let shard = opener.open(dir).map_err(|error| error.to_string())?;
    let found = Position { index: shard.applied_index(), term: shard.applied_term() };
    if found != position {
        return Err(format!("the state that was fetched stands at {found}, it was offered as of {position}"));
    }
    shard.mark_installed(members).map_err(|error| error.to_string())?;
    Ok(shard)
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "what was offered cannot be removed yet");
        }
        _ => {}
    }
}

/// A panic elsewhere leaves these values whole: they are changed by single statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
