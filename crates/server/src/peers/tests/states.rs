//! Whole states that go from node to node.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sagitta_consensus::{
    ClusterId, GroupId, Manifest, NodeId, Order, Part, PartKeeper, Parts, Question, StateSource as _,
};
use sagitta_env::Env;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::transport::Uri;

use super::super::{AddressBook, PeerIdentity, StateFetcher, Timing};
use super::rig::*;

const GROUP: GroupId = GroupId(7);
const OFFER: u128 = 0xab;
const SOURCE: NodeId = NodeId(2);
const CHUNK: usize = 512 << 10;

/// Gives up soon: only tests that expect it to get there.
fn hasty() -> Timing {
    Timing { fetch_patience: Duration::from_millis(300), handshake: Duration::from_millis(200), ..brisk() }
}

/// A node that offers a state, and one that fetches it.
struct Pair {
    source: Receiver,
    book: AddressBook,
    fetcher: StateFetcher,
    manifest: Manifest,
    temp: tempfile::TempDir,
    wanted: Arc<()>,
}

impl Pair {
    async fn start(files: &[(&str, usize)], timing: Timing) -> Self {
        Self::start_as(identity(1), files, timing).await
    }

    async fn start_as(me: PeerIdentity, files: &[(&str, usize)], timing: Timing) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let offered = temp.path().join("offered");
        for (number, (name, bytes)) in files.iter().enumerate() {
            let path = offered.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content: Vec<u8> = (0..*bytes).map(|at| (at * 7 + (at >> 9) + number) as u8).collect();
            fs::write(path, content).unwrap();
        }
        fs::create_dir(temp.path().join("fetched")).unwrap();
        let manifest = Manifest::of(&offered, OFFER).unwrap();
        let source = Receiver::start(identity(SOURCE.0)).await;
        source.shelf.put(GROUP, offered, manifest.clone());
        let book = AddressBook::default();
        book.set(SOURCE, source.uri());
        let fetcher = StateFetcher::start_in(&Env::real(), me, book.clone(), timing);
        Self { source, book, fetcher, manifest, temp, wanted: Arc::default() }
    }

    fn offered(&self, name: &str) -> std::path::PathBuf {
        self.temp.path().join("offered").join(name)
    }

    fn fetched(&self) -> std::path::PathBuf {
        self.temp.path().join("fetched")
    }

    fn order(&self) -> oneshot::Receiver<Result<(), String>> {
        let (tell, told) = oneshot::channel();
        self.fetcher.fetch(Order {
            group: GROUP,
            from: SOURCE,
            manifest: self.manifest.clone(),
            into: self.fetched(),
            done: Box::new(|result| tell.send(result).unwrap()),
            wanted: Arc::downgrade(&self.wanted),
        });
        told
    }

    async fn ask(&self) -> Result<Parts, String> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(|answer| tell.send(answer).unwrap());
        self.fetcher.ask(Question { group: GROUP, of: SOURCE, done });
        within("an answer", told).await.unwrap()
    }

    async fn fetch(&self) -> Result<(), String> {
        within("fetching ends", self.order()).await.unwrap()
    }

    fn check(&self) {
        assert_eq!(Manifest::of(&self.fetched(), OFFER).unwrap(), self.manifest);
        for file in self.manifest.files() {
            let there = fs::read(self.fetched().join(&file.name)).unwrap();
            assert!(there == fs::read(self.offered(&file.name)).unwrap(), "{}", file.name);
        }
    }
}

#[tokio::test]
async fn a_state_of_several_files_arrives_whole() {
    let files = [
        ("db/CURRENT", 16),
        ("db/000007.sst", 5 * CHUNK + 1),
        ("segments/4/vectors-0/exact", CHUNK),
        ("segments/4/ids", 0),
        ("one", 1),
    ];
    let pair = Pair::start(&files, brisk()).await;
    assert_eq!(pair.fetch().await, Ok(()));
    pair.check();
}

#[tokio::test]
async fn a_stream_that_is_cut_is_taken_up_where_it_ended() {
    const SIZE: usize = 12 * CHUNK;
    const CUTS: u64 = 4;
    let pair = Pair::start(&[("a", 1), ("large", SIZE)], brisk()).await;
    let scissors = Scissors::before(pair.source.listener.address().to_string(), CUTS, 2 * CHUNK as u64).await;
    pair.book.set(SOURCE, scissors.uri.clone());
    assert_eq!(pair.fetch().await, Ok(()));
    pair.check();
    let carried = scissors.carried.load(Ordering::Relaxed) as usize;
    println!("{carried} bytes were carried for {SIZE}");
    assert_eq!(scissors.connections.load(Ordering::Relaxed), CUTS + 1);
    // What was on its way when the line was cut goes once more, at most two messages of it and what surrounds them.
    assert!(carried < SIZE + CUTS as usize * (2 * CHUNK + (64 << 10)), "it did not begin anew");
}

#[tokio::test]
async fn a_source_that_comes_back_is_asked_for_the_rest() {
    let mut pair = Pair::start(&[("large", 40 * CHUNK)], brisk()).await;
    let address = pair.source.listener.address().to_string();
    let fetched = pair.order();
    let there = pair.fetched().join("large");
    until("some of it is there", || fs::metadata(&there).is_ok_and(|file| file.len() > 0)).await;
    let shelf = pair.source.shelf.clone();
    let again = {
        pair.source.listener.stop().await;
        Receiver::start_at(identity(SOURCE.0), &address).await
    };
    let folder = shelf.take_away(GROUP, OFFER).unwrap();
    again.shelf.put(GROUP, folder, pair.manifest.clone());
    pair.source = again;
    assert_eq!(within("fetching ends", fetched).await.unwrap(), Ok(()));
    pair.check();
}

#[tokio::test]
async fn what_is_not_what_the_manifest_says_is_noticed() {
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[CHUNK + 77] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let pair = Pair::start(&[("a", 3 * CHUNK)], brisk()).await;
    flip(&pair.offered("a"));
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("BLAKE3"), "{why}");

    let pair = Pair::start(&[("a", 3 * CHUNK)], hasty()).await;
    fs::write(pair.offered("a"), "short").unwrap();
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("no progress") && why.contains("cannot read the file"), "{why}");
}

#[tokio::test]
async fn an_offer_that_is_gone_ends_with_that_reason() {
    let pair = Pair::start(&[("a", 10), ("b", 10)], brisk()).await;
    pair.source.shelf.take_away(GROUP, OFFER).unwrap();
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("does not offer"), "{why}");
    assert_eq!(pair.source.stats().refused, 0);

    // The file is still on the shelf, but no more in the folder: whoever removes an offer does it in that order.
    let pair = Pair::start(&[("a", 10), ("b", 10)], brisk()).await;
    fs::remove_file(pair.offered("b")).unwrap();
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("does not offer"), "{why}");
}

#[tokio::test]
async fn nobody_of_another_cluster_gets_anything() {
    let stranger = PeerIdentity { cluster: ClusterId(0xbad), ..identity(1) };
    let pair = Pair::start_as(stranger, &[("a", 10)], hasty()).await;
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("no progress") && why.contains("belongs to cluster"), "{why}");
    assert!(pair.source.stats().refused > 0);
    assert_eq!(fs::read(pair.fetched().join("a")).unwrap(), b"");
}

#[tokio::test]
async fn a_source_that_cannot_be_reached_or_says_nothing_is_given_up() {
    let pair = Pair::start(&[("a", 10)], hasty()).await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pair.book.set(SOURCE, uri(mute.local_addr().unwrap()));
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("no progress"), "{why}");

    let pair = Pair::start(&[("a", 10)], hasty()).await;
    pair.book.remove(SOURCE);
    let why = pair.fetch().await.unwrap_err();
    assert!(why.contains("no progress") && why.contains("address is not known"), "{why}");
}

#[tokio::test]
async fn fetching_ends_when_nobody_waits_any_more_or_the_node_stops() {
    let mut pair = Pair::start(&[("a", 10)], brisk()).await;
    pair.wanted = Arc::default();
    let order = {
        pair.book.remove(SOURCE);
        pair.order()
    };
    pair.wanted = Arc::default();
    let why = within("it ends", order).await.unwrap().unwrap_err();
    assert!(why.contains("nobody waits"), "{why}");

    let pair = Pair::start(&[("a", 10)], brisk()).await;
    pair.book.remove(SOURCE);
    let order = pair.order();
    drop(pair.fetcher);
    let why = within("it ends", order).await.unwrap().unwrap_err();
    assert!(why.contains("shutting down"), "{why}");
}

struct Keeper(Parts);

impl PartKeeper for Keeper {
    fn parts(&self) -> Parts {
        self.0.clone()
    }
}

#[tokio::test]
async fn a_member_says_which_parts_it_has_for_as_long_as_it_is_there() {
    let pair = Pair::start(&[("ids", 10), ("vectors-0/exact", 300)], brisk()).await;
    let why = pair.ask().await.unwrap_err();
    assert!(why.contains("has no member"), "{why}");
    let part = Part { manifest: pair.manifest.clone(), rows: 3, last: 9 };
    let keeper = Arc::new(Keeper(Parts { leads: true, working: false, parts: vec![part.clone(), part] }));
    let weak: Weak<Keeper> = Arc::downgrade(&keeper);
    pair.source.shelf.introduce(GROUP, weak);
    assert_eq!(pair.ask().await, Ok(keeper.0.clone()));
    drop(keeper);
    pair.ask().await.unwrap_err();
    assert_eq!(pair.source.stats().refused, 0);
}

#[tokio::test]
async fn a_part_is_fetched_like_a_state_and_is_no_offer_of_one() {
    let pair = Pair::start(&[("ids", 10)], brisk()).await;
    let folder = pair.source.shelf.take_away(GROUP, OFFER).unwrap();
    pair.source.shelf.put_part(GROUP, folder, pair.manifest.clone());
    assert_eq!(pair.source.shelf.offers(), []);
    assert_eq!(pair.fetch().await, Ok(()));
    pair.check();
}

#[tokio::test]
async fn strangers_are_told_of_no_parts_and_silence_ends() {
    let stranger = PeerIdentity { cluster: ClusterId(0xbad), ..identity(1) };
    let pair = Pair::start_as(stranger, &[("a", 10)], hasty()).await;
    let why = pair.ask().await.unwrap_err();
    assert!(why.contains("belongs to cluster"), "{why}");
    assert!(pair.source.stats().refused > 0);

    let pair = Pair::start(&[("a", 10)], hasty()).await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pair.book.set(SOURCE, uri(mute.local_addr().unwrap()));
    pair.ask().await.unwrap_err();
    pair.book.remove(SOURCE);
    let why = pair.ask().await.unwrap_err();
    assert!(why.contains("address is not known"), "{why}");
}

/// Carries bytes between two sockets, and cuts the first connections after so many bytes towards the caller.
struct Scissors {
    uri: Uri,
    connections: Arc<AtomicU64>,
    carried: Arc<AtomicU64>,
}

impl Scissors {
    async fn before(target: String, cuts: u64, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = uri(listener.local_addr().unwrap());
        let (connections, carried) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (count, sum, env) = (connections.clone(), carried.clone(), Env::real());
        env.clone().spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let limit = if count.fetch_add(1, Ordering::Relaxed) < cuts { after } else { u64::MAX };
                env.spawn(carry(near, TcpStream::connect(&target).await.unwrap(), limit, sum.clone()));
            }
        });
        Self { uri, connections, carried }
    }
}

async fn carry(near: TcpStream, far: TcpStream, limit: u64, carried: Arc<AtomicU64>) {
    let (mut near_in, mut near_out) = near.into_split();
    let (far_in, mut far_out) = far.into_split();
    let back = async {
        let mut far_in = far_in.take(limit);
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = far_in.read(&mut buffer).await {
            carried.fetch_add(read as u64, Ordering::Relaxed);
            if near_out.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut near_in, &mut far_out) => {}
    }
}
