//! The replicas of a data folder.

use std::fs;
use std::path::{Path, PathBuf};

use sagitta_cluster::State;
use sagitta_consensus::{GroupId, LogInspector, Position};
use sagitta_engine::index::IndexKind;
use sagitta_model::PointId;
use sagitta_shard::{Inspected, Severity, ShardOptions};

use super::Look;
use super::report::{SegmentReport, Seriousness, ShardReport};

impl Look<'_> {
    pub(super) fn at_shards(&mut self, state: Option<&State>, log: Option<&LogInspector>) {
        let (folders, others) = self.folders();
        for path in others {
            let what = format!("{} is left over of a replica that was removed", path.display());
            self.problem(Seriousness::Note, what, "it goes when the node starts");
        }
        for (shard, path) in &folders {
            self.at_shard(*shard, path, state, log);
        }
        let Some((me, state)) = self.me.zip(state) else { return };
        let wanted = state.shards().filter(|(_, shard)| shard.replicas.contains(&me));
        let missing: Vec<_> =
            wanted.map(|(_, shard)| shard.id).filter(|id| folders.iter().all(|(here, _)| here != id)).collect();
        for shard in missing {
            self.at_missing(shard, log);
        }
    }

    /// The folders that are named as shards are, and what else there is.
    fn folders(&mut self) -> (Vec<(u64, PathBuf)>, Vec<PathBuf>) {
        let dir = self.held.layout.shards();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Default::default(),
            Err(error) => {
                let what = format!("{}: {error}", dir.display());
                self.problem(Seriousness::Damage, what, "give this user the right to read it, or look at its disk");
                return Default::default();
            }
        };
        let number = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let (mut shards, mut others) = (Vec::new(), Vec::new());
        for path in entries.flatten().map(|entry| entry.path()) {
            match number(&path) {
                Some(shard) => shards.push((shard, path)),
                None => others.push(path),
            }
        }
        shards.sort_unstable();
        others.sort_unstable();
        (shards, others)
    }

    fn at_shard(&mut self, shard: u64, path: &Path, state: Option<&State>, log: Option<&LogInspector>) {
        let options = ShardOptions::default().kv;
        let seen = sagitta_shard::inspect(path, self.engines, self.env, &options, self.all);
        let mut report = report(shard, &seen, state, self.me);
        self.findings(shard, &seen);
        if let Some(other) = seen.shard.filter(|other| *other != shard) {
            let what = format!("{} holds shard {other}, not {shard}", path.display());
            self.problem(Seriousness::Damage, what, "give the folder its own name back");
            report.condition = "damaged";
        }
        if report.wanted == Some(false) {
            let what = format!("shard {shard} should not be here any more");
            self.problem(Seriousness::Note, what, "its replica goes when the node starts");
        }
        if let (Some(log), Some((index, term))) = (log, seen.applied) {
            let installed = seen.installed.map(|(index, term)| Position { index, term });
            let goes_on = log.check_continuity(GroupId(shard), Position { index, term }, installed);
            // A log that was never begun is begun with the replica.
            let is_new = (index, term) == (0, 0) && !has_log(log, shard);
            if let Err(error) = goes_on.or_else(|error| if is_new { Ok(()) } else { Err(error) }) {
                self.problem(Seriousness::Damage, format!("shard {shard}: {error}"), help(shard));
                report.condition = "damaged";
            }
        }
        self.report.shards.push(report);
        self.replicas.insert(shard, seen);
    }

    fn findings(&mut self, shard: u64, seen: &Inspected) {
        for finding in &seen.findings {
            let what = format!("shard {shard}: {}", finding.what);
            let (seriousness, help) = match finding.severity {
                Severity::Leftover => (Seriousness::Note, "nothing needs to be done".to_owned()),
                Severity::Derived => (
                    Seriousness::Mends,
                    format!("{}  (it builds the segment again from the database)", self.report.start),
                ),
                Severity::Truth => (Seriousness::Damage, help(shard)),
            };
            self.problem(seriousness, what, help);
        }
    }

    /// A replica that should be here and has no folder.
    fn at_missing(&mut self, shard: u64, log: Option<&LogInspector>) {
        let goes_on = log.filter(|log| has_log(log, shard)).map(|log| {
            // From nothing on, which a log that was never cut can be.
            log.check_continuity(GroupId(shard), Position::default(), None)
        });
        match goes_on {
            Some(Err(error)) => {
                let what = format!("shard {shard} has no folder here, and its log cannot make up for that: {error}");
                self.problem(Seriousness::Damage, what, help(shard));
            }
            Some(Ok(())) => {
                let what = format!("shard {shard} has no folder here; its log holds all that was written");
                self.problem(Seriousness::Mends, what, self.report.start.clone());
            }
            None => {
                let what = format!("shard {shard} was placed here and has not been begun");
                self.problem(Seriousness::Note, what, self.report.start.clone());
            }
        }
    }
}

fn has_log(log: &LogInspector, shard: u64) -> bool {
    log.state(GroupId(shard)).is_ok_and(|state| state.is_some())
}

/// What helps with a replica that does not open: the node serves the others all the same.
fn help(shard: u64) -> String {
    format!(
        "sagitta shard show {shard}  (says of the running cluster whether others hold it; if none does, bring the folder back from a backup)"
    )
}

fn report(shard: u64, seen: &Inspected, state: Option<&State>, me: Option<u64>) -> ShardReport {
    let placed = state.and_then(|state| state.shard(shard).ok());
    let is_gone = state.is_some_and(|state| state.has_placed(shard)) && placed.is_none();
    let wanted = placed.zip(me).map(|((_, descriptor), me)| descriptor.replicas.contains(&me));
    let hash = |hash: u64| format!("{hash:016x}");
    let names: Vec<_> = seen.schema.iter().flat_map(|schema| schema.vectors.keys().cloned()).collect();
    let segments = seen.segments.iter().map(|segment| {
        let kinds = names.iter().enumerate().map(|(at, name)| {
            let kind = segment.indexes.get(at).copied().flatten();
            (name.clone(), kind.map_or("damaged", kind_name))
        });
        SegmentReport {
            segment: segment.id,
            rows: segment.rows,
            points: segment.dead_rows.map(|dead| segment.rows - dead),
            bytes: segment.bytes,
            indexes: kinds.collect(),
        }
    });
    let worst = seen.findings.iter().map(|finding| finding.severity).max();
    ShardReport {
        shard,
        collection: placed.map(|(collection, _)| collection.name.to_string()),
        collection_id: seen.collection.map(|id| PointId::Uuid(id).to_string()),
        first_hash: placed.map(|(_, descriptor)| hash(descriptor.range.first)),
        last_hash: placed.map(|(_, descriptor)| hash(descriptor.range.last)),
        wanted: wanted.or(is_gone.then_some(false)),
        applied_index: seen.applied.map(|(index, _)| index),
        applied_term: seen.applied.map(|(_, term)| term),
        points: seen.points,
        unsealed: seen.unsealed,
        bytes: seen.bytes,
        segments: segments.collect(),
        quarantined: seen.quarantined.clone(),
        condition: match worst {
            Some(Severity::Truth) => "damaged",
            Some(Severity::Derived) => "rebuilds",
            Some(Severity::Leftover) | None => "sound",
        },
    }
}

fn kind_name(kind: IndexKind) -> &'static str {
    match kind {
        IndexKind::Flat => "flat",
        IndexKind::Graph => "graph",
        IndexKind::Compact => "compact",
    }
}
