//! A server process of the test's own, and a client for it.

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sagitta_client::{Client, ClientConfig, ClientError, Get, Scroll, Search, Searches};
use sagitta_env::Env;
use sagitta_model::{
    CollectionName, Consistency, Effort, FieldType, Filter, IndexPolicy, Metric, Object, PayloadSelection, Point,
    PointId, Record, Schema, SearchQuery, Selection, VectorSelection, VectorSpec,
};

/// A running `sagittad dev` on a free port; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
    /// Held open: the process must not meet a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

fn command(data: &Path, listen: &str, filter: &str) -> Command {
    // Another build of it, if one is named.
    let program = std::env::var_os("SAGITTA_SERVER").unwrap_or_else(|| env!("CARGO_BIN_EXE_sagittad").into());
    let mut command = Command::new(program);
    command.arg("dev").arg("--data").arg(data).args(["--listen", listen, "--log", filter]);
    command
}

impl Server {
    /// Starts a server over a folder and waits until it says that it is ready.
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// Starts a server with further arguments.
    pub(crate) fn start_with(data: &Path, arguments: &[&str]) -> Self {
        let mut command = command(data, "127.0.0.1:0", "error");
        let started = Self::spawn(command.args(arguments).stderr(Stdio::inherit()));
        started.map(|(server, _)| server).unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// Starts a server that logs what `filter` says, and collects its lines. An error is what it said before it gave up.
    pub(crate) fn try_start_logging(data: &Path, filter: &str) -> Result<(Self, Log), String> {
        Self::spawn(command(data, "127.0.0.1:0", filter).stderr(Stdio::piped()))
    }

    /// Starts it and waits until it says that it is ready. The log is empty where standard error is not piped.
    fn spawn(command: &mut Command) -> Result<(Self, Log), String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary is there");
        let log = Log::follow(child.stderr.take());
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("readable");
        match line.split_whitespace().find(|word| word.starts_with("http://") || word.starts_with("https://")) {
            Some(endpoint) => Ok((Self { endpoint: endpoint.to_owned(), child, _stdout: stdout }, log)),
            None => {
                let status = child.wait().expect("waited");
                log.wait_for_end();
                Err(format!("{status}: {line}{}", log.lines().join("\n")))
            }
        }
    }

    /// What a server that must not start says on standard error.
    pub(crate) fn refusal(data: &Path, listen: &str) -> String {
        Self::refusal_of(command(data, listen, "error"))
    }

    /// The same for a server that is started in another way.
    pub(crate) fn refusal_of(mut command: Command) -> String {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is there");
        let mut said = String::new();
        // Ends when the process does: a server that starts after all would hang here, so its standard output is looked at first.
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        if !line.is_empty() {
            let _ = child.kill();
        }
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("readable");
        let status = child.wait().expect("waited");
        assert!(line.is_empty() && !status.success(), "it started: {line}");
        said
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(ClientConfig::new(self.endpoint.clone())).expect("a valid endpoint")
    }

    /// As `kill -9` does: no warning, no cleaning up.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("running");
        self.child.wait().expect("waited");
    }

    /// As `kill` does; returns whether it ended well.
    pub(crate) fn terminate(mut self) -> bool {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill runs").success());
        self.child.wait().expect("waited").success()
    }
}

/// What a server writes to standard error, line by line, for as long as it lives.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(stderr: Option<ChildStderr>) -> Self {
        let log = Self::default();
        let Some(stderr) = stderr else {
            log.lock().ended = true;
            return log;
        };
        let to = log.clone();
        let follow = move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                to.lock().lines.push(line);
            }
            to.lock().ended = true;
        };
        Env::real().thread("server-log", follow).expect("a thread");
        log
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Returns once the server is gone and all that it said has been read.
    pub(crate) fn wait_for_end(&self) {
        while !self.lock().ended {
            pause();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two looks at a condition that nothing tells about.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// A number from the environment, or what every day runs.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small generator with good enough bits, so that a test is its seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.below(2_000) as f32 / 1_000.0 - 1.0).collect()
    }
}

pub(crate) fn name(text: &str) -> CollectionName {
    text.parse().expect("a name")
}

/// One cosine vector `v` and the fields `group` and `n`.
pub(crate) fn schema(dim: usize, metric: Metric) -> Schema {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim, metric, index: IndexPolicy::Auto });
    schema.fields.insert("group".parse().expect("path"), FieldType::Keyword);
    schema.fields.insert("n".parse().expect("path"), FieldType::Integer);
    schema
}

pub(crate) fn point(id: u64, vector: Vec<f32>, n: i64) -> Point {
    let payload =
        Object::from([("group".to_owned(), format!("g{}", id % 10).as_str().into()), ("n".to_owned(), n.into())]);
    Point { id: PointId::Num(id), vectors: [("v".to_owned(), vector)].into(), payload }
}

pub(crate) fn everything() -> Selection {
    Selection { payload: PayloadSelection::All, vectors: VectorSelection::All }
}

pub(crate) fn query(vector: Vec<f32>, k: usize) -> SearchQuery {
    let (min_similarity, filter, group_by) = (None, None, None);
    SearchQuery { vector_name: String::new(), vector, k, min_similarity, filter, effort: Effort::default(), group_by }
}

pub(crate) fn searches(collection: &str, query: SearchQuery) -> Searches {
    let search = Search { query, score_threshold: None, selection: Selection::default(), explain: false };
    Searches {
        collection: name(collection),
        searches: vec![search],
        consistency: Consistency::Strong,
        allow_partial: false,
        batch: false,
    }
}

pub(crate) fn get(collection: &str, ids: Vec<PointId>) -> Get {
    Get { collection: name(collection), ids, selection: everything(), consistency: Consistency::Strong }
}

/// All points of a collection, or those that pass a filter.
pub(crate) async fn all_points(client: &Client, collection: &str, filter: Option<Filter>) -> Vec<Record> {
    scroll(client, collection, filter).await.expect("points are listed")
}

/// The same where no answer may be the answer.
pub(crate) async fn scroll(
    client: &Client,
    collection: &str,
    filter: Option<Filter>,
) -> Result<Vec<Record>, ClientError> {
    let scroll = Scroll {
        collection: name(collection),
        filter: filter.map(Arc::new),
        selection: everything(),
        consistency: Consistency::Strong,
    };
    let mut scroller = client.scroll(scroll, 1_000);
    let mut records = Vec::new();
    while let Some(record) = scroller.next().await {
        records.push(record?);
    }
    Ok(records)
}

/// A fresh folder that does not exist yet, within a temporary one.
pub(crate) fn data(temp: &tempfile::TempDir) -> PathBuf {
    temp.path().join("data")
}

/// A folder in memory if the system has such a place: for tests that copy much, and not to test a disk.
pub(crate) fn memory_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary folder")
}

/// Copies a folder with all that is in it to a new one.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a copy");
        }
    }
}

/// The files below a folder, as paths within it, sorted.
pub(crate) fn files_below(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path.strip_prefix(root).expect("below the root").to_owned()),
            }
        }
    }
    files.sort();
    files
}
