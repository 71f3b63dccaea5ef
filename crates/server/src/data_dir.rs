//! The folder that a process keeps everything in, and whose folder it is.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use sagitta_consensus::{GroupId, LogMark, write_whole};
use sagitta_coordinator::CONTROL_GROUP;
use sagitta_env::Env;
use serde::{Deserialize, Serialize};

/// Layout of the folder that this build writes.
const FORMAT: u32 = 2;
const IDENTITY_FILE: &str = "sagitta.json";
const LOCK_FILE: &str = "lock";

/// A data folder that this process holds; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct DataDir {
    layout: Layout,
    identity: Identity,
    /// Held open for its lock.
    _lock: File,
}

/// The data folder of a process that has stopped, held so that none starts in it, and never written to.
#[derive(Debug)]
pub(crate) struct StoppedDir {
    pub(crate) layout: Layout,
    /// Whose it is; `None` if no process came so far as to write it.
    pub(crate) identity: Result<Option<Identity>, DataDirError>,
    /// Held open for its lock, which those that only look share.
    _lock: Option<File>,
}

/// Where what is in a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Layout(PathBuf);

/// Who owns a data folder. The node's id is handed out once, when the folder is made; the cluster is entered once, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// Whether this node founded that cluster. Folders of format 1 belong to clusters of one node.
    #[serde(default = "founded")]
    founder: bool,
    node_id: String,
    /// How often a process of a cluster started in it. Whoever has heard a later start refuses an earlier one: that of a copy, or of a
    /// folder that was brought back from a backup.
    #[serde(default, skip_serializing_if = "is_zero")]
    starts: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn founded() -> bool {
    true
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error(
        "the data folder {path} is in use by another process: stop that one first, or choose another folder with --data"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be written to.
    #[error(
        "the data folder {path} cannot be written to ({source}): give this user the right to, or choose another folder with --data"
    )]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer build wrote it.
    #[error(
        "the data folder {path} has format {found}, this build reads up to {FORMAT}: start it with the newer build that wrote it"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// There are files in it that Sagitta did not write.
    #[error(
        "{path} is not empty and not a data folder of Sagitta (no {IDENTITY_FILE}): choose an empty or new folder with --data"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The identity file is not what was written.
    #[error("{path} is damaged ({reason}): restore it from a backup; the folder's data is untouched")]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to look at.
    #[error("{path} is no data folder of Sagitta ({why}): name the folder that a server was started with by --data")]
    NotData {
        /// What was named.
        path: PathBuf,
        /// Why it is none.
        why: String,
    },
    /// Another process holds the folder that was to be looked at.
    #[error(
        "the data folder {path} is in use by a running process, whose files change: stop it first, or ask it while it runs, with sagitta cluster status"
    )]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// It is no folder.
    #[error("{path} is a file, not a folder: choose an empty or new folder with --data")]
    File {
        /// The file.
        path: PathBuf,
    },
    /// Anything else that the system refused.
    #[error("cannot use the data folder {path} ({source}): look at its disk, or choose another folder with --data")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Takes a folder, which is made if there is none, for this process.
    pub(crate) fn open(path: &Path, env: &Env) -> Result<Self, DataDirError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                DataDirError::ReadOnly { path: path.to_owned(), source }
            }
            _ => DataDirError::Io { path: path.to_owned(), source },
        };
        if path.is_file() {
            return Err(DataDirError::File { path: path.to_owned() });
        }
        fs::create_dir_all(path).map_err(failed)?;
        let known = path.join(IDENTITY_FILE).exists() || path.join(LOCK_FILE).exists();
        if !known && fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(DataDirError::Foreign { path: path.to_owned() });
        }
        let lock =
            File::options().create(true).truncate(false).write(true).open(path.join(LOCK_FILE)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DataDirError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => failed(source),
        })?;
        let identity = match read_identity(path)? {
            Some(identity) => identity,
            None => {
                let node_id = format!("{:032x}", env.uuid());
                let identity = Identity { format: FORMAT, cluster_id: None, founder: false, node_id, starts: 0 };
                write_identity(path, &identity).map_err(failed)?;
                identity
            }
        };
        Ok(Self { layout: Layout(path.to_owned()), identity, _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.layout.path()
    }

    /// Where what is in it.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Identity of the cluster that the folder belongs to, once it belongs to one.
    pub(crate) fn cluster_id(&self) -> Option<u128> {
        self.identity.cluster_id()
    }

    /// Whether this node founded its cluster.
    pub(crate) fn founder(&self) -> bool {
        self.identity.founder
    }

    /// Makes the folder belong to a cluster, for ever, as its founder or as a later member.
    pub(crate) fn enter(&mut self, cluster: u128, founder: bool) -> Result<(), DataDirError> {
        assert!(self.identity.cluster_id.is_none(), "a data folder belongs to one cluster for ever");
        let identity =
            Identity { format: FORMAT, cluster_id: Some(format!("{cluster:032x}")), founder, ..self.identity.clone() };
        self.rewrite(identity)
    }

    /// Counts this start, durably: its number is told to nobody before, so that no later start has it.
    pub(crate) fn count_start(&mut self) -> Result<u64, DataDirError> {
        let starts = self.identity.starts + 1;
        self.rewrite(Identity { starts, ..self.identity.clone() })?;
        Ok(starts)
    }

    fn rewrite(&mut self, identity: Identity) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { path: self.path().to_owned(), source };
        write_identity(self.path(), &identity).map_err(failed)?;
        self.identity = identity;
        Ok(())
    }

    /// Identity of the node that the folder is.
    pub(crate) fn node_id(&self) -> u128 {
        self.identity.node_id()
    }
}

impl StoppedDir {
    /// Holds a folder for as long as somebody looks at it.
    pub(crate) fn hold(path: &Path) -> Result<Self, DataDirError> {
        let not_data = |why: &str| DataDirError::NotData { path: path.to_owned(), why: why.to_owned() };
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(not_data("it is a file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_data("there is no such folder")),
            Err(error) => return Err(failed(error)),
        }
        let lock = match File::open(path.join(LOCK_FILE)) {
            Ok(lock) => Some(lock),
            // A copy need not have it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        if lock.is_none() && !path.join(IDENTITY_FILE).exists() {
            return Err(not_data(&format!("it holds no {IDENTITY_FILE}")));
        }
        if let Some(lock) = &lock {
            lock.try_lock_shared().map_err(|error| match error {
                TryLockError::WouldBlock => DataDirError::Running { path: path.to_owned() },
                TryLockError::Error(source) => failed(source),
            })?;
        }
        let layout = Layout(path.to_owned());
        Ok(Self { layout, identity: read_identity(path), _lock: lock })
    }
}

impl Layout {
    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the Raft log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Where the control plane's state is.
    pub(crate) fn control(&self) -> PathBuf {
        self.0.join("control")
    }

    /// Where the shard replicas are.
    pub(crate) fn shards(&self) -> PathBuf {
        self.0.join("shards")
    }

    /// The groups that have had a log here, ascending.
    pub(crate) fn groups_with_log(&self) -> io::Result<Vec<GroupId>> {
        let mut groups = Vec::new();
        if LogMark::in_folder(&self.control()).is_set() {
            groups.push(CONTROL_GROUP);
        }
        let folders = match fs::read_dir(self.shards()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(groups),
            folders => folders?,
        };
        for folder in folders {
            let path = folder?.path();
            let shard = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            groups.extend(shard.map(GroupId).filter(|_| LogMark::in_folder(&path).is_set()));
        }
        groups.sort_unstable();
        Ok(groups)
    }

    /// Where the control state is kept as this node last followed it.
    pub(crate) fn followed(&self) -> PathBuf {
        self.0.join("followed.json")
    }
}

impl Identity {
    /// Identity of the cluster, once the folder belongs to one.
    pub(crate) fn cluster_id(&self) -> Option<u128> {
        let id = self.cluster_id.as_ref()?;
        Some(parse(id).expect("invariant: checked when it was read"))
    }

    /// Whether the node founded its cluster.
    pub(crate) fn founder(&self) -> bool {
        self.founder && self.cluster_id.is_some()
    }

    /// Identity of the node.
    pub(crate) fn node_id(&self) -> u128 {
        parse(&self.node_id).expect("invariant: checked when it was read")
    }
}

fn parse(hex: &str) -> Option<u128> {
    u128::from_str_radix(hex, 16).ok()
}

fn read_identity(dir: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = dir.join(IDENTITY_FILE);
    let damaged = |reason: String| DataDirError::Damaged { path: path.clone(), reason };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::Io { path, source }),
    };
    let loose: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let found = loose["format"].as_u64().and_then(|n| u32::try_from(n).ok());
    if let Some(found) = found
        && found > FORMAT
    {
        return Err(DataDirError::Newer { path: dir.to_owned(), found });
    }
    let identity: Identity = serde_json::from_value(loose).map_err(|e| damaged(e.to_string()))?;
    let ids = identity.cluster_id.iter().chain([&identity.node_id]);
    if ids.into_iter().any(|id| parse(id).is_none()) {
        return Err(damaged("an id is not 32 hexadecimal digits".to_owned()));
    }
    Ok(Some(identity))
}

fn write_identity(dir: &Path, identity: &Identity) -> io::Result<()> {
    write_whole(&dir.join(IDENTITY_FILE), &serde_json::to_vec_pretty(identity)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(path, &Env::seeded(1).0)
    }

    #[test]
    fn a_folder_keeps_its_identity_and_admits_one_process_at_a_time() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let path = temp.path().join("new/data");
        let mut first = open(&path).expect("made");
        let ids = (Some(9), first.node_id());
        assert_eq!(first.cluster_id(), None);
        first.enter(9, true).expect("written");
        let second = open(&path).expect_err("held");
        assert!(matches!(second, DataDirError::InUse { .. }) && second.to_string().contains("--data"), "{second}");
        drop(first);
        let again = DataDir::open(&path, &Env::seeded(2).0).expect("free again");
        assert_eq!((again.cluster_id(), again.node_id()), ids);
    }

    #[test]
    fn every_start_has_a_later_number_than_those_before() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let start = || open(temp.path()).expect("free").count_start().expect("written");
        assert_eq!([start(), start()], [1, 2]);
        open(temp.path()).expect("free").enter(9, false).expect("written");
        assert_eq!(start(), 3);
        assert_eq!(open(temp.path()).expect("free").cluster_id(), Some(9));
    }

    #[test]
    fn what_is_not_ours_newer_or_damaged_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().expect("temporary folder");
        fs::write(temp.path().join("thesis.tex"), "x").expect("written");
        assert!(matches!(open(temp.path()), Err(DataDirError::Foreign { .. })));
        let cases = [
            (r#"{"format":3,"new":"layout"}"#, "format 3"),
            ("{", "damaged"),
            (r#"{"format":1,"cluster_id":"x","node_id":"1"}"#, "hexadecimal"),
        ];
        for (text, expected) in cases {
            let temp = tempfile::tempdir().expect("temporary folder");
            let file = temp.path().join(IDENTITY_FILE);
            fs::write(&file, text).expect("written");
            let error = open(temp.path()).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(fs::read_to_string(&file).expect("still there"), text);
        }
        let file = temp.path().join("thesis.tex");
        let error = open(&file).expect_err("a file");
        assert!(matches!(error, DataDirError::File { .. }) && error.to_string().contains("--data"), "{error}");
    }
}
