//! Opening a shard: whose is it, how far did it come, which files belong to it.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use sagitta_engine::bitmap::Bitmap;
use sagitta_engine::kv::{Kv, KvRead, ScanRange, WriteBatch};
use sagitta_model::{PointId, Schema};

use crate::codec::{DecodeError, Reader, Record};
use crate::damage::DamageLog;
use crate::folder::Folder;
use crate::growing::ChunkRows;
use crate::layout::{
    FAMILIES, HALF_KEY, HEAD_KEY, IDENTITY_KEY, INSTALLED_KEY, Key, MANIFEST_KEY, MEMBERS_KEY, META, PENDING,
    SEGMENT_IDS, TOMBSTONES,
};
use crate::records::{Half, Head, Identity, Installed, Manifest, Members, Merges, Request, Span, SplitPoint};
use crate::requests::RequestWindow;
use crate::segment::SegmentContext;
use crate::split::{narrow, remove_half};
use crate::state::{Location, State};
use crate::view::{BLOCK_ROWS, read_points, read_vectors};
use crate::{
    Beginning, Engines, Filling, Generation, Segment, SegmentId, SegmentView, ShardError, ShardOptions, ShardSpec,
};

pub(crate) struct Opened {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) state: State,
    pub(crate) installed: Option<Installed>,
}

/// Opens what is in the folder, or founds it.
pub(crate) fn open(
    folder: &Folder,
    spec: &ShardSpec,
    engines: &Engines,
    options: &ShardOptions,
    beginning: Option<Beginning>,
    damages: &Arc<DamageLog>,
) -> Result<Opened, ShardError> {
    let kv = engines.kv.open(&folder.database(), &FAMILIES, &options.kv)?;
    if let Some(beginning) = beginning {
        begin(folder, &*kv, spec, beginning)?;
    }
    become_half(folder, &*kv, spec)?;
    let span = check_identity(folder, &*kv, spec)?;
    remove_half(folder, &*engines.kv)?;
    let manifest: Manifest = read_meta(&*kv, MANIFEST_KEY)?.unwrap_or_default();
    let named: Vec<_> = manifest.segments.iter().map(|entry| entry.id).collect();
    // All that can be read now is on disk, so nothing can bring an unnamed segment back.
    folder.remove_all_but(&named)?;
    remove_unnamed_copies(&*kv, &named)?;

    let schema = Arc::new(spec.schema.clone());
    let context = SegmentContext { schema: &schema, engine: &*engines.index, kv: &*kv, damages };
    let mut state = load(folder, manifest, span, &context)?;
    if state.growing.rows() >= options.seal_rows || state.growing.vector_bytes() >= options.seal_bytes {
        state.freeze();
    }
    let installed = read_meta(&*kv, INSTALLED_KEY)?;
    Ok(Opened { kv, state, installed })
}

/// Reads the state as the database has it, which changes nothing.
pub(crate) fn load(
    folder: &Folder,
    manifest: Manifest,
    span: Span,
    context: &SegmentContext<'_>,
) -> Result<State, ShardError> {
    let kv = context.kv;
    let head: Head = read_meta(kv, HEAD_KEY)?.unwrap_or_default();
    let mut segments = Vec::with_capacity(manifest.segments.len());
    for entry in &manifest.segments {
        let segment = Arc::new(Segment::open(folder.segment(entry.id), *entry, context)?);
        let live = Arc::new(read_live(kv, &segment, &span)?);
        segments.push(SegmentView { segment, live });
    }
    let mut state = State {
        head,
        manifest,
        span: Arc::new(span),
        members: read_meta(kv, MEMBERS_KEY)?.map(|Members(members)| members.into()),
        segments,
        frozen: Vec::new(),
        growing: Arc::new(Generation::new(head.generation)),
        unsealed: Default::default(),
        requests: read_requests(kv, head.first_request)?,
        imported: read_imported(kv)?,
        untold: BTreeMap::new(),
    };
    read_generations(kv, context.schema, &mut state)?;
    check_count(&state)?;
    Ok(state)
}

/// Makes the checkpoint of a shard the new shard that was split off: durably, at once or not at all.
fn become_half(folder: &Folder, kv: &dyn Kv, spec: &ShardSpec) -> Result<(), ShardError> {
    let Some(half) = read_meta::<Half>(kv, HALF_KEY)? else { return Ok(()) };
    let Some(found) = read_identity(folder, kv)? else { return Ok(()) };
    let is_it = half.shard == spec.shard && found.collection == spec.collection && found.schema == spec.schema;
    if found.shard == spec.shard || !is_it {
        return Ok(());
    }
    let head: Head = read_meta(kv, HEAD_KEY)?.unwrap_or_default();
    let manifest: Manifest = read_meta(kv, MANIFEST_KEY)?.unwrap_or_default();
    let Half { shard, range, split, points, relatives } = half;
    let (born, foreign, merges) = (Some(split), Some(manifest.next_segment), found.span.merges);
    let span = Span { range, relatives, born, foreign, merges };
    let SplitPoint { index: applied_index, term: applied_term } = split;
    let head = Head { applied_index, applied_term, points, ..head };
    let mut batch = WriteBatch::new();
    batch.put(META, IDENTITY_KEY, &Identity { shard, span, ..found }.to_sealed());
    batch.put(META, HEAD_KEY, &head.to_sealed());
    // Of the other group: who belongs to it, and where this replica of it was fetched whole, if it was.
    batch.delete(META, MEMBERS_KEY);
    batch.delete(META, INSTALLED_KEY);
    batch.delete(META, HALF_KEY);
    kv.write(&batch)?;
    Ok(kv.flush()?)
}

/// Makes a new database that of a shard which a merge is to fill: durably, at once or not at all.
fn begin(folder: &Folder, kv: &dyn Kv, spec: &ShardSpec, beginning: Beginning) -> Result<(), ShardError> {
    if read_identity(folder, kv)?.is_some() {
        return Ok(());
    }
    let Beginning { merge, range, index, term } = beginning;
    let merges = Merges { filling: Some(Filling { merge, step: 0 }), ..Merges::default() };
    let span = Span { range, born: Some(SplitPoint { index, term }), merges, ..Span::default() };
    let (collection, shard, schema) = (spec.collection, spec.shard, spec.schema.clone());
    let head = Head { applied_index: index, applied_term: term, ..Head::default() };
    let mut batch = WriteBatch::new();
    batch.put(META, IDENTITY_KEY, &Identity { collection, shard, schema, span }.to_sealed());
    batch.put(META, HEAD_KEY, &head.to_sealed());
    kv.write(&batch)?;
    Ok(kv.flush()?)
}

/// Compares whose database it is, or writes it into a new one; returns which points it is for.
fn check_identity(folder: &Folder, kv: &dyn Kv, spec: &ShardSpec) -> Result<Span, ShardError> {
    let (collection, shard, schema) = (spec.collection, spec.shard, spec.schema.clone());
    let wanted = Identity { collection, shard, schema, span: Span::default() };
    let Some(found) = read_identity(folder, kv)? else {
        let mut batch = WriteBatch::new();
        batch.put(META, IDENTITY_KEY, &wanted.to_sealed());
        kv.write(&batch)?;
        kv.flush()?;
        return Ok(Span::default());
    };
    let mismatch = |what, found: String, expected: String| {
        Err(ShardError::Identity { dir: folder.root().to_path_buf(), what, found, expected })
    };
    if found.collection != wanted.collection {
        let uuid = |id| PointId::Uuid(id).to_string();
        return mismatch("collection", uuid(found.collection), uuid(wanted.collection));
    }
    if found.shard != wanted.shard {
        return mismatch("shard", found.shard.to_string(), wanted.shard.to_string());
    }
    if found.schema != wanted.schema {
        return mismatch("schema", format!("{:?}", found.schema), format!("{:?}", wanted.schema));
    }
    Ok(found.span)
}

/// Whose database it is; `None` for a new one.
pub(crate) fn read_identity(folder: &Folder, kv: &dyn KvRead) -> Result<Option<Identity>, ShardError> {
    let Some(bytes) = kv.get(META, IDENTITY_KEY)? else { return Ok(None) };
    let row = |source| row_error(IDENTITY_KEY, source);
    let format = Reader::unseal(&bytes, Identity::NAME, u8::MAX).map_err(row)?.format();
    if format > Identity::FORMAT {
        let (found, supported) = (format.into(), Identity::FORMAT.into());
        return Err(ShardError::NewerFormat { dir: folder.root().to_path_buf(), found, supported });
    }
    Ok(Some(Identity::from_sealed(&bytes).map_err(row)?))
}

pub(crate) fn read_meta<R: Record>(kv: &dyn KvRead, key: &[u8]) -> Result<Option<R>, ShardError> {
    let bytes = kv.get(META, key)?;
    bytes.map(|bytes| R::from_sealed(&bytes).map_err(|source| row_error(key, source))).transpose()
}

pub(crate) fn row_error(key: &[u8], source: DecodeError) -> ShardError {
    ShardError::Row { what: format!("meta row {:?}", String::from_utf8_lossy(key)), source }
}

pub(crate) fn inconsistent<T>(what: String) -> Result<T, ShardError> {
    Err(ShardError::Inconsistent { what })
}

/// Removes the copies of ids of builds that came to nothing. Looks once into each gap between segments.
fn remove_unnamed_copies(kv: &dyn Kv, named: &[SegmentId]) -> Result<(), ShardError> {
    let starts = [0].into_iter().chain(named.iter().map(|id| id + 1));
    let ends = named.iter().copied().chain([SegmentId::MAX]);
    let mut batch = WriteBatch::new();
    for (start, end) in starts.zip(ends) {
        let (start, end) = (Key::segment(start), Key::segment(end));
        let mut found = false;
        kv.scan(SEGMENT_IDS, &ScanRange::between(&start, &end), &mut |_, _| {
            found = true;
            ControlFlow::Break(())
        })?;
        if found {
            batch.delete_range(SEGMENT_IDS, &start, &end);
        }
    }
    if !batch.is_empty() {
        kv.write(&batch)?;
    }
    Ok(())
}

/// The rows of a segment without a tombstone, as far as they are the shard's.
pub(crate) fn read_live(kv: &dyn KvRead, of: &Segment, span: &Span) -> Result<Bitmap, ShardError> {
    let (segment, rows) = (of.id(), of.rows() as u32);
    let mut live = Bitmap::full(of.rows());
    let mut wrong = false;
    kv.scan(TOMBSTONES, &ScanRange::prefix(&Key::segment(segment)), &mut |key, _| {
        match Key::read_segment_row(key).filter(|(_, row)| *row < rows) {
            Some((_, row)) => live.clear(row),
            None => wrong = true,
        }
        ControlFlow::Continue(())
    })?;
    if wrong {
        return inconsistent(format!("segment {segment} has tombstones of rows that it does not have"));
    }
    narrow(&mut live, of, kv, span)?;
    Ok(live)
}

fn read_requests(kv: &dyn KvRead, first: u64) -> Result<RequestWindow, ShardError> {
    let mut window = RequestWindow::default();
    let mut failure = None;
    // Those before the first one are deleted; passing over what the database keeps of them would take time.
    let range = ScanRange::between(&Key::request(first), &Key::request(u64::MAX));
    kv.scan(META, &range, &mut |key, value| {
        match (Key::read_request(key), Request::from_sealed(value)) {
            (Some(index), Ok(request)) => window.push(index, request),
            (_, Err(source)) => failure = Some(row_error(key, source)),
            (None, Ok(_)) => failure = Some(ShardError::Inconsistent { what: format!("{key:02x?} is no request") }),
        }
        ControlFlow::Continue(())
    })?;
    failure.map_or(Ok(window), Err)
}

fn read_imported(kv: &dyn KvRead) -> Result<HashSet<u128>, ShardError> {
    let (mut ids, mut wrong) = (HashSet::new(), None);
    let range = ScanRange::between(&Key::imported(0), &Key::after_imported());
    kv.scan(META, &range, &mut |key, _| {
        match Key::read_imported(key) {
            Some(id) => drop(ids.insert(id)),
            None => wrong = Some(format!("{key:02x?} is no request of a merged shard")),
        }
        ControlFlow::Continue(())
    })?;
    wrong.map_or(Ok(ids), inconsistent)
}

/// Loads the rows that are in no segment.
fn read_generations(kv: &dyn KvRead, schema: &Schema, state: &mut State) -> Result<(), ShardError> {
    let mut pending: BTreeMap<u32, Vec<(PointId, u64)>> = BTreeMap::new();
    let mut wrong = None;
    kv.scan(PENDING, &ScanRange::all(), &mut |key, value| {
        match (Key::read_pending(key), value.try_into().map(u64::from_le_bytes)) {
            // Of a point of another shard, since a split.
            (Some((_, id)), Ok(_)) if !state.span.range.holds(id) => {}
            (Some((generation, id)), Ok(version)) => pending.entry(generation).or_default().push((id, version)),
            _ => wrong = Some(format!("{key:02x?} is not a pending row")),
        }
        ControlFlow::Continue(())
    })?;
    if let Some(wrong) = wrong {
        return inconsistent(wrong);
    }
    for (number, rows) in pending {
        if number > state.head.generation {
            return inconsistent(format!("generation {number} has rows, the last one is {}", state.head.generation));
        }
        let mut generation = Generation::new(number);
        for block in rows.chunks(BLOCK_ROWS) {
            let chunk = read_chunk(kv, schema, block)?;
            let start = generation.append(chunk);
            for (row, (id, _)) in (start..).zip(block) {
                let before = state.unsealed.insert(*id, Location { generation: number, row });
                if before.is_some() {
                    return inconsistent(format!("point {id} is in two generations"));
                }
            }
        }
        match number == state.head.generation {
            true => state.growing = Arc::new(generation),
            false => state.frozen.push(Arc::new(generation)),
        }
    }
    Ok(())
}

fn read_chunk(kv: &dyn KvRead, schema: &Schema, rows: &[(PointId, u64)]) -> Result<ChunkRows, ShardError> {
    let ids: Vec<_> = rows.iter().map(|(id, _)| *id).collect();
    let mut chunk = ChunkRows::with_capacity(schema, rows.len());
    read_points(kv, &ids, &mut |at, record| {
        let (id, version) = rows[at];
        match record {
            Some(record) if record.version == version => {
                let payload = record.payload.decode();
                let payload = payload.map_err(|source| ShardError::Row { what: format!("the point {id}"), source })?;
                chunk.push(id, version, Arc::new(payload));
                Ok(())
            }
            found => {
                let found = found.map(|record| record.version);
                inconsistent(format!("point {id} is pending in version {version}, but stored in {found:?}"))
            }
        }
    })?;
    let mut values = Vec::new();
    for (ordinal, spec) in schema.vectors.values().enumerate() {
        values.resize(ids.len() * spec.dim, 0.0);
        read_vectors(kv, &ids, ordinal, spec.dim, &mut values)?;
        values.chunks_exact(spec.dim).for_each(|vector| chunk.push_vector(ordinal, vector));
    }
    Ok(chunk)
}

/// Each point is in one place: cheap to count, and what would be missing from results if it were not so.
fn check_count(state: &State) -> Result<(), ShardError> {
    let sealed: usize = state.segments.iter().map(|view| view.live.count()).sum();
    let rows = (sealed + state.unsealed.len()) as u64;
    if rows != state.head.points {
        return inconsistent(format!("{} points are counted, {rows} live rows are there", state.head.points));
    }
    Ok(())
}
