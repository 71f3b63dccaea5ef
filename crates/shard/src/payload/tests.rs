use std::fs;
use std::path::PathBuf;

use sagitta_engine::mapped::FileError;
use sagitta_model::filter::Bounds;
use sagitta_model::{Condition, FieldType, Object, Test, Value};
use tempfile::TempDir;

use super::rows::StoredRows;
use super::*;
use crate::sample::{Sampler, field_path};

/// A segment's rows in memory, their index, and the definition that it is held to.
struct Fixture {
    schema: Schema,
    ids: Vec<PointId>,
    payloads: Vec<Object>,
    path: PathBuf,
    digest: FileDigest,
    _dir: TempDir,
}

impl Fixture {
    fn new(schema: Schema, ids: Vec<PointId>, payloads: Vec<Object>) -> Self {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("payload");
        let mut writer = PayloadWriter::new(&schema);
        payloads.iter().for_each(|payload| writer.add(payload));
        let digest = writer.finish(&path).expect("written");
        Self { schema, ids, payloads, path, digest, _dir: dir }
    }

    fn sample(sampler: &mut Sampler, rows: usize, conforming: bool) -> Self {
        let mut schema = Schema::default();
        sampler.declare_fields(&mut schema);
        let mut ids: Vec<_> = (0..rows).map(|_| sampler.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        let payload = |sampler: &mut Sampler| if conforming { sampler.payload(&schema) } else { sampler.object(3) };
        let payloads = ids.iter().map(|_| payload(sampler)).collect();
        Self::new(schema, ids, payloads)
    }

    fn open(&self) -> Result<PayloadIndex, ShardError> {
        PayloadIndex::open(&self.path, &self.digest, &self.schema, self.ids.len())
    }

    fn find(&self, id: PointId) -> Result<Option<u32>, ShardError> {
        Ok(self.ids.binary_search(&id).ok().map(|row| row as u32))
    }

    fn defined(&self, filter: &Filter) -> Vec<u32> {
        let passes = |row: &usize| filter.matches(self.ids[*row], &self.payloads[*row]);
        (0..self.ids.len()).filter(passes).map(|row| row as u32).collect()
    }

    /// The index agrees with the definition: the rows found, the bounds, and each row by itself.
    fn check(&self, index: &PayloadIndex, filter: &Filter, what: &str) -> usize {
        filter.validate(&self.schema).unwrap_or_else(|violation| panic!("{what}: {violation}"));
        let expected = self.defined(filter);
        let find = |id| self.find(id);
        let found: Vec<_> = index.matching(filter, &find).expect("intact").iter().collect();
        self.compare(&found, &expected, filter, what);
        let bounds = index.estimate(filter, &find).expect("intact");
        let holds = bounds.at_least <= expected.len() && expected.len() <= bounds.at_most;
        assert!(holds, "{what}: {bounds:?} but {} rows pass {filter:?}", expected.len());
        let resolved = Resolved::new(index, filter, &find).expect("intact");
        let rows = 0..self.ids.len() as u32;
        let by_row: Vec<_> = rows.filter(|&row| resolved.holds(index, row).expect("intact")).collect();
        self.compare(&by_row, &expected, filter, &format!("{what}, row by row"));
        expected.len()
    }

    fn compare(&self, found: &[u32], expected: &[u32], filter: &Filter, what: &str) {
        if found == expected {
            return;
        }
        let differs = |row: &u32| found.binary_search(row).is_ok() != expected.binary_search(row).is_ok();
        let row = (0..self.ids.len() as u32).find(differs).expect("a row that differs");
        let should = if expected.contains(&row) { "passes" } else { "does not pass" };
        panic!("{what}: row {row}, {:?}, {should} {filter:?}", self.payloads[row as usize]);
    }
}

#[test]
fn filters_find_the_rows_that_the_definition_passes() {
    let (mut some, mut all) = (0, 0);
    for seed in 0..300 {
        let mut sampler = Sampler::new(seed);
        let rows = sampler.choose(&[0, 1, 3, 64, 65, 130]);
        let fixture = Fixture::sample(&mut sampler, rows, seed % 3 != 0);
        let index = fixture.open().expect("opens");
        for _ in 0..40 {
            let filter = sampler.filter(&fixture.schema, &fixture.ids, 2);
            let found = fixture.check(&index, &filter, &format!("seed {seed}"));
            all += 1;
            some += usize::from(found > 0 && found < fixture.ids.len());
        }
    }
    assert!(some * 5 > all, "too few filters tell rows apart: {some} of {all}");
}

#[test]
fn filters_on_many_rows_agree_too() {
    for seed in 0..6 {
        let mut sampler = Sampler::new(seed);
        let mut schema = Schema::default();
        for (name, field_type) in ["k", "i", "f", "b", "d"].into_iter().zip(FieldType::ALL) {
            schema.fields.insert(field_path(name), field_type);
        }
        let rows = 3000 + sampler.below(200);
        let ids = (0..rows as u64).map(PointId::Num).collect();
        let payloads = (0..rows).map(|_| sampler.payload(&schema)).collect();
        let fixture = Fixture::new(schema, ids, payloads);
        let index = fixture.open().expect("opens");
        let zones = index.directory.fields.iter().map(|(_, _, layout)| layout.zones.len()).sum::<usize>();
        assert!(zones > 20, "too few zones to test anything: {zones}");
        for _ in 0..100 {
            let filter = sampler.filter(&fixture.schema, &fixture.ids, 2);
            fixture.check(&index, &filter, &format!("seed {seed}"));
        }
    }
}

/// Around the texts that begin so there are texts that do not, and the beginning itself may be a text or not.
#[test]
fn a_prefix_finds_the_texts_that_begin_with_it() {
    let mut schema = Schema::default();
    schema.fields.insert(field_path("k"), FieldType::Keyword);
    let texts = ["", "a", "ab", "abc", "abd", "ac", "b", "ä", "äb", "\u{10ffff}", "\u{10ffff}x"];
    let payloads = texts.iter().map(|text| Object::from([("k".to_owned(), Value::from(*text))]));
    let payloads: Vec<_> = payloads.chain([Object::new(), Object::from([("k".to_owned(), Value::Null)])]).collect();
    let ids = (0..payloads.len() as u64).map(PointId::Num).collect();
    let fixture = Fixture::new(schema, ids, payloads);
    let index = fixture.open().expect("opens");
    let cases = [
        ("", 11),
        ("a", 5),
        ("ab", 3),
        ("abc", 1),
        ("abcd", 0),
        ("aa", 0),
        ("A", 0),
        ("ä", 2),
        ("\u{10ffff}", 2),
        ("z", 0),
    ];
    for (prefix, rows) in cases {
        let test = Test::Prefix(prefix.to_owned());
        let condition = Condition::Field { path: field_path("k"), test };
        let filter = Filter { must: vec![condition], ..Filter::default() };
        assert_eq!(fixture.check(&index, &filter, prefix), rows, "{prefix:?}");
    }
}

/// Lists of 0 to 40 elements, with duplicates and nulls, which have no keys of their own: in lists of rows and in bitmaps.
#[test]
fn a_count_finds_the_rows_with_so_many_values() {
    let mut schema = Schema::default();
    schema.fields.insert(field_path("k"), FieldType::Keyword);
    schema.fields.insert(field_path("in.i"), FieldType::Integer);
    let list = |len: u64| Value::Array((0..len).map(|n| if n % 3 == 2 { Value::Null } else { "x".into() }).collect());
    let payload = |row: u64| {
        let k = match row % 4 {
            0 => list(row % 41),
            1 => list(2),
            2 => "x".into(),
            _ => Value::Null,
        };
        let inner = |i: i64| Value::Object(Object::from([("i".to_owned(), i.into())]));
        let parts = Value::Array((0..row as i64 % 3).map(|_| inner(7)).collect());
        let mut payload = Object::from([("in".to_owned(), parts)]);
        if !row.is_multiple_of(7) {
            payload.insert("k".to_owned(), k);
        }
        payload
    };
    let rows = 3000;
    let fixture = Fixture::new(schema, (0..rows).map(PointId::Num).collect(), (0..rows).map(payload).collect());
    let index = fixture.open().expect("opens");
    let counts = index.field(&field_path("k")).expect("declared").layout.counts.clone().expect("counted");
    let stored = |bitmaps| counts.iter().any(|(_, rows)| matches!(rows, StoredRows::Bitmap { .. }) == bitmaps);
    assert_eq!(counts.len(), 41);
    assert!(stored(true) && stored(false), "one form of sets is not tested: {counts:?}");
    let found = |path: &str, lower, upper| {
        let test = Test::ValuesCount(Bounds { lower, upper });
        let condition = Condition::Field { path: field_path(path), test };
        let filter = Filter { must: vec![condition.clone()], ..Filter::default() };
        let count = fixture.check(&index, &filter, path);
        // After another condition it is tested row by row, if that is cheaper.
        let ids = [0, 1, 2, 3, 4, 8, 2999].map(PointId::Num).to_vec();
        let filter = Filter { must: vec![Condition::has_id(ids), condition], ..Filter::default() };
        fixture.check(&index, &filter, path);
        let estimate =
            index.estimate(&Filter { must: vec![filter.must[1].clone()], ..Filter::default() }, &|_| Ok(None));
        let exact = CountBounds { at_least: count, at_most: count };
        assert_eq!(estimate.expect("intact"), exact, "{path} {lower:?} {upper:?}");
        count
    };
    assert_eq!(found("k", Some((0, true)), None), 3000);
    assert_eq!(found("k", None, Some((0, false))), 0);
    assert_eq!(found("k", Some((41, true)), None), 0);
    assert_eq!(found("k", Some((u64::MAX, false)), Some((0, true))), 0);
    for n in 0..=41 {
        let [less, same, more] = [
            found("k", None, Some((n, false))),
            found("k", Some((n, true)), Some((n, true))),
            found("k", Some((n, false)), None),
        ];
        assert_eq!(less + same + more, 3000, "{n}");
        assert_eq!(same > 0, n <= 40, "{n}");
    }
    assert_eq!([0, 1, 2, 3].map(|n| found("in.i", Some((n, true)), Some((n, true)))), [1000, 1000, 1000, 0]);
}

#[test]
fn rows_have_the_keys_of_their_payloads() {
    for seed in 0..100 {
        let mut sampler = Sampler::new(seed);
        let fixture = Fixture::sample(&mut sampler, 80, seed % 3 != 0);
        let index = fixture.open().expect("opens");
        for (path, field_type) in &fixture.schema.fields {
            let field = index.field(path).expect("declared");
            for (row, payload) in fixture.payloads.iter().enumerate() {
                let mut keys = Vec::new();
                field
                    .visit_ordinals(row as u32, &mut |ordinal| keys.push(field.key(ordinal).expect("intact")))
                    .expect("intact");
                assert_eq!(keys, Key::of_payload(path, *field_type, payload), "seed {seed}, {path} of row {row}");
                for key in keys {
                    let ordinal = field.ordinal(&key).expect("intact").expect("it occurs");
                    let mut rows = Bitmap::new(fixture.ids.len());
                    field.add_rows(ordinal, &mut rows).expect("intact");
                    assert!(rows.contains(row as u32), "seed {seed}, {path} of row {row}");
                }
            }
            assert_eq!(field.ordinal(&Key::Text("never".into())).expect("intact"), None);
        }
    }
}

#[test]
fn a_flipped_bit_is_an_error_and_never_a_wrong_answer() {
    let (mut refused, mut unseen, mut caught) = (0, 0, 0);
    for seed in 0..8 {
        let mut sampler = Sampler::new(seed);
        let mut schema = Schema::default();
        schema.fields.insert(field_path("a"), FieldType::Keyword);
        schema.fields.insert(field_path("b"), FieldType::Float);
        let ids: Vec<_> = (0..6000).map(PointId::Num).collect();
        let payloads = ids.iter().map(|_| sampler.payload(&schema)).collect();
        let fixture = Fixture::new(schema, ids, payloads);
        let intact = fs::read(&fixture.path).expect("there");
        for _ in 0..40 {
            let mut bytes = intact.clone();
            let at = sampler.below(bytes.len());
            bytes[at] ^= 1 << sampler.below(8);
            fs::write(&fixture.path, &bytes).expect("written");
            let Ok(index) = fixture.open() else {
                refused += 1;
                continue;
            };
            for _ in 0..8 {
                let filter = sampler.filter(&fixture.schema, &fixture.ids, 1);
                match index.matching(&filter, &|id| fixture.find(id)) {
                    Ok(found) => {
                        assert_eq!(
                            found.iter().collect::<Vec<_>>(),
                            fixture.defined(&filter),
                            "seed {seed}, byte {at}"
                        );
                        unseen += 1;
                    }
                    Err(ShardError::Damaged(damage)) => {
                        assert_eq!(damage.file, fixture.path);
                        caught += 1;
                    }
                    Err(other) => panic!("seed {seed}, byte {at}: {other}"),
                }
            }
            assert!(index.verify(&|| false).is_err(), "seed {seed}, byte {at}");
        }
    }
    // Opening reads hardly anything, so most damage is met later or not at all.
    assert!(refused > 0 && caught > 50 && unseen > 50, "{refused} refused, {caught} caught, {unseen} unseen");
}

#[test]
fn a_file_of_other_rows_or_fields_or_of_another_time_is_refused() {
    let fixture = Fixture::sample(&mut Sampler::new(1), 10, true);
    let open = |schema: &Schema, rows: usize| PayloadIndex::open(&fixture.path, &fixture.digest, schema, rows);
    assert!(open(&fixture.schema, fixture.ids.len()).is_ok());
    assert!(matches!(open(&fixture.schema, fixture.ids.len() + 1), Err(ShardError::Damaged(_))));
    let mut other = fixture.schema.clone();
    other.fields.insert(field_path("another"), FieldType::Bool);
    assert!(matches!(open(&other, fixture.ids.len()), Err(ShardError::Damaged(_))));
    let digest = FileDigest { bytes: 0, hash: 0 };
    assert!(matches!(
        PayloadIndex::open(&fixture.path, &digest, &fixture.schema, fixture.ids.len()),
        Err(ShardError::Damaged(_))
    ));
    let exists = PayloadWriter::new(&fixture.schema).finish(&fixture.path);
    assert!(matches!(exists, Err(FileError::Io { .. })));
}

#[test]
fn an_undeclared_field_is_refused_by_name() {
    let fixture = Fixture::sample(&mut Sampler::new(1), 10, true);
    let index = fixture.open().expect("opens");
    let condition = Condition::Field { path: field_path("colour"), test: Test::Exists };
    let filter = Filter { must: vec![condition], ..Filter::default() };
    let error = index.matching(&filter, &|id| fixture.find(id)).expect_err("undeclared");
    assert!(matches!(&error, ShardError::Invalid(violation) if violation.reason.contains("colour")), "{error}");
}

fn golden_fixture() -> Fixture {
    let mut schema = Schema::default();
    for (name, field_type) in ["k", "i", "f", "b", "d"].into_iter().zip(FieldType::ALL) {
        schema.fields.insert(field_path(name), field_type);
    }
    let payload = |n: i64| {
        let text = Value::String(format!("k{}", n % 7));
        let fields = [
            ("k", if n % 5 == 0 { Value::Array(vec![text, "z".into()]) } else { text }),
            ("i", Value::Int(n * n)),
            ("f", if n % 3 == 0 { Value::Null } else { Value::Float(n as f64 / 4.0) }),
            ("b", Value::Bool(n % 2 == 0)),
            ("d", Value::String(format!("2026-01-{:02}T00:00:00Z", n % 28 + 1))),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    Fixture::new(schema, (0..100).map(PointId::Num).collect(), (0..100).map(payload).collect())
}

/// The digest of a file of format 2. It never changes: a new format gets one of its own beside it.
#[test]
fn format_2_has_these_bytes() {
    assert_eq!(golden_fixture().digest, GOLDEN_DIGEST_2);
}

/// What the version that wrote format 1 made of the same rows.
#[test]
fn a_file_of_format_1_answers_all_but_counts_which_have_it_built_again() {
    let mut fixture = golden_fixture();
    fs::write(&fixture.path, include_bytes!("golden-1.bin")).expect("written");
    fixture.digest = GOLDEN_DIGEST_1;
    let index = fixture.open().expect("opens");
    index.verify(&|| false).expect("intact");
    let mut sampler = Sampler::new(1);
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..300 {
        let filter = sampler.filter(&fixture.schema, &fixture.ids, 1);
        let counts = format!("{filter:?}").contains("ValuesCount");
        if !counts {
            fixture.check(&index, &filter, "format 1");
            answered += 1;
            continue;
        }
        let damage = index.matching(&filter, &|id| fixture.find(id)).expect_err("it has no counts");
        assert!(matches!(&damage, ShardError::Damaged(damage) if damage.file == fixture.path), "{damage}");
        refused += 1;
    }
    assert!(answered > 50 && refused > 50, "{answered} answered, {refused} refused");
}

const GOLDEN_DIGEST_1: FileDigest = FileDigest { bytes: 8473, hash: 0x1fab4a84d1c99d9ee6b0f764f07d32fb };
const GOLDEN_DIGEST_2: FileDigest = FileDigest { bytes: 8575, hash: 0xfeeb71ce3d9d235cc6d37e2e248feb38 };
