//! A disk that is full or read-only: writes are refused with the reason, reads go on, nothing is lost, and it goes on by
//! itself once there is room. Needs root for small disks of its own; without it says so and does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sagitta_client::{Client, ClientConfig, ClientError, RetryPolicy};
use sagitta_env::Env;
use sagitta_model::{ErrorKind, Metric};

use crate::harness::{Rng, Server, data, name, number, pause, schema};
use crate::ledger::{COLLECTION, Ledger};
use crate::small_disk::{SmallDisk, mount};

const DIM: usize = 64;
const IDS: u64 = 30_000;
/// Points of one write.
const MOST_POINTS: u64 = 2_000;
/// How often the disk is filled in an ordinary run; `SAGITTA_FILLS` asks for more.
const FILLS: u64 = 4;
/// Of the disk: enough for the server's log, its database and a compaction.
const DISK_MEBIBYTES: u64 = 1_024;
/// What a fill leaves free at most.
const MOST_LEFT_MEBIBYTES: u64 = 24;
/// Refusals in one fill because sealing is behind, after which it is taken for the disk's doing.
const BEHIND_FOR_LONG: u64 = 1_000;
/// A caller's patience. A write that finds the disk full in the middle is held until then.
const DEADLINE: Duration = Duration::from_secs(3);
/// After room was made, writes are taken again within this.
const RESUMES_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_goes_on_by_itself() {
    let (seed, fills) = (number("SAGITTA_SEED", 5), number("SAGITTA_FILLS", FILLS));
    let temp = tempfile::tempdir().expect("temporary");
    let Some(disk) = SmallDisk::mount(temp.path(), DISK_MEBIBYTES) else {
        return;
    };
    println!("seed {seed}, {fills} fills");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _within = runtime.enter();
    let folder = disk.path.join("data");
    let mut server = Server::start(&folder);
    let ledger = Ledger::new(DIM, IDS);
    let mut rng = Rng::new(seed);
    let client = server.client();
    runtime.block_on(client.create_collection(name(COLLECTION), schema(DIM, Metric::L2))).expect("created");
    for fill in 0..fills {
        let episode = Episode { ledger: &ledger, disk: &disk, fill };
        runtime.block_on(episode.run(&server, &mut rng));
        if fill % 2 == 1 {
            server.kill();
            server = Server::start(&folder);
            runtime.block_on(ledger.check(&server.client(), &mut rng));
        }
    }
    // Killed while there is no room: it says so, or starts and serves; with room everything is there.
    disk.fill_leaving(0);
    server.kill();
    match Server::try_start_logging(&folder, "error") {
        Ok((server, _)) => {
            runtime.block_on(ledger.check(&server.client(), &mut rng));
            server.kill();
            println!("started on a full disk");
        }
        Err(said) => {
            assert!(says_full(&said), "{said}");
            println!("refused to start on a full disk: {said}");
        }
    }
    disk.free();
    let server = Server::start(&folder);
    runtime.block_on(ledger.check(&server.client(), &mut rng));
    println!("{} writes acknowledged", ledger.writes());
    assert!(ledger.writes() > fills, "hardly anything was written");
}

/// From room to none and back.
struct Episode<'a> {
    ledger: &'a Ledger,
    disk: &'a SmallDisk,
    fill: u64,
}

impl Episode<'_> {
    async fn run(&self, server: &Server, rng: &mut Rng) {
        let mut config = ClientConfig::new(server.endpoint.clone());
        (config.retry, config.deadline) = (RetryPolicy::NEVER, DEADLINE);
        let impatient = Client::connect(config).expect("a valid endpoint");
        for _ in 0..20 {
            self.ledger.write(&server.client(), rng, MOST_POINTS).await.expect("there is room");
        }
        self.disk.fill_leaving(rng.below(MOST_LEFT_MEBIBYTES << 20));
        let error = self.write_until_full(&impatient, rng).await;
        println!("fill {}: {error:?}", self.fill);
        // Whatever is asked now is answered, of what is known for certain.
        let client = server.client();
        if !self.ledger.is_in_doubt() {
            self.ledger.check(&client, rng).await;
            let written = self.ledger.upsert(&impatient, rng, MOST_POINTS).await;
            assert!(written.as_ref().err().is_none_or(is_refusal), "{written:?}");
        }
        self.ledger.read_in_doubt(&client, rng).await;
        self.disk.free();
        let env = Env::real();
        let (freed, until) = (env.now(), env.deadline(RESUMES_WITHIN));
        loop {
            // What is in doubt may still be done, until a later write is.
            let written = self.ledger.probe(&impatient).await;
            match written {
                Ok(()) => break,
                Err(error) => assert!(is_refusal(&error), "{error:?}"),
            }
            assert!(!until.has_passed(&env), "it does not go on by itself");
            pause();
        }
        println!("fill {}: goes on {:?} after there was room", self.fill, env.now() - freed);
        self.ledger.check(&client, rng).await;
    }

    /// Writes until a refusal says that there is no room. What is under way when the disk gets full may end in doubt.
    async fn write_until_full(&self, client: &Client, rng: &mut Rng) -> ClientError {
        let mut behind = 0;
        // A write takes about half a megabyte; some are refused because sealing is behind.
        let mut reserve = None;
        for _ in 0..10_000 {
            let in_doubt = self.ledger.is_in_doubt();
            let written = match (reserve.is_some(), in_doubt) {
                (true, _) => self.ledger.delete_nothing(client).await,
                (_, false) => self.ledger.write(client, rng, MOST_POINTS).await.map(drop),
                (_, true) => self.ledger.probe(client).await,
            };
            match written {
                // From here on only what deletes is taken, until there is no room for that either.
                Err(error) if is_reserve(&error) => reserve = Some(error),
                Err(error) if error.kind == ErrorKind::Overloaded && says_full(&error.message) => return error,
                Err(error) => {
                    assert!(is_refusal(&error), "{error:?}");
                    if is_behind(&error) {
                        behind += 1;
                    }
                    // Nothing can be sealed without room: what is refused for long is refused for that.
                    if behind >= BEHIND_FOR_LONG {
                        return error;
                    }
                    pause();
                }
                // Now the one before is decided, too: there was some room yet.
                Ok(()) if in_doubt && reserve.is_none() => drop(self.ledger.settle(client, rng).await),
                Ok(()) => {}
            }
        }
        // What deletes is small: all of it may fit into what is left.
        reserve.expect("the disk gets full")
    }
}

/// Sealing does not keep up.
fn is_behind(error: &ClientError) -> bool {
    error.kind == ErrorKind::Overloaded && error.message.contains("to be indexed")
}

/// What is left of the disk is kept for deletes.
fn is_reserve(error: &ClientError) -> bool {
    error.kind == ErrorKind::Overloaded && error.message.contains("the disk is nearly full")
}

/// Not an error of the request, and no loss.
fn is_refusal(error: &ClientError) -> bool {
    matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable)
}

fn says_full(text: &str) -> bool {
    ["no room", "full", "No space left", "cannot be written"].iter().any(|word| text.contains(word))
}

#[tokio::test]
async fn a_read_only_folder_is_refused_and_left_as_it_is() {
    let temp = tempfile::tempdir().expect("temporary");
    let folder = data(&temp);
    let server = Server::start(&folder);
    let ledger = Ledger::new(8, 1_000);
    let mut rng = Rng::new(1);
    server.client().create_collection(name(COLLECTION), schema(8, Metric::L2)).await.expect("created");
    for _ in 0..5 {
        ledger.write(&server.client(), &mut rng, 100).await.expect("written");
    }
    assert!(server.terminate(), "a clean end");
    {
        let Some(_mount) = ReadOnly::mount(temp.path()) else {
            return;
        };
        for folder in [folder.clone(), temp.path().join("new")] {
            let said = Server::refusal(&folder, "127.0.0.1:0");
            println!("{said}");
            let path = folder.display().to_string();
            assert!(said.contains(&path) && said.contains("cannot be written to"), "{said}");
            assert!(said.contains("Read-only file system") && said.contains("--data"), "{said}");
        }
    }
    let server = Server::start(&folder);
    ledger.check(&server.client(), &mut rng).await;
}

/// A folder that nothing can be written to, not even by root.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(path: &Path) -> Option<Self> {
        let text = path.to_string_lossy();
        mount(&["--bind", &text, &text])?;
        let bound = Self(path.to_owned());
        mount(&["-o", "remount,bind,ro", &text])?;
        Some(bound)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
