//! The files under `raft-engine`, watched: what was synced is remembered and may not be cut off.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use super::mark::{FILE_NAME, Mark, MarkFile, Queue, Synced};
use crate::error::LogError;

/// What the library writes first into a file: a name of 53 bytes, version, alignment. Every record is longer than nothing.
const FILE_HEADER_BYTES: u64 = 53 + 8 + 8;

type Disk = DefaultFileSystem;
type DiskHandle = <Disk as FileSystem>::Handle;

/// What is known about the files of one log.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    syncs: AtomicU64,
    #[cfg(test)]
    pub(super) faults: Faults,
}

#[derive(Debug)]
struct State {
    mark: MarkFile,
    /// The first thing that went wrong for good.
    failure: Option<LogError>,
    last_read: PathBuf,
    /// While opening: of each queue the newest file and the last one read.
    opening: Option<BTreeMap<Queue, Progress>>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    newest: PathBuf,
    read: PathBuf,
}

/// Faults on demand, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) sync_fails: std::sync::atomic::AtomicBool,
    pub(super) disk_is_full: std::sync::atomic::AtomicBool,
}

/// The file system handed to the library.
pub(super) struct WatchedFiles {
    disk: Disk,
    watch: Arc<Watch>,
}

pub(super) struct WatchedFile {
    disk: Arc<DiskHandle>,
    watch: Arc<Watch>,
    path: PathBuf,
    name: Option<(Queue, u64)>,
    /// Where the last write ended.
    end: AtomicU64,
}

pub(super) struct WatchedReader {
    disk: <Disk as FileSystem>::Reader,
    file: Arc<WatchedFile>,
}

pub(super) struct WatchedWriter {
    disk: <Disk as FileSystem>::Writer,
    file: Arc<WatchedFile>,
    offset: u64,
}

impl Watch {
    /// Takes the folder for this process and checks it against its mark.
    pub(super) fn open(folder: &Path) -> Result<Arc<Self>, LogError> {
        let path = folder.join(FILE_NAME);
        std::fs::create_dir_all(folder).map_err(|error| io_error(folder, &error))?;
        let files = log_files(folder)?;
        let found = if path.exists() { MarkFile::open(&path).map_err(|error| io_error(&path, &error))? } else { None };
        let mark = match (found, files.first()) {
            (Some(mark), _) => mark,
            (None, Some((_, _, beside))) => {
                let what = format!("no sound mark, but there is {}", beside.display());
                return Err(LogError::Corrupt { file: path, what });
            }
            // New, or the power went while it was made.
            (None, None) => {
                let mark = MarkFile::create(&path).map_err(|error| io_error(&path, &error))?;
                sync_folder(folder)?;
                folder.parent().map_or(Ok(()), sync_folder)?;
                mark
            }
        };
        if !mark.lock() {
            return Err(LogError::Io { what: format!("{} is open in another process", folder.display()) });
        }
        check_lengths(folder, &files, mark.mark())?;
        if mark.mark().sync_failed {
            cut_to_mark(&files, mark.mark())?;
        }
        let files = remove_unwritten(files, mark.mark())?;
        let mut opening = BTreeMap::<_, Progress>::new();
        for (queue, _, path) in files {
            opening.entry(queue).or_default().newest = path;
        }
        let state = State { mark, failure: None, last_read: folder.to_owned(), opening: Some(opening) };
        Ok(Arc::new(Self {
            state: Mutex::new(state),
            syncs: AtomicU64::new(0),
            #[cfg(test)]
            faults: Faults::default(),
        }))
    }

    /// Makes durable what was found, before anybody relies on it, and marks it.
    pub(super) fn sync_all(&self, folder: &Path) -> Result<(), LogError> {
        let mut found = Mark::default();
        for (queue, number, path) in log_files(folder)? {
            let sync = || -> io::Result<u64> {
                let file = File::open(&path)?;
                file.sync_all()?;
                Ok(file.metadata()?.len())
            };
            let bytes = sync().map_err(|error| io_error(&path, &error))?;
            found.raise(queue, Synced { file: number, bytes });
        }
        sync_folder(folder)?;
        let mut state = self.lock();
        state.opening = None;
        state.mark.write(found).and_then(|()| state.mark.sync()).map_err(|error| io_error(folder, &error))
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn check_open(&self) -> Result<(), LogError> {
        match &self.lock().failure {
            Some(failure) => Err(LogError::Closed { why: failure.to_string() }),
            None => Ok(()),
        }
    }

    /// Damage, in the file that was read last.
    ///
    /// While opening, the library reads the second queue even when the first is damaged. But there a queue that was
    /// not read to its newest file is the damaged one, since damage in a newest file is found by a refused cut.
    pub(super) fn corrupt(&self, what: String) -> LogError {
        let state = self.lock();
        let queues = state.opening.iter().flat_map(BTreeMap::values);
        let unfinished = queues.map(|queue| (&queue.read, &queue.newest)).find(|(read, newest)| read != newest);
        let file = unfinished.map_or(&state.last_read, |(read, _)| read).clone();
        LogError::Corrupt { file, what }
    }

    /// An error of the library in our terms.
    pub(super) fn explain(&self, error: &raft_engine::Error) -> LogError {
        if let Some(failure) = &self.lock().failure {
            return failure.clone();
        }
        let text = error.to_string();
        match error {
            // `Other` is what a failed decompression is: the kind of compression is outside of the checksums.
            raft_engine::Error::Corruption(_)
            | raft_engine::Error::Other(_)
            | raft_engine::Error::Codec(_)
            | raft_engine::Error::Protobuf(_)
            | raft_engine::Error::EntryNotFound
            | raft_engine::Error::EntryCompacted => self.corrupt(text),
            // The library's own name for it.
            raft_engine::Error::TryAgain(_) | raft_engine::Error::Io(_) if text.contains("nospace") => {
                LogError::Full { what: text }
            }
            _ => LogError::Io { what: text },
        }
    }

    /// A panic of the library in our terms. It closes the log, whose locks may be held for ever.
    pub(super) fn explain_panic(&self, text: &str) -> LogError {
        let corrupt = self.corrupt(text.to_owned());
        self.lock().failure.get_or_insert(corrupt).clone()
    }

    fn fail(&self, failure: LogError) -> io::Error {
        let error = io::Error::other(failure.to_string());
        let mut state = self.lock();
        if matches!(failure, LogError::SyncFailed { .. }) {
            let mark = Mark { sync_failed: true, ..state.mark.mark() };
            if let Err(error) = state.mark.write(mark) {
                tracing::error!(%error, "cannot note the failed fsync in the mark");
            }
        }
        state.failure.get_or_insert(failure);
        error
    }

    fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchedFiles {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self { disk: DefaultFileSystem, watch }
    }

    fn watched(&self, disk: DiskHandle, path: &Path) -> io::Result<WatchedFile> {
        let end = AtomicU64::new(disk.file_size()? as u64);
        let name = parse_name(path);
        Ok(WatchedFile { disk: Arc::new(disk), watch: self.watch.clone(), path: path.to_owned(), name, end })
    }
}

impl FileSystem for WatchedFiles {
    type Handle = WatchedFile;
    type Reader = WatchedReader;
    type Writer = WatchedWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<WatchedFile> {
        let disk = self.disk.create(path.as_ref())?;
        // The mark must never name a file that a power loss could take away.
        if let Some(folder) = path.as_ref().parent() {
            File::open(folder)?.sync_all()?;
        }
        self.watched(disk, path.as_ref())
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<WatchedFile> {
        let disk = self.disk.open(path.as_ref(), permission)?;
        self.watched(disk, path.as_ref())
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        if self.watch.has_failed() {
            return Err(io::Error::other("the log is closed after a failure"));
        }
        self.disk.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn new_reader(&self, file: Arc<WatchedFile>) -> io::Result<WatchedReader> {
        Ok(WatchedReader { disk: self.disk.new_reader(file.disk.clone())?, file })
    }

    fn new_writer(&self, file: Arc<WatchedFile>) -> io::Result<WatchedWriter> {
        Ok(WatchedWriter { disk: self.disk.new_writer(file.disk.clone())?, file, offset: 0 })
    }
}

impl WatchedFile {
    /// Refuses to cut off what was synced.
    fn check_cut(&self, offset: u64) -> io::Result<()> {
        let Some((queue, number)) = self.name else {
            return Ok(());
        };
        let synced = self.watch.lock().mark.mark().of(queue);
        let what = if number < synced.file {
            format!("a record at byte {offset} is damaged; the whole file had been synced")
        } else if number == synced.file && offset < synced.bytes {
            format!("a record at byte {offset} is damaged; {} bytes had been synced", synced.bytes)
        } else {
            return Ok(());
        };
        Err(self.watch.fail(LogError::Corrupt { file: self.path.clone(), what }))
    }

    fn sync_disk(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.watch.faults.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected"));
        }
        self.disk.sync()
    }
}

impl Handle for WatchedFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.check_cut(offset as u64)?;
        self.disk.truncate(offset)?;
        self.end.store(offset as u64, Ordering::Release);
        Ok(())
    }

    fn file_size(&self) -> io::Result<usize> {
        self.disk.file_size()
    }

    /// The library panics on an error from here, as it should. Once that has happened it still syncs on being
    /// dropped, which must not panic again.
    fn sync(&self) -> io::Result<()> {
        if self.watch.has_failed() {
            return Ok(());
        }
        let bytes = self.end.load(Ordering::Acquire);
        if let Err(error) = self.sync_disk() {
            let failure = LogError::SyncFailed { file: self.path.clone(), what: error.to_string() };
            return Err(self.watch.fail(failure));
        }
        self.watch.syncs.fetch_add(1, Ordering::Relaxed);
        let Some((queue, number)) = self.name else {
            return Ok(());
        };
        let mut state = self.watch.lock();
        let mut mark = state.mark.mark();
        mark.raise(queue, Synced { file: number, bytes });
        if let Err(error) = state.mark.write(mark) {
            // The log itself is sound: the check on the next opening is weaker, that is all.
            tracing::warn!(%error, "cannot move the mark of the log");
        }
        Ok(())
    }
}

impl Read for WatchedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.file.watch.lock();
        if state.last_read != self.file.path {
            state.last_read.clone_from(&self.file.path);
            if let (Some(opening), Some((queue, _))) = (&mut state.opening, self.file.name) {
                opening.entry(queue).or_default().read.clone_from(&self.file.path);
            }
        }
        drop(state);
        self.disk.read(buffer)
    }
}

impl Seek for WatchedReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.disk.seek(to)
    }
}

impl Write for WatchedWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        if self.file.watch.faults.disk_is_full.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace (injected)"));
        }
        let written = self.disk.write(buffer)?;
        self.offset += written as u64;
        self.file.end.store(self.offset, Ordering::Release);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl Seek for WatchedWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.offset = self.disk.seek(to)?;
        Ok(self.offset)
    }
}

impl WriteExt for WatchedWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.check_cut(offset as u64)?;
        self.disk.truncate(offset)?;
        self.offset = offset as u64;
        self.file.end.store(self.offset, Ordering::Release);
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.disk.allocate(offset, size)
    }
}

/// The log files in a folder, in order.
pub(in crate::log) fn log_files(folder: &Path) -> Result<Vec<(Queue, u64, PathBuf)>, LogError> {
    let mut files = Vec::new();
    let list = std::fs::read_dir(folder).map_err(|error| io_error(folder, &error))?;
    for item in list {
        let path = item.map_err(|error| io_error(folder, &error))?.path();
        if let Some((queue, number)) = parse_name(&path) {
            files.push((queue, number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The library's names: sixteen digits and a suffix per queue.
fn parse_name(path: &Path) -> Option<(Queue, u64)> {
    let name = path.file_name()?.to_str()?;
    let (digits, suffix) = name.split_once('.')?;
    let queue = match suffix {
        "raftlog" => Queue::Append,
        "rewrite" => Queue::Rewrite,
        _ => return None,
    };
    digits.parse().ok().map(|number| (queue, number))
}

/// Nothing that was synced is missing.
fn check_lengths(folder: &Path, files: &[(Queue, u64, PathBuf)], mark: Mark) -> Result<(), LogError> {
    for (queue, suffix) in [(Queue::Append, "raftlog"), (Queue::Rewrite, "rewrite")] {
        let synced = mark.of(queue);
        if synced == Synced::default() {
            continue;
        }
        let Some((_, _, path)) = files.iter().find(|(of, number, _)| (*of, *number) == (queue, synced.file)) else {
            let file = folder.join(format!("{:016}.{suffix}", synced.file));
            return Err(LogError::Corrupt { file, what: format!("missing; {} bytes had been synced", synced.bytes) });
        };
        let bytes = std::fs::metadata(path).map_err(|error| io_error(path, &error))?.len();
        if bytes < synced.bytes {
            let what = format!("{bytes} bytes long; {} bytes had been synced", synced.bytes);
            return Err(LogError::Corrupt { file: path.clone(), what });
        }
    }
    Ok(())
}

/// Removes new files that came to nothing, and returns the others.
///
/// When the disk is full the library begins a new file, and goes on with the old one if that fails, too. Found beside the new
/// one, the old one would not be taken for the last, and its end, which is still being written to, for damage.
fn remove_unwritten(files: Vec<(Queue, u64, PathBuf)>, mark: Mark) -> Result<Vec<(Queue, u64, PathBuf)>, LogError> {
    let mut kept = Vec::with_capacity(files.len());
    for (queue, number, path) in files {
        let bytes = std::fs::metadata(&path).map_err(|error| io_error(&path, &error))?.len();
        if number > mark.of(queue).file && bytes <= FILE_HEADER_BYTES {
            tracing::info!(file = %path.display(), "removing a log file that was begun and never written to");
            std::fs::remove_file(&path).map_err(|error| io_error(&path, &error))?;
        } else {
            kept.push((queue, number, path));
        }
    }
    Ok(kept)
}

/// After a failed fsync the system may show pages that never reached the disk. Nothing beyond the mark was ever
/// acknowledged: it goes.
fn cut_to_mark(files: &[(Queue, u64, PathBuf)], mark: Mark) -> Result<(), LogError> {
    for (queue, number, path) in files {
        let synced = mark.of(*queue);
        let cut = || match number.cmp(&synced.file) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal => {
                let file = File::options().write(true).open(path)?;
                file.set_len(synced.bytes)?;
                file.sync_all()
            }
            std::cmp::Ordering::Greater => std::fs::remove_file(path),
        };
        cut().map_err(|error| io_error(path, &error))?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), LogError> {
    // A relative path of one part has the empty path as its parent.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|open| open.sync_all()).map_err(|error| io_error(folder, &error))
}

fn io_error(path: &Path, error: &io::Error) -> LogError {
    LogError::Io { what: format!("{}: {error}", path.display()) }
}
