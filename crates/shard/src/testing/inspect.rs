//! That looking at a closed shard changes nothing, and sees what opening it finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Inspected, Severity, Shard};

/// Every file below a folder with its content and when it was changed, and every folder.
fn picture(dir: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, SystemTime)>> {
    let mut picture = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                picture.insert(path.clone(), None);
                folders.push(path);
            } else {
                let changed = path.metadata().and_then(|metadata| metadata.modified()).expect("a time");
                picture.insert(path.clone(), Some((fs::read(&path).expect("the file is read"), changed)));
            }
        }
    }
    picture
}

/// Does something that must leave the folder as it is.
///
/// # Panics
/// When a file or folder was made, changed or removed.
pub(super) fn unchanged<T>(dir: &Path, look: impl FnOnce() -> T) -> T {
    let before = picture(dir);
    let seen = look();
    let after = picture(dir);
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, state)| after.get(*path) != Some(state))
        .chain(after.iter().filter(|(path, _)| !before.contains_key(*path)))
        .map(|(path, _)| path)
        .collect();
    assert!(changed.is_empty(), "looking has changed {changed:?}");
    seen
}

/// Checks what was seen of a closed shard against the same shard, which has been opened since and took nothing new.
///
/// # Panics
/// When they disagree, or something was said to be damaged.
pub(super) fn agrees(found: &Inspected, shard: &Shard, at: &str) {
    let (stats, view) = (shard.stats(), shard.view());
    let told = found.findings.iter().find(|finding| finding.severity > Severity::Leftover);
    assert_eq!(told, None, "{at}: of a sound shard");
    assert_eq!(found.applied, Some((stats.applied_index, view.applied_term())), "{at}");
    assert_eq!(found.points, Some(stats.points), "{at}");
    let unsealed: u64 = stats.generations.iter().map(|generation| generation.rows - generation.dead_rows).sum();
    assert_eq!(found.unsealed, unsealed, "{at}");
    assert_eq!(found.schema.as_ref(), Some(&**shard.schema()), "{at}");
    let seen = found.segments.iter().map(|segment| (segment.id, segment.rows, segment.dead_rows, segment.damaged));
    let there = stats.segments.iter().map(|segment| (segment.id, segment.rows, Some(segment.dead_rows), false));
    assert!(seen.eq(there), "{at}: {:?}", found.segments);
    let kinds = |segment: &crate::SegmentStats| -> Vec<_> {
        segment.vectors.iter().map(|vector| vector.as_ref().map(|vector| vector.kind)).collect()
    };
    assert!(found.segments.iter().map(|segment| segment.indexes.clone()).eq(stats.segments.iter().map(kinds)), "{at}");
}
