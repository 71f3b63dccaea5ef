use std::collections::BTreeMap;
use std::ops::Bound;

use super::{ALL, Db, Harness, META, Random, Rows, large_value, rows, rows_in, seeds};
use crate::kv::{Family, KvRead, Op, ScanRange, WriteBatch};

const SEEDS: u64 = 4;
const STEPS: u64 = 1500;
/// Few enough keys that they are overwritten, deleted and put again all the time.
const KEYS: u64 = 64;
const MAX_SNAPSHOTS: usize = 4;
/// Key in the family `META` with the number of batches so far.
const COUNT: &[u8] = b"count";

/// Random batches, reads, snapshots, flushes, purges, restarts and crashes against maps in memory.
pub(super) fn any_sequence_agrees_with_a_map(harness: &dyn Harness) {
    for seed in seeds(SEEDS) {
        println!("any_sequence_agrees_with_a_map: seed {seed}");
        let mut run = Run::new(harness, seed);
        for step in 0..STEPS {
            run.step = step;
            run.step();
        }
        run.check_all();
    }
}

struct Run<'a> {
    seed: u64,
    step: u64,
    random: Random,
    db: Option<Db<'a>>,
    model: Model,
    /// The model as of the last flush, and the batches since.
    flushed: Model,
    since: Vec<WriteBatch>,
    snapshots: Vec<(Box<dyn KvRead>, Model)>,
}

#[derive(Clone, Default)]
struct Model {
    batches: u64,
    families: [BTreeMap<Vec<u8>, Vec<u8>>; ALL.len()],
}

impl<'a> Run<'a> {
    fn new(harness: &'a dyn Harness, seed: u64) -> Self {
        Self {
            seed,
            step: 0,
            random: Random(seed),
            db: Some(Db::create(harness)),
            model: Model::default(),
            flushed: Model::default(),
            since: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(1000) {
            0..500 => self.write(),
            500..700 => self.read(),
            700..850 => self.scan(),
            850..900 if self.snapshots.len() < MAX_SNAPSHOTS => {
                let snapshot = (self.kv().snapshot(), self.model.clone());
                self.snapshots.push(snapshot);
            }
            850..960 if !self.snapshots.is_empty() => {
                let one = self.random.below(self.snapshots.len() as u64) as usize;
                let (snapshot, model) = self.snapshots.swap_remove(one);
                self.compare(&*snapshot, &model, "a snapshot");
            }
            960..985 => {
                self.kv().flush().unwrap();
                self.now_flushed();
            }
            985..988 => {
                let family = self.family();
                self.kv().purge(family).unwrap();
            }
            988..994 => {
                self.snapshots.clear();
                self.kv().flush().unwrap();
                self.now_flushed();
                self.db = self.db.take().map(Db::reopen);
                self.check_all();
            }
            994..1000 => self.crash(),
            _ => {}
        }
    }

    fn write(&mut self) {
        let mut batch = WriteBatch::new();
        for _ in 0..=self.random.below(8) {
            let (family, key) = (self.family(), self.key());
            match self.random.below(100) {
                0..60 => {
                    let number = self.random.next();
                    let value = match number % 4 {
                        0 => Vec::new(),
                        1 => number.to_be_bytes().to_vec(),
                        _ => large_value(number),
                    };
                    batch.put(family, &key, &value);
                }
                60..93 => batch.delete(family, &key),
                _ => {
                    let other = self.key();
                    batch.delete_range(family, &key, &other);
                }
            }
        }
        batch.put(META, COUNT, &(self.model.batches + 1).to_be_bytes());
        self.kv().write(&batch).unwrap();
        self.model.apply(&batch);
        self.since.push(batch);
    }

    fn read(&mut self) {
        let family = self.family();
        let keys: Vec<_> = (0..self.random.below(6)).map(|_| self.key()).collect();
        let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let expected = &self.model.families[family.index()];
        let mut visited = 0;
        self.kv()
            .multi_get(family, &borrowed, &mut |i, value| {
                visited += 1;
                assert_eq!(value, expected.get(&keys[i]).map(Vec::as_slice), "{}", self.place("multi_get"));
            })
            .unwrap();
        assert_eq!(visited, keys.len(), "{}", self.place("multi_get"));
        for key in &keys {
            assert_eq!(self.kv().get(family, key).unwrap().as_ref(), expected.get(key), "{}", self.place("get"));
        }
    }

    fn scan(&mut self) {
        let family = self.family();
        let mut range = match self.random.below(3) {
            0 => ScanRange::all(),
            1 => ScanRange::prefix(&self.key()[..1]),
            _ => ScanRange::between(&self.key(), &self.key()),
        };
        if self.random.chance(500) {
            range = range.starting_after(&self.key());
        }
        let expected = self.model.rows_in(family, &range);
        assert!(rows_in(self.kv(), family, &range) == expected, "{}: {range:?}", self.place("scan"));
    }

    fn crash(&mut self) {
        self.snapshots.clear();
        self.db = self.db.take().map(Db::crash);
        let count = self.kv().get(META, COUNT).unwrap();
        let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        let possible = self.flushed.batches..=self.model.batches;
        assert!(possible.contains(&count), "{}: {count} batches of {possible:?}", self.place("crash"));

        self.model = self.flushed.clone();
        let survived = (count - self.flushed.batches) as usize;
        for batch in std::mem::take(&mut self.since).iter().take(survived) {
            self.model.apply(batch);
        }
        self.now_flushed();
        self.check_all();
    }

    fn now_flushed(&mut self) {
        self.flushed = self.model.clone();
        self.since.clear();
    }

    fn check_all(&self) {
        self.compare(self.kv(), &self.model, "the database");
        for (snapshot, model) in &self.snapshots {
            self.compare(&**snapshot, model, "a snapshot");
        }
    }

    fn compare(&self, kv: &dyn KvRead, model: &Model, what: &str) {
        for family in ALL {
            let expected = model.rows_in(family, &ScanRange::all());
            assert!(rows(kv, family) == expected, "{}: {family:?} differs", self.place(what));
        }
    }

    fn kv(&self) -> &dyn crate::kv::Kv {
        &*self.db.as_ref().unwrap().kv
    }

    fn family(&mut self) -> Family {
        Family::new(self.random.below(ALL.len() as u64) as usize)
    }

    /// Keys of one to three bytes, some of them prefixes of others.
    fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(KEYS);
        [(number % 4) as u8 * 85, (number / 4) as u8, 255][..1 + (number % 3) as usize].to_vec()
    }

    fn place(&self, what: &str) -> String {
        format!("seed {} step {}: {what}", self.seed, self.step)
    }
}

impl Model {
    fn apply(&mut self, batch: &WriteBatch) {
        self.batches += 1;
        for op in batch.ops() {
            match op {
                Op::Put { family, key, value } => {
                    self.families[family.index()].insert(key.to_vec(), value.to_vec());
                }
                Op::Delete { family, key } => {
                    self.families[family.index()].remove(key);
                }
                Op::DeleteRange { family, start, end } => {
                    self.families[family.index()].retain(|key, _| key.as_slice() < start || key.as_slice() >= end);
                }
            }
        }
    }

    fn rows_in(&self, family: Family, range: &ScanRange) -> Rows {
        if range.is_empty() {
            return Vec::new();
        }
        let end = range.end().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.families[family.index()].range::<[u8], _>((Bound::Included(range.start()), end));
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}
