//! A checkpoint as a file, so that one can be copied to where another engine opens it, as the files of a real engine can.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::store::Store;
use crate::kv::KvError;

const FILE: &str = "twin";
const MAGIC: &[u8] = b"twin 1\n";

/// Writes a store into a new folder. Where no folder could be, a checkpoint stays in memory.
pub(super) fn write(dir: &Path, store: &Store) -> Result<(), KvError> {
    if !dir.parent().is_some_and(Path::is_dir) {
        return Ok(());
    }
    let mut bytes = MAGIC.to_vec();
    let tables = store.present();
    put_number(&mut bytes, tables.len());
    for (name, rows) in tables {
        put(&mut bytes, name.as_bytes());
        put_number(&mut bytes, rows.len());
        for (key, value) in rows {
            put(&mut bytes, &key);
            put(&mut bytes, &value);
        }
    }
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    let written = fs::create_dir(dir).and_then(|()| fs::write(dir.join(FILE), bytes));
    written.map_err(|error| KvError::from_io(dir, "writing the checkpoint", &error))
}

/// Takes the store out of the folder of a checkpoint, if it is one.
pub(super) fn take(dir: &Path) -> Result<Option<Store>, KvError> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(KvError::from_io(dir, "reading the checkpoint", &error)),
    };
    let store = parse(&bytes).ok_or_else(|| corrupt(&path))?;
    // From now on the memory is the disk.
    fs::remove_file(&path).map_err(|error| KvError::from_io(dir, "taking the checkpoint", &error))?;
    Ok(Some(store))
}

fn parse(bytes: &[u8]) -> Option<Store> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut store = Store::default();
    for _ in 0..number(&mut rest)? {
        let table = store.table(std::str::from_utf8(part(&mut rest)?).ok()?);
        for _ in 0..number(&mut rest)? {
            let key = part(&mut rest)?;
            store.load(table, key, part(&mut rest)?);
        }
    }
    rest.is_empty().then_some(store)
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    put_number(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn put_number(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&(number as u64).to_le_bytes());
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

fn corrupt(path: &Path) -> KvError {
    let dir = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    KvError::Corrupt { dir, what: format!("{} is no checkpoint", path.display()) }
}
