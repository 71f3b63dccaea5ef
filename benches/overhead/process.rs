//! The processes that are measured.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sagitta_env::Env;

use crate::cpu::Reading;

/// A server process of ours; killed when dropped.
pub(crate) struct Process {
    child: Child,
    endpoint: String,
    /// Held open: the process must not meet a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// `sagittad dev` over a folder, on a free port.
    pub(crate) fn server(folder: &Path) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("sagittad");
        ensure!(program.is_file(), "there is no {}: build it first, as `make bench` does", program.display());
        let mut command = Command::new(program);
        command.arg("dev").arg("--data").arg(folder).args(["--listen", "127.0.0.1:0"]);
        Self::start(command)
    }

    /// The bare echo.
    pub(crate) fn echo() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo");
        Self::start(command)
    }

    /// Starts a program and waits until it says where it listens.
    fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut stdout = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let endpoint = line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
        let endpoint = endpoint.with_context(|| format!("{command:?} did not start: it said {line:?}"))?;
        Ok(Self { child, endpoint, _stdout: stdout })
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// CPU time of its threads so far.
    pub(crate) fn cpu(&self) -> Result<Reading> {
        Reading::of(self.child.id())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminate(mut self, env: &Env) -> Result<()> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status()?;
        // Not on this thread: it must go on to answer the server that says good-bye to its connections.
        let ended = env.spawn_blocking(move || self.child.wait()).await??;
        ensure!(killed.success() && ended.success(), "the server did not end well");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
