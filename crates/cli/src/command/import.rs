//! `sagitta import`.

mod infer;
mod resume;
mod source;
mod target;
mod watermark;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use sagitta_client::{ClientError, Upload, UploadAck, UploadOptions, UploadRun};
use sagitta_model::{CollectionInfo, CollectionName, PointId};
use serde_json::json;

use self::resume::{FileIdentity, Identity, Memory};
use self::source::{PointReader, PointStream, Shape};
use self::target::Creation;
use self::watermark::Watermark;
use super::collection::ShapeArgs;
use crate::args;
use crate::data::{self, Content, Format, IdFile, Joined, ReadOptions, RowReader};
use crate::failure::{Exit, Failure};
use crate::humane;
use crate::progress::Progress;
use crate::session::Session;

/// Load points from a file. Existing points with the same ids are replaced.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Import {
    /// The collection
    collection: CollectionName,

    /// The file: npy, fvecs, bvecs, ivecs, fbin, u8bin, i8bin, ibin, hdf5, jsonl(.gz) or parquet
    file: PathBuf,

    /// Create the collection if it does not exist: dimension and field types come from the file
    #[arg(long, help_heading = "Creating the collection")]
    create: bool,

    /// With --create: declare the fields of --field only, none by what the first rows hold
    #[arg(long, requires = "create", help_heading = "Creating the collection")]
    no_infer: bool,

    #[command(flatten, next_help_heading = "Creating the collection")]
    shape: ShapeArgs,

    #[command(flatten, next_help_heading = "Reading the file")]
    reading: Reading,

    /// Begin at the first row even if an earlier import was interrupted
    #[arg(long, help_heading = "Running the import")]
    restart: bool,

    /// Read and check the whole file and send nothing
    #[arg(long, help_heading = "Running the import")]
    dry_run: bool,
}

/// How files are read.
#[derive(Args, Clone, Debug)]
struct Reading {
    /// Payloads of the rows from a second file, .jsonl, .jsonl.gz or .parquet, row by row
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,

    /// Ids of the rows from a file: an npy of integers, or .txt with one number or UUID per line
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,

    /// Key or column that holds the ids [default: id, if there is one]
    #[arg(long, value_name = "COLUMN", conflicts_with = "row_ids")]
    id_column: Option<String>,

    /// Number the rows from 0 instead; a key or column `id` becomes payload
    #[arg(long, conflicts_with = "ids")]
    row_ids: bool,

    /// Add this to the numbers of rows that serve as ids
    #[arg(long, value_name = "N", default_value = "0", value_parser = args::whole)]
    id_offset: u64,

    /// Key or column that holds a vector, as COLUMN or NAME=COLUMN; repeat it for several
    #[arg(long, value_name = "[NAME=]COLUMN")]
    vector_column: Vec<String>,

    /// Name of the vector in the collection, where the file does not say and the collection has several
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    vector_name: String,

    /// Key or column to pass over; repeat it for several
    #[arg(long, value_name = "COLUMN")]
    ignore_column: Vec<String>,

    /// Dataset of an HDF5 file [default: train]
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,

    /// Format of the file, if its name and first bytes do not say
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,

    /// Read only the first N rows [default: all]
    #[arg(long, value_name = "N", value_parser = args::whole)]
    limit: Option<u64>,
}

const AFTER_HELP: &str = "\
Examples:
  sagitta import docs base.npy --payload payload.jsonl.gz --create
  sagitta import photos sift_base.bvecs --create --metric l2
  sagitta import docs docs.jsonl.gz --id-column _id --vector-column embedding
  sagitta import books books.parquet \\
    --vector-column title=title_emb --vector-column cover=cover_emb
  sagitta import glove glove-100-angular.hdf5 --create
  sagitta import docs docs.parquet --dry-run

A line of JSON is {\"id\": 7, \"vector\": [0.1, 0.2], \"source\": \"x\", \"words\": 50}: every key but id and vector is \
payload, and so are the fields of a key payload. Several vectors are given as \"vectors\": {\"title\": [...], \"body\": [...]}. Rows without ids are numbered from 0.

An import that is interrupted goes on where it stopped when the same command is run again; nothing is imported \
twice. A file that is damaged or does not suit the collection is refused, naming the row and the column. What comes \
before a bad row is imported, and the error says how much that is; --dry-run checks a file without sending anything.

With --create the first 1,000 rows are checked before the collection is created. Rows count from 0. A file without rows \
imports none.";

fn format(text: &str) -> Result<Format, String> {
    let known = Format::ALL.map(Format::name).join(", ");
    Format::by_ending(text).ok_or_else(|| format!("expected one of {known}"))
}

/// How often progress is written down, beginning with the first acknowledgement: what was done since would be done again,
/// to no effect, after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);

impl Import {
    /// Reads, sends and reports.
    pub async fn run(&self, session: &Session) -> Result<(), Failure> {
        let mut rows = self.reading.open(&self.file)?;
        if self.dry_run {
            return self.check(session, rows).await;
        }
        let creation = self.creation(rows.as_ref());
        let creation = self.create.then_some(&creation);
        let info = target::find_or_create(session, &self.collection, rows.as_mut(), creation).await?;
        target::as_asked(&info, &self.shape)?;
        let mut memory = self.recall(session, &info)?;
        let first = memory.as_ref().map_or(0, Memory::next_row);
        if first > 0 {
            eprintln!(
                "going on at row {}, where an earlier import stopped (--restart begins anew)",
                humane::grouped(first)
            );
        }
        rows.seek(first)?;
        let run = memory.as_ref().map_or_else(|| session.env.uuid(), Memory::run);
        let begun = self.begun(first, run, rows.as_ref());
        let shape = self.shape_for(&info, begun.rows);
        let sent = self.send(session, PointReader::new(rows, shape), &begun, memory.as_mut()).await?;
        if let Some(memory) = memory {
            forget(&memory);
        }
        self.report(session, &begun, &sent)
    }

    fn begun(&self, first: u64, run: u128, rows: &dyn RowReader) -> Begun {
        let empty = rows.summary().rows == Some(0);
        Begun { first, run, fraction: rows.fraction(), rows: self.reading.end(rows), empty }
    }

    fn creation(&self, rows: &dyn RowReader) -> Creation<'_> {
        let end = self.reading.end(rows).unwrap_or(u64::MAX);
        Creation { shape: &self.shape, infer: !self.no_infer, id_offset: self.reading.id_offset, end }
    }

    fn shape_for(&self, info: &CollectionInfo, end: Option<u64>) -> Shape {
        let end = end.unwrap_or(u64::MAX);
        Shape { schema: info.schema.clone(), id_offset: self.reading.id_offset, end }
    }

    /// What is known of an earlier run of the same import; none where nothing can be remembered.
    fn recall(&self, session: &Session, info: &CollectionInfo) -> Result<Option<Memory>, Failure> {
        let Some(folder) = resume::folder() else { return Ok(None) };
        let paths = [Some(&self.file), self.reading.payload.as_ref(), self.reading.ids.as_ref()];
        let mut files = Vec::new();
        for path in paths.into_iter().flatten() {
            let identity = FileIdentity::of(path);
            let unreadable =
                |error| Failure::new(Exit::Data, format!("{}: cannot read the file: {error}", path.display()));
            files.push(identity.map_err(unreadable)?);
        }
        let identity =
            Identity { collection: PointId::Uuid(info.id).to_string(), files, options: format!("{:?}", self.reading) };
        let (mut memory, changed) = Memory::recall(&folder, identity, session.env.uuid());
        if self.restart {
            memory.restart(session.env.uuid());
        } else if changed {
            eprintln!("the file changed since an import of it was interrupted: beginning at row 0");
        }
        Ok(Some(memory))
    }

    async fn send(
        &self,
        session: &Session,
        points: PointReader,
        begun: &Begun,
        memory: Option<&mut Memory>,
    ) -> Result<Sent, Failure> {
        let stream = PointStream::start(&session.env, points)?;
        let shared = stream.shared();
        let run = Some(UploadRun { id: begun.run, first: begun.first });
        let options = UploadOptions { run, ..UploadOptions::default() };
        let upload = session.client.upload(self.collection.clone(), stream, options);
        let mut sending = Sending {
            file: &self.file,
            session,
            watermark: Watermark::new(begun.first),
            progress: Progress::begin(&session.env, begun.first, begun.fraction),
            memory,
            saved_at: None,
            begun,
        };
        let ended = sending.acknowledge(upload, || shared.fraction()).await;
        sending.progress.finish();
        // A file's failure comes first: the upload only ended because of it.
        let ended = shared.take_failure().map_or(ended, Err);
        let rows = sending.watermark.acknowledged();
        let sent = Sent { rows, took: sending.progress.elapsed() };
        match ended {
            Ok(()) => Ok(sent),
            Err(failure) => Err(sending.give_up(failure)),
        }
    }

    fn report(&self, session: &Session, begun: &Begun, sent: &Sent) -> Result<(), Failure> {
        let rate = sent.rows as f64 / sent.took.as_secs_f64().max(1e-9);
        let document = json!({
            "collection": self.collection.to_string(),
            "file": self.file.display().to_string(),
            "first_row": begun.first,
            "rows": sent.rows,
            "seconds": sent.took.as_secs_f64(),
            "rows_per_second": rate,
        });
        session.output.write(&document, |out, _| {
            let rows = humane::count(sent.rows, "row");
            if begun.empty {
                return writeln!(out, "{rows} into {}: there are none in {}", self.collection, self.file.display());
            }
            let (took, rate) = (humane::duration(sent.took), humane::number(rate));
            writeln!(out, "{rows} into {} in {took} ({rate} rows/s)", self.collection)
        })
    }

    /// Reads everything and sends nothing.
    async fn check(&self, session: &Session, mut rows: Box<dyn RowReader>) -> Result<(), Failure> {
        let creation = self.creation(rows.as_ref());
        let schema = if self.create {
            target::design(rows.as_mut(), &creation)?.0
        } else {
            target::find_or_create(session, &self.collection, rows.as_mut(), None).await?.schema
        };
        let begun = self.begun(0, 0, rows.as_ref());
        let end = begun.rows.unwrap_or(u64::MAX);
        let mut points = PointReader::new(rows, Shape { schema, id_offset: self.reading.id_offset, end });
        let mut progress = Progress::begin(&session.env, 0, 0.0);
        while !points.read()?.is_empty() {
            progress.advance(points.position(), begun.fraction(points.position(), points.fraction()));
        }
        progress.finish();
        let document = json!({ "file": self.file.display().to_string(), "rows": progress.rows(), "sound": true });
        session.output.write(&document, |out, _| {
            let rows = humane::count(progress.rows(), "row");
            writeln!(out, "{}: {rows} are sound ({} rows/s)", self.file.display(), humane::number(progress.rate()))?;
            if !points.all_compared() {
                writeln!(out, "there are too many ids to have compared each with every other")?;
            }
            Ok(())
        })
    }
}

/// Where an import begins.
struct Begun {
    first: u64,
    run: u128,
    /// Of the file that lies before the first row.
    fraction: f64,
    /// The row after the last, if it is known.
    rows: Option<u64>,
    /// Whether the file has no rows at all.
    empty: bool,
}

impl Begun {
    /// How much is done when all rows before `row` are and `read` of the file has been read.
    fn fraction(&self, row: u64, read: f64) -> f64 {
        self.rows.map_or(read, |rows| row as f64 / rows.max(1) as f64)
    }
}

/// What an import came to.
struct Sent {
    rows: u64,
    took: Duration,
}

/// An upload whose acknowledgements are watched.
struct Sending<'a> {
    file: &'a Path,
    session: &'a Session,
    watermark: Watermark,
    progress: Progress,
    memory: Option<&'a mut Memory>,
    saved_at: Option<Duration>,
    begun: &'a Begun,
}

impl Sending<'_> {
    /// Follows an upload to its end, to its first failure or to Ctrl-C.
    async fn acknowledge(&mut self, mut upload: Upload<PointStream>, read: impl Fn() -> f64) -> Result<(), Failure> {
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let ack = tokio::select! {
                ack = upload.next() => ack,
                _ = &mut interrupt => return Err(Failure::new(Exit::Interrupted, "interrupted")),
            };
            match ack {
                None => return Ok(()),
                Some(ack) => self.note(ack.map_err(|error| self.session.failed(error))?)?,
            }
            let row = self.watermark.next();
            self.progress.advance(row, self.begun.fraction(row, read()));
            let now = self.session.env.now();
            if row > self.begun.first && self.saved_at.is_none_or(|saved| now.saturating_sub(saved) >= SAVE_EVERY) {
                self.save();
            }
        }
    }

    fn note(&mut self, ack: UploadAck) -> Result<(), Failure> {
        let first = self.begun.first + ack.first;
        let result = ack.outcome.map_err(|error| self.refused(first, error))?;
        if let Some(failure) = result.failures.first() {
            let row = first + failure.index as u64;
            let (path, problem) = (self.file.display(), &failure.problem.message);
            let message = format!("{path}, row {row} (id {}): {problem}", failure.id);
            return Err(Failure::new(Exit::from(failure.problem.kind), message));
        }
        self.watermark.note(first, ack.points as u64);
        Ok(())
    }

    /// A chunk that was refused, with the row of the file that is to blame.
    fn refused(&self, first: u64, error: ClientError) -> Failure {
        match error.violations.first().and_then(|violation| Some((point_of(&violation.field)?, violation))) {
            Some(((at, field), violation)) => {
                let message = format!("{}, row {}, {field}: {}", self.file.display(), first + at, violation.reason);
                Failure::new(Exit::Data, message).hint("mend the row or leave it out")
            }
            None => self.session.failed(error),
        }
    }

    fn save(&mut self) {
        self.saved_at = Some(self.session.env.now());
        let next = self.watermark.next();
        if let Some(memory) = &mut self.memory
            && let Err(error) = memory.save(next)
        {
            // Without a memory an interrupted import begins anew, which changes nothing but the time it takes.
            let path = memory.path().display();
            self.progress.note(&format!("warning: progress cannot be remembered in {path}: {error}"));
            self.memory = None;
        }
    }

    /// Remembers how far the import got, and says it.
    fn give_up(&mut self, mut failure: Failure) -> Failure {
        let next = self.watermark.next();
        if next > 0 {
            self.save();
        }
        let done = match next {
            0 => "nothing was imported".to_owned(),
            rows => format!("the first {} are imported", humane::count(rows, "row")),
        };
        failure.message = format!("{} ({done})", failure.message);
        if next > 0 && self.memory.is_some() {
            let again = "the same command goes on from there";
            failure.hint = Some(failure.hint.map_or(again.to_owned(), |hint| format!("{hint}; {again}")));
        }
        failure
    }
}

/// The position and the rest of a path such as `chunk.points[3].vectors["title"]`.
fn point_of(field: &str) -> Option<(u64, &str)> {
    let field = field.strip_prefix("chunk.").unwrap_or(field);
    let (at, rest) = field.strip_prefix("points[")?.split_once(']')?;
    Some((at.parse().ok()?, rest.trim_start_matches('.')))
}

fn forget(memory: &Memory) {
    if let Err(error) = memory.forget() {
        let path = memory.path().display();
        eprintln!("warning: cannot remove {path}: {error}; import this file with --restart next time");
    }
}

impl Reading {
    /// The row after the last one to read, if it is known.
    fn end(&self, rows: &dyn RowReader) -> Option<u64> {
        match (rows.summary().rows, self.limit) {
            (Some(rows), Some(limit)) => Some(rows.min(limit)),
            (rows, limit) => rows.or(limit),
        }
    }

    /// Opens the file, and those beside it.
    fn open(&self, path: &Path) -> Result<Box<dyn RowReader>, Failure> {
        let options = self.options()?;
        let rows = data::open(path, &options)?;
        self.applies(path, rows.summary().format)?;
        if self.payload.is_none() && self.ids.is_none() {
            return Ok(rows);
        }
        let payload_options =
            ReadOptions { content: Content::Payloads, format: None, vector_columns: Vec::new(), ..options };
        let payload = self.payload.as_ref().map(|path| data::open(path, &payload_options)).transpose()?;
        let ids = self.ids.as_ref().map(|path| IdFile::open(path)).transpose()?;
        Ok(Box::new(Joined::new(rows, payload, ids)?))
    }

    /// Refuses what a file of this format has nothing to do with: points under other ids than were meant would replace
    /// others.
    fn applies(&self, path: &Path, format: Format) -> Result<(), Failure> {
        let columns = matches!(format, Format::Jsonl | Format::Parquet) || self.payload.is_some();
        let refuse = |argument: &str, lacks: &str, hint: &str| {
            let message = format!("{argument}: {} is {}, which has no {lacks}", path.display(), format.name());
            Err(Failure::usage(message).hint(hint))
        };
        match self {
            _ if self.dataset.is_some() && format != Format::Hdf5 => refuse("--dataset", "datasets", "leave it out"),
            _ if self.id_column.is_some() && !columns => refuse(
                "--id-column",
                "columns",
                "give the ids in a file of their own with --ids, or let rows be numbered",
            ),
            _ if !self.ignore_column.is_empty() && !columns => refuse("--ignore-column", "columns", "leave it out"),
            _ => Ok(()),
        }
    }

    fn options(&self) -> Result<ReadOptions, Failure> {
        let mut vector_columns = Vec::new();
        for text in &self.vector_column {
            let column = args::pair(text).unwrap_or_else(|_| (self.vector_name.clone(), text.clone()));
            if vector_columns.iter().any(|(name, _)| *name == column.0) {
                let failure = Failure::usage(format!("--vector-column: two columns for the vector `{}`", column.0));
                return Err(failure.hint("give each vector its name: --vector-column NAME=COLUMN"));
            }
            vector_columns.push(column);
        }
        let id_column =
            if self.row_ids { None } else { Some(self.id_column.clone().unwrap_or_else(|| "id".to_owned())) };
        Ok(ReadOptions {
            format: self.format,
            vector_columns,
            vector_name: self.vector_name.clone(),
            id_column,
            id_required: self.id_column.is_some(),
            ignored_columns: self.ignore_column.clone(),
            dataset: self.dataset.clone().unwrap_or_else(|| "train".to_owned()),
            content: Content::Points,
        })
    }
}

#[cfg(test)]
mod tests;
