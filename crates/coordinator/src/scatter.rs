//! One search, scattered: one call per node with all of its shards, another replica for what fails, and one more for what is slow.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sagitta_cluster::Collection;
use sagitta_env::Deadline;
use sagitta_model::{ErrorKind, SearchQuery, SearchResult, Selection};

use crate::client::{NodeClient, Read, ShardError, Tokens};
use crate::router::{ROUNDS, Route, hedges, is_divided, keep_hopeful};
use crate::{Coordinator, Error};

/// What a shard answered: one result per query.
pub(crate) type Answer = Result<Vec<SearchResult>, ShardError>;
type Queries = Arc<[(SearchQuery, Selection)]>;

/// Asks every shard of a collection and waits until `patience` ends: one answer for each, in their order. `None` for one that has
/// not answered by then.
pub(crate) async fn scatter<C: NodeClient>(
    coordinator: &Coordinator<C>,
    collection: &Collection,
    queries: Queries,
    explain: bool,
    read: Read,
    patience: Deadline,
) -> Result<Vec<Option<Answer>>, Error> {
    let asked = collection.shards.iter().map(|shard| Asked::new(Route::new(shard), &read.tokens)).collect();
    let calls = FuturesUnordered::new();
    let (called, open) = Default::default();
    let mut scatter = Scatter { coordinator, collection, queries, explain, read, asked, calls, called, open };
    scatter.ask((0..collection.shards.len()).collect());
    while scatter.asked.iter().any(|asked| asked.answer.is_none()) {
        // Every shard without an answer has a call or a pause under way.
        let Ok(Some(event)) = coordinator.env.until(patience, scatter.calls.next()).await else { break };
        scatter.take(event)?;
    }
    // Dropping the calls that are left stops their work.
    Ok(scatter.asked.into_iter().map(|asked| asked.answer.or(asked.failed.map(|(_, error)| Err(error)))).collect())
}

struct Scatter<'a, C> {
    coordinator: &'a Coordinator<C>,
    collection: &'a Collection,
    queries: Queries,
    explain: bool,
    read: Read,
    asked: Vec<Asked<'a>>,
    calls: FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send + 'a>>>,
    /// How many calls there have been: the number of the last one.
    called: u64,
    /// The calls that have not been answered.
    open: BTreeSet<u64>,
}

/// How far it is with one shard.
struct Asked<'a> {
    route: Route<'a>,
    /// Replicas that were not asked in this round, the next one last.
    left: Vec<u64>,
    rounds: usize,
    /// Calls under way that may still answer.
    pending: usize,
    /// How many more replicas may be asked beside one that is late.
    hedges: usize,
    answer: Option<Answer>,
    /// What is worth most of what the replicas that failed in this round said, with who said it.
    failed: Option<(u64, ShardError)>,
}

enum Event {
    /// A node has answered for some shards, which are given by their places.
    Answered { call: u64, node: u64, places: Vec<usize>, answers: Vec<(u64, Answer)> },
    /// A node is slower than usual with a call, or another one leads by now. It says nothing of any other call.
    Late { call: u64, places: Vec<usize> },
    /// A shard whose replicas all failed may be asked again.
    Again { place: usize },
}

impl<'a> Asked<'a> {
    fn new(route: Route<'a>, tokens: &Tokens) -> Self {
        let (left, rounds, pending, answer, failed) = Default::default();
        Self { route, left, rounds, pending, hedges: hedges(tokens), answer, failed }
    }
}

impl<'a, C: NodeClient> Scatter<'a, C> {
    /// Asks the next replica of each of these shards.
    fn ask(&mut self, places: Vec<usize>) {
        let mut by_node: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for place in places {
            let asked = &mut self.asked[place];
            if asked.left.is_empty() {
                asked.left = asked.route.ranked(&self.coordinator.reports, &self.read.tokens);
                asked.left.reverse();
            }
            let Some(node) = asked.left.pop() else { continue };
            asked.pending += 1;
            by_node.entry(node).or_default().push(place);
        }
        for (node, places) in by_node {
            self.call(node, places);
        }
    }

    fn call(&mut self, node: u64, places: Vec<usize>) {
        self.called += 1;
        let (coordinator, call) = (self.coordinator, self.called);
        self.open.insert(call);
        let (queries, explain, read) = (self.queries.clone(), self.explain, self.read.clone());
        let shards: Vec<_> = places.iter().map(|place| self.asked[*place].route.reference()).collect();
        let load = coordinator.reports.load(node);
        let spare = |place: &&usize| self.asked[**place].hedges > 0 && !self.asked[**place].left.is_empty();
        let slow: Vec<usize> = places.iter().filter(spare).copied().collect();
        if matches!(self.read.tokens, Tokens::Latest) {
            for place in slow {
                let shard = self.asked[place].route.reference().shard;
                self.calls.push(Box::pin(async move {
                    coordinator.reports.superseded(shard, node).await;
                    Event::Late { call, places: vec![place] }
                }));
            }
        } else if !slow.is_empty() {
            let usual = load.usual();
            self.calls.push(Box::pin(async move {
                coordinator.alarm.after(usual).await;
                Event::Late { call, places: slow }
            }));
        }
        self.calls.push(Box::pin(async move {
            let timed = load.begin(&coordinator.env);
            let answers = coordinator.nodes.search(node, &shards, queries, explain, read).await;
            // A refusal is quick, and says nothing of how long an answer takes.
            if answers.iter().any(|(_, answer)| answer.is_ok()) {
                timed.answered();
            }
            Event::Answered { call, node, places, answers }
        }));
    }

    fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Answered { call, node, places, answers } => {
                self.open.remove(&call);
                let mut retry = Vec::new();
                let mut answers = answers.into_iter().map(|(_, answer)| answer);
                for place in places {
                    let missing = || Err(ShardError::new(ErrorKind::Internal, "the node left the shard out"));
                    if self.note(node, place, answers.next().unwrap_or_else(missing)) {
                        retry.push(place);
                    }
                }
                self.ask(retry);
            }
            Event::Late { call, places } if self.open.contains(&call) => {
                let waiting = |place: &usize| {
                    let asked = &self.asked[*place];
                    asked.answer.is_none() && asked.pending > 0 && asked.hedges > 0 && !asked.left.is_empty()
                };
                let late: Vec<usize> = places.into_iter().filter(waiting).collect();
                for place in &late {
                    self.asked[*place].hedges -= 1;
                }
                self.ask(late);
            }
            Event::Late { .. } => {}
            Event::Again { place } => {
                let asked = &mut self.asked[place];
                asked.pending -= 1;
                asked.failed = None;
                asked.route.follow(&self.coordinator.control, self.collection)?;
                self.ask(vec![place]);
            }
        }
        Ok(())
    }

    /// Notes what a replica answered for a shard; says whether another one should be asked at once.
    fn note(&mut self, node: u64, place: usize, answer: Answer) -> bool {
        let (coordinator, latest) = (self.coordinator, matches!(self.read.tokens, Tokens::Latest));
        let asked = &mut self.asked[place];
        asked.pending -= 1;
        let error = match answer {
            _ if asked.answer.is_some() => return false,
            Ok(results) => {
                asked.answer = Some(Ok(results));
                return false;
            }
            Err(error) => error,
        };
        // Of the latest, nobody else could tell.
        if error.is_of_the_request() || (latest && !asked.route.may_pass(&error)) {
            asked.answer = Some(Err(error));
            return false;
        }
        asked.route.learn(&coordinator.reports, node, &error);
        keep_hopeful(&mut asked.failed, node, error, &asked.route);
        if !asked.left.is_empty() {
            return true;
        }
        if asked.pending > 0 {
            return false;
        }
        asked.rounds += 1;
        let (node, error) = asked.failed.clone().expect("invariant: it was kept above");
        if !asked.route.may_pass(&error) || (asked.rounds > ROUNDS && !latest && !is_divided(&error)) {
            asked.answer = Some(Err(error));
            return false;
        }
        asked.pending += 1;
        let (pause, deadline) = (asked.route.pause_after(node), self.read.deadline);
        self.calls.push(Box::pin(async move {
            coordinator.wait(pause, &error, deadline).await;
            Event::Again { place }
        }));
        false
    }
}
