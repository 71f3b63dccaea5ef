use std::fs;
use std::path::PathBuf;

use sagitta_engine::mapped::FileError;
use sagitta_model::{FieldType, Object, Value};
use tempfile::TempDir;

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
        let test = sagitta_model::Test::Prefix(prefix.to_owned());
        let condition = sagitta_model::Condition::Field { path: field_path("k"), test };
        let filter = Filter { must: vec![condition], ..Filter::default() };
        assert_eq!(fixture.check(&index, &filter, prefix), rows, "{prefix:?}");
    }
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
    let condition = sagitta_model::Condition::Field { path: field_path("colour"), test: sagitta_model::Test::Exists };
    let filter = Filter { must: vec![condition], ..Filter::default() };
    let error = index.matching(&filter, &|id| fixture.find(id)).expect_err("undeclared");
    assert!(matches!(&error, ShardError::Invalid(violation) if violation.reason.contains("colour")), "{error}");
}

/// The digest of a file of format 1. It never changes: a new format gets one of its own beside it.
#[test]
fn format_1_has_these_bytes() {
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
    let fixture = Fixture::new(schema, (0..100).map(PointId::Num).collect(), (0..100).map(payload).collect());
    assert_eq!(fixture.digest, GOLDEN_DIGEST);
}

const GOLDEN_DIGEST: FileDigest = FileDigest { bytes: 8473, hash: 0x1fab4a84d1c99d9ee6b0f764f07d32fb };
