//! A server with a folder of files and a state folder of the test's own, and the command line to run against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

pub(crate) use crate::ran::*;
use crate::server::Server;

/// A server, a client for it, and a folder for files.
pub(crate) struct World {
    temp: tempfile::TempDir,
    pub(crate) server: Server,
}

impl World {
    /// A fresh server without collections.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// The same, of a server that is started with further arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let server = Server::start_with(&temp.path().join("data"), arguments);
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

    /// The folder of files, with the server's data in `data`, and the server.
    pub(crate) fn into_parts(self) -> (tempfile::TempDir, Server) {
        (self.temp, self.server)
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
