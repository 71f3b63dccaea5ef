//! Runs of the programs, and what they came to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use serde_json::Value;

/// The exit codes that the help texts promise.
pub(crate) const DONE: i32 = 0;
pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const NOT_FOUND: i32 = 3;
pub(crate) const UNAVAILABLE: i32 = 4;
pub(crate) const CONFLICT: i32 = 5;
pub(crate) const DATA: i32 = 7;
pub(crate) const DEGRADED: i32 = 8;
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

/// Runs `sagittad inspect` over a folder.
pub(crate) fn inspect(data: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagittad"));
    command.arg("inspect").arg("--data").arg(data).args(arguments);
    command.output().expect("the program runs").into()
}

/// Every file below a folder with its content and when it was changed, and every folder.
pub(crate) fn picture(dir: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, SystemTime)>> {
    let (mut picture, mut folders) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                picture.insert(path.clone(), None);
                folders.push(path);
            } else {
                let changed = path.metadata().and_then(|metadata| metadata.modified()).expect("a time");
                picture.insert(path.clone(), Some((fs::read(&path).expect("a file"), changed)));
            }
        }
    }
    picture
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
