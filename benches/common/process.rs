//! The processes that are measured.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sagitta_env::Env;

use crate::cpu::Reading;

/// A server process of ours; killed when dropped.
pub struct Process {
    child: Child,
    endpoint: String,
    /// Held open: the process must not meet a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

/// A process that has not said yet that it is ready.
pub struct Starting {
    command: Command,
    child: Child,
}

impl Process {
    /// `sagittad dev` over a folder, on a free port.
    pub fn server(folder: &Path) -> Result<Self> {
        let mut command = sagittad()?;
        command.arg("dev").arg("--data").arg(folder).args(["--listen", "127.0.0.1:0", "--log", "warn"]);
        Starting::new(command)?.ready()
    }

    /// The bare echo.
    pub fn echo() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?.with_file_name("overhead"));
        command.arg("echo");
        Starting::new(command)?.ready()
    }

    /// Where it is called.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// CPU time of its threads so far.
    pub fn cpu(&self) -> Result<Reading> {
        Reading::of(self.child.id())
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(mut self, env: &Env) -> Result<()> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status()?;
        // Not on this thread: it must go on to answer the server that says good-bye to its connections.
        let ended = env.spawn_blocking(move || self.child.wait()).await??;
        ensure!(killed.success() && ended.success(), "the server did not end well");
        Ok(())
    }
}

/// The server's program, which is built beside this one.
pub fn sagittad() -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("sagittad");
    ensure!(program.is_file(), "there is no {}: build it first, as `make bench` does", program.display());
    Ok(Command::new(program))
}

impl Starting {
    /// Starts a program that says on standard output where it listens once it is ready.
    pub fn new(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { command, child })
    }

    /// Waits until it is ready.
    pub fn ready(mut self) -> Result<Process> {
        let mut stdout = BufReader::new(self.child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let endpoint = line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
        let endpoint = endpoint.with_context(|| format!("{:?} did not start: it said {line:?}", self.command))?;
        Ok(Process { child: self.child, endpoint, _stdout: stdout })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
