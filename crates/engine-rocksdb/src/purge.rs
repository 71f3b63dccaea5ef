//! Rewriting a family so that dead values are gone from its files.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rocksdb::{BottommostLevelCompaction, ColumnFamily, CompactOptions};
use sagitta_engine::kv::{Family, FamilySpec, KvError};

use crate::database::Core;
use crate::health::{all_blob_bytes, blob_bytes, blob_garbage_bytes};
use crate::options::{GC_AGE_CUTOFF_OPTION, data_file_number, gc_age_cutoff};

/// Scans that are under way keep old files. They end; this is how often, and how far apart, we look whether they have.
const REMOVAL_TRIES: usize = 1000;
const REMOVAL_WAIT: Duration = Duration::from_millis(10);

/// Everything must have been flushed before.
pub(crate) fn purge(core: &Core, family: Family, spec: &FamilySpec) -> Result<(), KvError> {
    let handle = core.handle(family);
    let newest_before = newest_file(core)?;
    compact_all(core, handle, spec)?;
    check_rewritten(core, handle, spec, newest_before)?;
    wait_for_removal(core, handle, newest_before)
}

/// Rewrites every table of the family and, for the duration, moves every live blob that is met.
fn compact_all(core: &Core, handle: &ColumnFamily, spec: &FamilySpec) -> Result<(), KvError> {
    let set_cutoff = |cutoff: &str| {
        let result = core.db().set_options_cf(handle, &[(GC_AGE_CUTOFF_OPTION, cutoff)]);
        result.map_err(|error| core.error(&error))
    };
    if spec.large_values {
        set_cutoff("1.0")?;
    }
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    // Compactions of its own must not hold back the ones that keep writing possible.
    options.set_exclusive_manual_compaction(false);
    core.db().compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &options);
    if spec.large_values {
        set_cutoff(&gc_age_cutoff())?;
    }
    Ok(())
}

/// The manual compaction of this binding reports no error, so look at the result.
fn check_rewritten(core: &Core, handle: &ColumnFamily, spec: &FamilySpec, newest_before: u64) -> Result<(), KvError> {
    let old = live_tables(core, Some(spec.name))?.into_iter().find(|&number| number <= newest_before);
    let garbage = blob_garbage_bytes(core, handle);
    match old {
        Some(number) => Err(unfinished(core, &format!("{number:06}.sst was not rewritten"))),
        None if garbage > 0 => Err(unfinished(core, &format!("{garbage} bytes of dead values are left"))),
        None => Ok(()),
    }
}

/// Returns once no file from before the purge is left that is not in use.
fn wait_for_removal(core: &Core, handle: &ColumnFamily, newest_before: u64) -> Result<(), KvError> {
    for _ in 0..REMOVAL_TRIES {
        let live = live_tables(core, None)?;
        let left = tables_in_folder(core)?.into_iter().any(|n| n <= newest_before && !live.contains(&n));
        if !left && all_blob_bytes(core, handle) == blob_bytes(core, handle) {
            return Ok(());
        }
        // Nothing tells when RocksDB has removed its old files.
        std::thread::park_timeout(REMOVAL_WAIT);
    }
    Err(unfinished(core, "old files are still held by running scans"))
}

fn unfinished(core: &Core, what: &str) -> KvError {
    KvError::Io { dir: core.dir().to_owned(), what: format!("purge is not complete: {what}") }
}

/// Number of the newest data file of any family.
fn newest_file(core: &Core) -> Result<u64, KvError> {
    Ok(files_in_folder(core)?.into_iter().map(|(number, _)| number).max().unwrap_or(0))
}

/// Numbers of the tables that the present state consists of.
fn live_tables(core: &Core, family: Option<&str>) -> Result<BTreeSet<u64>, KvError> {
    let files = core.db().live_files().map_err(|error| core.error(&error))?;
    let of_family = files.iter().filter(|file| family.is_none_or(|name| file.column_family_name == name));
    Ok(of_family.filter_map(|file| data_file_number(&file.name)).collect())
}

fn tables_in_folder(core: &Core) -> Result<Vec<u64>, KvError> {
    let files = files_in_folder(core)?.into_iter();
    Ok(files.filter_map(|(number, is_table)| is_table.then_some(number)).collect())
}

/// Numbers of the data files, and whether each is a table (else it holds blobs).
fn files_in_folder(core: &Core) -> Result<Vec<(u64, bool)>, KvError> {
    let io = |error: std::io::Error| KvError::from_io(core.dir(), "listing the folder", &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(core.dir()).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        files.extend(data_file_number(&name).map(|number| (number, name.ends_with(".sst"))));
    }
    Ok(files)
}
