//! Looking at a replica that nobody has open, without a change to any of its files.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_engine::index::{IndexKind, Never};
use sagitta_engine::kv::{KvOptions, KvRead, ScanRange};
use sagitta_env::Env;
use sagitta_model::{HashRange, PointId, Schema};

use crate::damage::DamageLog;
use crate::folder::{Folder, list};
use crate::layout::{FAMILIES, HEAD_KEY, INSTALLED_KEY, MANIFEST_KEY, MEMBERS_KEY, POINTS, VECTORS};
use crate::open::{load, read_identity, read_live, read_meta};
use crate::records::{Head, Identity, Installed, Manifest, ManifestEntry, Members, Span};
use crate::segment::{SegmentContext, SegmentManifest};
use crate::view::scan_points;
use crate::{Engines, Home, Segment, SegmentId, ShardError};

/// What is in a replica's folder, as far as it can be read.
#[derive(Clone, Debug, Default)]
pub struct Inspected {
    /// UUID of the collection.
    pub collection: Option<u128>,
    /// Number of the shard.
    pub shard: Option<u64>,
    /// What the collection holds.
    pub schema: Option<Schema>,
    /// Log index up to which everything is in the database, and the term of the entry there.
    pub applied: Option<(u64, u64)>,
    /// Points that exist.
    pub points: Option<u64>,
    /// Of these, the ones that are in no segment yet.
    pub unsealed: u64,
    /// Who belongs to the group, as the entry that changed it said, if one did.
    pub members: Option<Vec<u8>>,
    /// Where the replica stood when it was fetched whole, if it was.
    pub installed: Option<(u64, u64)>,
    /// The segments, by number.
    pub segments: Vec<InspectedSegment>,
    /// Segments that were set aside because they were damaged.
    pub quarantined: Vec<SegmentId>,
    /// All files of the folder.
    pub bytes: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// A segment of a replica that nobody has open.
#[derive(Clone, Debug)]
pub struct InspectedSegment {
    /// Its number.
    pub id: SegmentId,
    /// Rows, dead ones included.
    pub rows: u64,
    /// Of these, the dead ones; `None` if that cannot be read.
    pub dead_rows: Option<u64>,
    /// All files of it.
    pub bytes: u64,
    /// How it finds neighbours, by the position of the vector's name in the schema; `None` where it is damaged.
    pub indexes: Vec<Option<IndexKind>>,
    /// Whether a part of it is damaged.
    pub damaged: bool,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What comes of it.
    pub severity: Severity,
    /// What was found, with the file.
    pub what: String,
}

/// What comes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing: what a crash has left, which goes at the next start.
    Leftover,
    /// A derived file is damaged: it is served around and rebuilt at the next start.
    Derived,
    /// The truth is damaged or cannot be read: the replica does not open.
    Truth,
}

/// Looks at the replica in `dir`, a [`Home`]. Nobody may have it open, which is up to the caller. With `all`, every byte is read
/// and verified, which takes as long as the disk needs for it; else only what is read when a replica is opened.
pub fn inspect(dir: &Path, engines: &Engines, env: &Env, options: &KvOptions, all: bool) -> Inspected {
    let mut found = Inspected { bytes: bytes_below(dir), ..Inspected::default() };
    let home = Home::at(dir);
    if let Some(current) = found.read(home.current()) {
        let others = home.other_states(&current).unwrap_or_default();
        others.iter().for_each(|path| found.left_over(path));
        let mut look = Look { folder: Folder::at(&current), engines, env, all, found };
        look.at_database(options);
        found = look.found;
    }
    found.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

struct Look<'a> {
    folder: Folder,
    engines: &'a Engines,
    env: &'a Env,
    all: bool,
    found: Inspected,
}

impl Look<'_> {
    fn at_database(&mut self, options: &KvOptions) {
        let kv = self.engines.kv.open_read_only(&self.folder.database(), &FAMILIES, options);
        let Some(kv) = self.found.read(kv.map_err(ShardError::from)) else { return };
        let kv = &*kv;
        let identity = self.found.read(read_identity(&self.folder, kv)).flatten();
        let Some(Identity { collection, shard, schema, span }) = identity else { return };
        (self.found.collection, self.found.shard) = (Some(collection), Some(shard));
        self.found.schema = Some(schema.clone());
        if let Some(head) = self.found.read(read_meta::<Head>(kv, HEAD_KEY)) {
            let head = head.unwrap_or_default();
            self.found.applied = Some((head.applied_index, head.applied_term));
            self.found.points = Some(head.points);
        }
        self.found.members = self.found.read(read_meta(kv, MEMBERS_KEY)).flatten().map(|Members(bytes)| bytes);
        let installed = self.found.read(read_meta(kv, INSTALLED_KEY)).flatten();
        self.found.installed = installed.map(|Installed { index, term }| (index, term));
        let Some(manifest) = self.found.read(read_meta::<Manifest>(kv, MANIFEST_KEY)) else { return };
        let range = span.range;
        self.at_segments(kv, &Arc::new(schema), manifest.unwrap_or_default(), span);
        if self.all {
            let read = self.every_row(kv, range);
            self.found.read(read);
        }
    }

    fn at_segments(&mut self, kv: &dyn KvRead, schema: &Arc<Schema>, manifest: Manifest, span: Span) {
        let named: Vec<_> = manifest.segments.iter().map(|entry| entry.id).collect();
        let half = Some(self.folder.half()).filter(|path| path.exists());
        for path in self.folder.all_but(&named).unwrap_or_default().into_iter().chain(half) {
            self.found.left_over(&path);
        }
        self.found.quarantined = self.folder.quarantined().unwrap_or_default();
        self.found.quarantined.sort_unstable();
        for entry in &manifest.segments {
            self.at_segment(kv, schema, entry, &span);
        }
        // Whether it all agrees. What is damaged of segments has been told.
        let damages = Arc::new(DamageLog::new(self.env.clone()));
        let context = SegmentContext { schema, engine: &*self.engines.index, kv, damages: &damages };
        if let Some(state) = self.found.read(load(&self.folder, manifest, span, &context)) {
            self.found.unsealed = state.unsealed.len() as u64;
        }
    }

    fn at_segment(&mut self, kv: &dyn KvRead, schema: &Arc<Schema>, entry: &ManifestEntry, span: &Span) {
        let damages = Arc::new(DamageLog::new(self.env.clone()));
        let context = SegmentContext { schema, engine: &*self.engines.index, kv, damages: &damages };
        let dir = self.folder.segment(entry.id);
        let bytes = bytes_below(&dir);
        let (id, rows) = (entry.id, u64::from(entry.rows));
        let mut seen = InspectedSegment { id, rows, dead_rows: None, bytes, indexes: Vec::new(), damaged: false };
        // The damage of the parts follows from it, and does not say what it is.
        let manifest = SegmentManifest::read(&crate::segment::SegmentFiles(&dir).manifest(), entry);
        if let Some(segment) = self.found.read(Segment::open(dir, *entry, &context)) {
            if let Some(live) = self.found.read(read_live(kv, &segment, span)) {
                seen.dead_rows = Some(rows - live.count() as u64);
            }
            if self.all && manifest.is_ok() {
                self.found.read(segment.verify(&Never));
            }
            let kind = |ordinal| segment.vector(ordinal).map(|vector| vector.index.shape().kind);
            seen.indexes = (0..schema.vectors.len()).map(kind).collect();
            seen.damaged = segment.is_damaged();
        }
        let reasons = match manifest {
            Ok(_) => damages.reports().into_iter().map(|report| report.reason).collect(),
            Err(reason) => vec![reason],
        };
        self.found.findings.extend(reasons.into_iter().map(|what| Finding { severity: Severity::Derived, what }));
        self.found.segments.push(seen);
    }

    /// Reads every row of the database, which verifies it, and counts those of the shard's points.
    fn every_row(&self, kv: &dyn KvRead, range: HashRange) -> Result<(), ShardError> {
        let mut points = 0_u64;
        scan_points(kv, None, &mut |id, _| {
            points += u64::from(range.holds(id));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut vectors = 0_u64;
        for family in (0..FAMILIES.len()).map(sagitta_engine::kv::Family::new).filter(|family| *family != POINTS) {
            kv.scan(family, &ScanRange::all().bulk(), &mut |key, _| {
                // A point's id, and which of its vectors.
                let id = key.split_last().and_then(|(_, id)| PointId::from_key(id));
                vectors += u64::from(family == VECTORS && id.is_none_or(|id| range.holds(id)));
                ControlFlow::Continue(())
            })?;
        }
        let inconsistent = |what: String| Err(ShardError::Inconsistent { what });
        if self.found.points.is_some_and(|counted| counted != points) {
            let counted = self.found.points.unwrap_or_default();
            return inconsistent(format!("{counted} points are counted, {points} are stored"));
        }
        let names = self.found.schema.as_ref().map_or(0, |schema| schema.vectors.len() as u64);
        if vectors != points * names {
            return inconsistent(format!("{points} points of {names} vectors each are stored, and {vectors} vectors"));
        }
        Ok(())
    }
}

impl Inspected {
    /// Whether the replica opens.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Truth)
    }

    /// What was read, or a note of why not; the same cause is noted once.
    fn read<T>(&mut self, result: Result<T, ShardError>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let severity = if matches!(error, ShardError::Damaged(_)) { Severity::Derived } else { Severity::Truth };
        let finding = Finding { severity, what: error.to_string() };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
        None
    }

    fn left_over(&mut self, path: &Path) {
        let what = format!("{} is left over and goes at the next start", path.display());
        self.findings.push(Finding { severity: Severity::Leftover, what });
    }
}

/// The bytes of all files below a folder, as far as they can be seen; links are not followed.
fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in list(&folder).unwrap_or_default() {
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => folders.push(path),
                Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
                _ => {}
            }
        }
    }
    bytes
}
