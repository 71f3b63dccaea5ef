//! A server with a folder of files and a state folder of the test's own, and the command line to run against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::server::Server;

/// The exit codes that the help texts promise.
pub(crate) const DONE: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const NOT_FOUND: i32 = 3;
pub(crate) const UNAVAILABLE: i32 = 4;
pub(crate) const CONFLICT: i32 = 5;
pub(crate) const DATA: i32 = 7;
pub(crate) const INTERRUPTED: i32 = 130;

/// The binary `sagitta`, which is built into the folder where `sagittad` is.
///
/// Cargo tells a test only where the programs of its own package are. `cargo test --workspace` builds both.
pub(crate) fn sagitta() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_sagittad")).with_file_name("sagitta");
    let hint = "run `cargo build -p sagitta-cli` first, or test with --workspace, which builds both programs";
    assert!(path.exists(), "{} is not there: {hint}", path.display());
    path
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        // A process that a signal ended has no code.
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts that the standard output shows this.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(self.out.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// Asserts that standard error says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in {self:#?}");
        self
    }

    /// The JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A server, a client for it, and a folder for files.
pub(crate) struct World {
    temp: tempfile::TempDir,
    pub(crate) server: Server,
}

impl World {
    /// A fresh server without collections.
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let server = Server::start(&temp.path().join("data"));
        Self { temp, server }
    }

    /// A fresh server with the collection `docs` of the 4,000 embeddings of the sample and their payload.
    pub(crate) fn with_sample() -> Self {
        let world = Self::new();
        let base = sample("text384-4k.base.f16.npy");
        let payload = sample("text384-4k.payload.jsonl.gz");
        world.run(["import", "docs", &base, "--payload", &payload, "--create"]).ends_with(DONE);
        world
    }

    /// Where a file of the test's own is.
    pub(crate) fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().expect("a name in UTF-8").to_owned()
    }

    /// Writes a file and says where.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("writes");
        path
    }

    /// The program with arguments, ready to run in the folder of files.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(sagitta());
        command.args(args).current_dir(self.temp.path());
        command.env("SAGITTA_ENDPOINT", &self.server.endpoint).env("SAGITTA_STATE_DIR", self.state());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Where imports remember how far they got.
    pub(crate) fn state(&self) -> PathBuf {
        self.temp.path().join("state")
    }

    /// Runs the program to its end.
    pub(crate) fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Ran {
        self.command(args).output().expect("the program runs").into()
    }

    /// Runs the program, asserts that it does what it was told, and returns its JSON document.
    #[track_caller]
    pub(crate) fn json<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Value {
        self.run(args.into_iter().chain(["--output", "json"])).ends_with(DONE).json()
    }

    /// How many points a collection has.
    #[track_caller]
    pub(crate) fn count(&self, collection: &str) -> u64 {
        self.json(["count", collection])["count"].as_u64().expect("a number")
    }

    /// Kills the server and starts it again over the same folder.
    pub(crate) fn restarted(self) -> Self {
        self.with_server_killed(|| {})
    }

    /// Kills the server, does something without it and starts it again over the same folder.
    pub(crate) fn with_server_killed(self, meanwhile: impl FnOnce()) -> Self {
        let Self { temp, server } = self;
        server.kill();
        meanwhile();
        let server = Server::start(&temp.path().join("data"));
        Self { temp, server }
    }
}

/// A file of the sample of real embeddings.
pub(crate) fn sample(name: &str) -> String {
    of_repository(&format!("tests/data/{name}"))
}

/// A file that another program wrote, to test readers with.
pub(crate) fn foreign(name: &str) -> String {
    of_repository(&format!("crates/cli/tests/data/formats/{name}"))
}

fn of_repository(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    let path = path.canonicalize().expect("the file is in the repository");
    path.to_str().expect("a name in UTF-8").to_owned()
}
