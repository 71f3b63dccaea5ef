//! The control group's state machine: the state in memory, and in one file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use arc_swap::ArcSwap;
use bytes::Bytes;
use sagitta_cluster::{Command, State, encode_outcome};
use sagitta_consensus::{
    ApplyError, Committed, Fetching, GroupId, Manifest, Membership, NodeId, Offer, Offering, Order, Position,
    StateMachine, States, replace, sync_parent, write_whole,
};
use sagitta_env::Env;
use sagitta_model::ErrorKind;
use tokio::sync::watch;

use super::ControlError;
use super::file::{Kept, STATE_FILE};

/// Folders of states that others fetch, and of those that are being fetched. What is in them at the start is left over.
const OFFERS: &str = "offers";
const INCOMING: &str = "incoming";
/// Entries after which the state is written to its file, so that the log can be cut: replaying as many takes milliseconds.
const SNAPSHOT_EVERY: u64 = 256;
/// A state that is larger is none: collections and nodes are bounded, and a thousand of them take a few megabytes.
const MAX_STATE_BYTES: u64 = 256 << 20;

/// The control group's state machine.
pub(super) struct ControlMachine {
    env: Env,
    group: GroupId,
    dir: PathBuf,
    kept: Kept,
    durable: u64,
    pub(super) shared: Arc<ArcSwap<State>>,
    pub(super) seen: watch::Sender<u64>,
    states: States,
    /// The number of what is offered.
    offered: Option<u128>,
    fetched: Arc<Mutex<Option<Fetched>>>,
}

/// A state that is being fetched, or is here.
struct Fetched {
    number: u128,
    _wanted: Arc<()>,
    kept: Option<Kept>,
}

impl ControlMachine {
    pub(super) fn open(
        env: &Env,
        group: GroupId,
        dir: &Path,
        cluster_id: u128,
        states: States,
    ) -> Result<Self, ControlError> {
        let failed = |path: &Path, error: io::Error| {
            ControlError::new(ErrorKind::Unavailable, format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(dir).map_err(|e| failed(dir, e))?;
        for leftover in [OFFERS, INCOMING] {
            remove(&dir.join(leftover));
        }
        let path = dir.join(STATE_FILE);
        // Installing a state may have ended before it was known to be on disk: what is read now must be there after a crash, too.
        sync_parent(&path).map_err(|e| failed(dir, e))?;
        let kept = Kept::read(dir)?.unwrap_or_else(|| {
            let (state, applied) = (State::new(cluster_id), Position::default());
            Kept { state, applied, membership: None, installed: None }
        });
        if kept.state.cluster_id() != cluster_id {
            let (found, expected) = (kept.state.cluster_id(), cluster_id);
            let message =
                format!("{} belongs to cluster {found:032x}, the data folder to {expected:032x}", path.display());
            return Err(ControlError::new(ErrorKind::Conflict, message));
        }
        Ok(Self {
            env: env.clone(),
            group,
            dir: dir.to_owned(),
            durable: kept.applied.index,
            shared: Arc::new(ArcSwap::from_pointee(kept.state.clone())),
            seen: watch::Sender::new(kept.applied.index),
            kept,
            states,
            offered: None,
            fetched: Arc::default(),
        })
    }

    fn save(&mut self) -> io::Result<()> {
        write_whole(&self.dir.join(STATE_FILE), &self.kept.encode())?;
        self.durable = self.kept.applied.index;
        Ok(())
    }

    fn show(&self) {
        self.shared.store(Arc::new(self.kept.state.clone()));
        self.seen.send_replace(self.kept.applied.index);
    }

    /// Puts the state on the shelf: one small file.
    fn make_offer(&mut self) -> Result<(Position, Option<Membership>, Bytes), String> {
        let number = self.env.uuid();
        let dir = self.dir.join(OFFERS).join(format!("{number:032x}"));
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(failed)?;
        fs::write(dir.join(STATE_FILE), self.kept.encode()).map_err(failed)?;
        let manifest = Manifest::of(&dir, number).map_err(|error| error.to_string())?;
        let bytes = manifest.encode().map_err(|error| error.to_string())?;
        self.states.shelf.put(self.group, dir, manifest);
        self.offered = Some(number);
        Ok((self.kept.applied, self.kept.membership.clone(), bytes))
    }

    fn begin_to_fetch(&self, from: NodeId, offer: &Offer, done: Fetching) -> Result<(), (Fetching, String)> {
        let Some(source) = &self.states.source else { return Err((done, "this node fetches no states".to_owned())) };
        let (manifest, into) = match self.prepare(offer) {
            Ok(prepared) => prepared,
            Err(why) => return Err((done, why)),
        };
        let (number, wanted) = (manifest.offer(), Arc::new(()));
        let still_wanted = Arc::downgrade(&wanted);
        *lock(&self.fetched) = Some(Fetched { number, _wanted: wanted, kept: None });
        let (fetched, dir) = (self.fetched.clone(), into.clone());
        let (position, cluster_id) = (offer.position, self.kept.state.cluster_id());
        let ended = move |result: Result<(), String>| {
            let read = result.and_then(|()| read_fetched(&dir.join(STATE_FILE), position, cluster_id));
            remove(&dir);
            let result = read.and_then(|kept| match &mut *lock(&fetched) {
                Some(fetched) if fetched.number == number => {
                    fetched.kept = Some(kept);
                    Ok(())
                }
                _ => Err("nobody waits for it any more".to_owned()),
            });
            done.end(result);
        };
        source.fetch(Order { group: self.group, from, manifest, into, done: Box::new(ended), wanted: still_wanted });
        Ok(())
    }

    fn install_with(&mut self, offer: &Offer, sync: impl Fn(&Path) -> io::Result<()>) -> Result<(), ApplyError> {
        let missing = || ApplyError::Failed("the state to install is not the one that was fetched".to_owned());
        let number = Manifest::decode(&offer.manifest).map_err(|_| missing())?.offer();
        let fetched = lock(&self.fetched).take_if(|fetched| fetched.number == number);
        let kept = fetched.and_then(|fetched| fetched.kept).ok_or_else(missing)?;
        let kept = Kept { membership: Some(offer.membership.clone()), installed: Some(offer.position), ..kept };
        let path = self.dir.join(STATE_FILE);
        replace(&path, &kept.encode()).map_err(|error| apply_error(&error))?;
        sync(&path).map_err(|error| ApplyError::InDoubt(format!("{}: {error}", path.display())))?;
        self.kept = kept;
        self.durable = self.kept.applied.index;
        self.show();
        Ok(())
    }

    fn prepare(&self, offer: &Offer) -> Result<(Manifest, PathBuf), String> {
        let manifest = Manifest::decode(&offer.manifest).map_err(|error| error.to_string())?;
        match manifest.files() {
            [file] if file.name == STATE_FILE && file.bytes <= MAX_STATE_BYTES => {}
            files => return Err(format!("{files:?} is no control state")),
        }
        let into = self.dir.join(INCOMING).join(format!("{:032x}", manifest.offer()));
        fs::create_dir_all(&into).map_err(|error| format!("{}: {error}", into.display()))?;
        Ok((manifest, into))
    }
}

impl StateMachine for ControlMachine {
    fn apply(&mut self, entries: &[Committed]) -> Result<Vec<Bytes>, ApplyError> {
        let mut responses = Vec::with_capacity(entries.len());
        for entry in entries {
            let response = if entry.data.is_empty() {
                Bytes::new()
            } else {
                let command = Command::decode(&entry.data);
                let command = command.map_err(|e| ApplyError::Corrupt(format!("entry {}: {e}", entry.index)))?;
                encode_outcome(&self.kept.state.apply(command)).into()
            };
            responses.push(response);
            self.kept.applied = Position { index: entry.index, term: entry.term };
            if let Some(membership) = &entry.membership {
                self.kept.membership = Some(membership.clone());
            }
        }
        self.show();
        if self.kept.applied.index - self.durable >= SNAPSHOT_EVERY {
            // Not yet on disk is no loss: the log keeps the entries until it is.
            if let Err(error) = self.save() {
                tracing::warn!(%error, "the control state was not saved; its log is kept");
            }
        }
        Ok(responses)
    }

    fn applied(&self) -> Position {
        self.kept.applied
    }

    fn durable(&self) -> u64 {
        self.durable
    }

    fn membership(&self) -> Option<Membership> {
        self.kept.membership.clone()
    }

    fn flush(&mut self, _wait: bool) -> Result<(), ApplyError> {
        if self.durable == self.kept.applied.index {
            return Ok(());
        }
        self.save().map_err(|error| apply_error(&error))
    }

    fn offers(&self) -> bool {
        self.states.source.is_some()
    }

    fn offer(&mut self, done: Offering) {
        self.retract();
        done.end(self.make_offer());
    }

    fn retract(&mut self) {
        let folder = self.offered.take().and_then(|number| self.states.shelf.take_away(self.group, number));
        if let Some(folder) = folder {
            remove(&folder);
        }
    }

    fn fetch(&mut self, from: NodeId, offer: &Offer, done: Fetching) {
        *lock(&self.fetched) = None;
        if let Err((done, why)) = self.begin_to_fetch(from, offer, done) {
            done.end(Err(why));
        }
    }

    fn install(&mut self, offer: &Offer) -> Result<(), ApplyError> {
        self.install_with(offer, sync_parent)
    }

    fn installed(&self) -> Option<Position> {
        self.kept.installed
    }
}

impl Drop for ControlMachine {
    fn drop(&mut self) {
        self.retract();
        *lock(&self.fetched) = None;
    }
}

fn read_fetched(path: &Path, position: Position, cluster_id: u128) -> Result<Kept, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let kept = Kept::decode(&bytes).map_err(|error| error.to_string())?;
    if kept.state.cluster_id() != cluster_id {
        return Err(format!("the state that was fetched is that of cluster {:032x}", kept.state.cluster_id()));
    }
    if kept.applied != position {
        return Err(format!("the state that was fetched stands at {}, it was offered as of {position}", kept.applied));
    }
    Ok(kept)
}

fn apply_error(error: &io::Error) -> ApplyError {
    match error.kind() {
        io::ErrorKind::StorageFull => ApplyError::Full(error.to_string()),
        _ => ApplyError::Failed(error.to_string()),
    }
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %folder.display(), "a state of no more use cannot be removed yet");
        }
        _ => {}
    }
}

/// A panic elsewhere leaves the value whole: it is changed by single statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine to which a state as of the entry 9 was brought, and its offer.
    fn with_fetched(dir: &Path) -> (ControlMachine, Offer) {
        let (env, _) = Env::seeded(1);
        let mut machine = ControlMachine::open(&env, GroupId(1), dir, 1, States::default()).unwrap();
        let position = Position { index: 9, term: 2 };
        machine.kept.applied = position;
        let (_, _, manifest) = machine.make_offer().unwrap();
        machine.kept.applied = Position::default();
        let number = machine.offered.unwrap();
        let kept = Kept { state: State::new(1), applied: position, membership: None, installed: None };
        *lock(&machine.fetched) = Some(Fetched { number, _wanted: Arc::new(()), kept: Some(kept) });
        (machine, Offer { position, membership: Membership::of_voters(&[NodeId(1)]), manifest })
    }

    #[test]
    fn an_installation_that_fails_before_the_rename_changes_nothing_and_after_it_is_in_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let present = || Kept::read(dir.path()).unwrap().map(|kept| kept.applied.index);
        let planted = |_: &Path| Err(io::Error::other("planted"));
        let partial = dir.path().join("state.json.partial");

        let (mut machine, offer) = with_fetched(dir.path());
        fs::create_dir(&partial).unwrap();
        let error = machine.install_with(&offer, planted).unwrap_err();
        assert!(matches!(error, ApplyError::Failed(_)), "{error:?}");
        assert_eq!((present(), machine.applied().index), (None, 0));
        fs::remove_dir(&partial).unwrap();

        let (mut machine, offer) = with_fetched(dir.path());
        let error = machine.install_with(&offer, planted).unwrap_err();
        assert!(matches!(error, ApplyError::InDoubt(_)), "{error:?}");
        assert_eq!((present(), machine.applied().index), (Some(9), 0), "it has not gone on from what may not last");
    }
}
