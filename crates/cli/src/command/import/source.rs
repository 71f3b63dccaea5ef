//! Rows of files on their way to become points.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::vec;

use sagitta_env::Env;
use sagitta_model::limits::MAX_PAYLOAD_DEPTH;
use sagitta_model::{Object, Point, PointId, Schema, Value, Violation};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::data::{DistinctIds, Row, RowReader};
use crate::failure::{Exit, Failure};

/// Rows read and checked at a time.
const BATCH_ROWS: usize = 256;

/// Batches that may be read ahead of what is sent: enough that neither side waits, little memory.
const READ_AHEAD_BATCHES: usize = 16;

/// How rows become points.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) schema: Schema,
    /// Added to a row's number where that is its id.
    pub(super) id_offset: u64,
    /// The row after the last one to import.
    pub(super) end: u64,
}

/// Turns rows into points, each checked as its collection would.
pub(super) struct Checker {
    shape: Shape,
    distinct: DistinctIds,
}

/// Turns a reader's rows into checked points.
pub(super) struct PointReader {
    rows: Box<dyn RowReader>,
    checker: Checker,
}

impl PointReader {
    pub(super) fn new(rows: Box<dyn RowReader>, shape: Shape) -> Self {
        Self { rows, checker: Checker::new(shape) }
    }

    /// The next points; none at the end. Refuses a row that the collection would not take, and an id that occurs twice.
    pub(super) fn read(&mut self) -> Result<Vec<Point>, Failure> {
        let first = self.rows.position();
        let count = self.checker.shape.end.saturating_sub(first).min(BATCH_ROWS as u64) as usize;
        if count == 0 {
            return Ok(Vec::new());
        }
        let rows = self.rows.read(count)?;
        let points = rows.into_iter().zip(first..).map(|(row, at)| self.checker.point(row, at, self.rows.path()));
        points.collect()
    }

    /// How much of the file has been read, from 0 to 1.
    pub(super) fn fraction(&self) -> f64 {
        self.rows.fraction()
    }

    /// The row that is read next.
    pub(super) fn position(&self) -> u64 {
        self.rows.position()
    }

    /// Whether every id was compared with every other.
    pub(super) fn all_compared(&self) -> bool {
        self.checker.distinct.complete()
    }
}

impl Checker {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, distinct: DistinctIds::default() }
    }

    /// The point of the row `at` of a file.
    pub(super) fn point(&mut self, row: Row, at: u64, path: &Path) -> Result<Point, Failure> {
        let explicit = row.id.is_some();
        let id = row.id.or_else(|| at.checked_add(self.shape.id_offset).map(PointId::Num));
        let id = id.ok_or_else(|| Failure::usage("--id-offset: ids of the last rows would pass 64 bits"))?;
        let mut point = Point { id, vectors: row.vectors, payload: row.payload };
        let checked = point.name_vector(&self.shape.schema).and_then(|()| point.validate(&self.shape.schema));
        let checked = checked.and_then(|()| not_too_deep(&point.payload));
        checked.map_err(|violation| {
            let message = format!("{}, row {at}, {violation}", path.display());
            Failure::new(Exit::Data, message)
                .hint("mend the row or leave it out; fields are declared by --field when a collection is created")
        })?;
        if explicit && !self.distinct.insert(id) {
            let message = format!("{}, row {at}, id: expected each id once, found {id} again", path.display());
            let hint = "remove one of the rows, or number the rows instead with --row-ids";
            return Err(Failure::new(Exit::Data, message).hint(hint));
        }
        Ok(point)
    }
}

/// A payload that nests too deeply makes the whole message unreadable, and the server could not say which row it was.
fn not_too_deep(payload: &Object) -> Result<(), Violation> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    // The payload is the first level.
    match payload.iter().find(|(_, value)| 1 + depth(value) > MAX_PAYLOAD_DEPTH) {
        None => Ok(()),
        Some((name, _)) => {
            let reason = format!("nests deeper than {MAX_PAYLOAD_DEPTH} levels of objects and lists");
            Err(Violation::new(format!("payload.{name}"), reason))
        }
    }
}

/// Points read ahead by a thread of their own.
pub(super) struct PointStream {
    batches: mpsc::Receiver<Vec<Point>>,
    batch: vec::IntoIter<Point>,
    shared: Arc<Shared>,
}

/// What the reading thread tells beside the points.
#[derive(Default)]
pub(super) struct Shared {
    failure: Mutex<Option<Failure>>,
    /// The fraction of the file that has been read, as the bits of a float.
    fraction: AtomicU64,
}

impl Shared {
    /// Why reading ended before the end, if it did.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How much of the file has been read, from 0 to 1.
    pub(super) fn fraction(&self) -> f64 {
        f64::from_bits(self.fraction.load(Ordering::Relaxed))
    }
}

impl PointStream {
    /// Starts reading. After a failure the stream ends, and [`Shared`] knows why.
    pub(super) fn start(env: &Env, mut points: PointReader) -> Result<Self, Failure> {
        let (sender, batches) = mpsc::channel(READ_AHEAD_BATCHES);
        let shared = Arc::new(Shared::default());
        let told = shared.clone();
        let read = move || loop {
            match points.read() {
                Ok(batch) if batch.is_empty() => return,
                Ok(batch) => {
                    told.fraction.store(points.fraction().to_bits(), Ordering::Relaxed);
                    // Nobody wants more points when the import has ended.
                    if sender.blocking_send(batch).is_err() {
                        return;
                    }
                }
                Err(failure) => {
                    *told.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                    return;
                }
            }
        };
        let started = env.thread("import-reader", read);
        started.map_err(|error| Failure::new(Exit::Failed, format!("cannot start a thread: {error}")))?;
        Ok(Self { batches, batch: Vec::new().into_iter(), shared })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Stream for PointStream {
    type Item = Point;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Point>> {
        loop {
            if let Some(point) = self.batch.next() {
                return Poll::Ready(Some(point));
            }
            match ready!(self.batches.poll_recv(context)) {
                Some(batch) => self.batch = batch.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}
