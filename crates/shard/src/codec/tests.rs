use std::fmt::Debug;
use std::ops::ControlFlow;

use sagitta_model::filter::{Bounds, Number};
use sagitta_model::{
    Change, Condition, ErrorKind, FieldPath, Filter, HashRange, IndexPolicy, ItemFailure, Metric, Object,
    PayloadChange, PayloadSelection, Point, PointId, Problem, Range, Scalar, Schema, Target, Test, Value, VectorSpec,
    Violation,
};

use rand::RngCore;

use super::*;
use crate::sample::{PATHS, Sampler, field_path};
use crate::{Command, Import, MergeEntry, RememberedRequest, Split, WriteOutcome};

const SEEDS: u64 = 300;

fn schema(sampler: &mut Sampler) -> Schema {
    let mut schema = Schema::default();
    sampler.declare_fields(&mut schema);
    for name in ["body", "title"] {
        let spec = VectorSpec {
            dim: 1 + sampler.below(3000),
            metric: sampler.choose(&Metric::ALL),
            index: sampler.choose(&IndexPolicy::ALL),
        };
        schema.vectors.insert(name.to_owned(), spec);
    }
    schema
}

fn point(sampler: &mut Sampler, schema: &Schema) -> Point {
    let names = ["body", "title", ""];
    let vectors = sampler.list(3, |s| (s.choose(&names).to_owned(), s.list(5, |s| s.float() as f32)));
    let payload = if sampler.one_in(2) { sampler.object(3) } else { sampler.payload(schema) };
    Point { id: sampler.id(), vectors: vectors.into_iter().collect(), payload }
}

fn command(sampler: &mut Sampler) -> Command {
    let schema = schema(sampler);
    let change = match sampler.below(6) {
        0 | 1 => Change::Upsert(sampler.list(6, |s| point(s, &schema))),
        2 => Change::Delete(sampler.list(9, Sampler::id)),
        3 => Change::DeleteByFilter(sampler.filter(&schema, &[], 2)),
        _ => Change::UpdatePayload {
            target: if sampler.one_in(2) {
                Target::Ids(sampler.list(9, Sampler::id))
            } else {
                Target::Filter(sampler.filter(&schema, &[], 2))
            },
            change: match sampler.below(3) {
                0 => PayloadChange::Merge(sampler.object(2)),
                1 => PayloadChange::Replace(sampler.object(2)),
                _ => PayloadChange::Delete(sampler.list(3, |s| field_path(s.choose::<&str>(&PATHS)))),
            },
        },
    };
    let after = if sampler.one_in(3) { Some(sampler.id()) } else { None };
    Command { request_id: u128::from(sampler.below(1000) as u64) << 100 | 7, after, change: change.into() }
}

fn outcome(sampler: &mut Sampler) -> WriteOutcome {
    let problem = |s: &mut Sampler| Problem {
        kind: s.choose(&[
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Denied,
            ErrorKind::Overloaded,
            ErrorKind::Unavailable,
            ErrorKind::Corrupt,
            ErrorKind::Internal,
        ]),
        message: s.text(),
        violations: s.list(2, |s| Violation::new(s.text(), s.text())),
    };
    WriteOutcome {
        index: sampler.below(1 << 40) as u64,
        applied: sampler.below(1000) as u64,
        failures: sampler.list(3, |s| ItemFailure { index: s.below(500), id: s.id(), problem: problem(s) }),
        failed: sampler.below(10) as u64,
        refused: if sampler.one_in(3) { Some(problem(sampler)) } else { None },
        resume_after: if sampler.one_in(3) { Some(sampler.id()) } else { None },
        deduplicated: false,
    }
}

/// What is written reads back, equal values have equal bytes, and no other bytes pass for a record.
fn check<R: Record + PartialEq + Debug>(record: &R, sampler: &mut Sampler, seed: u64) {
    let sealed = record.to_sealed();
    let again = R::from_sealed(&sealed).unwrap_or_else(|error| panic!("seed {seed}: {error}: {record:?}"));
    assert_eq!(again, *record, "seed {seed}");
    assert_eq!(again.to_sealed(), sealed, "seed {seed}");

    // Every truncation, of short records; some of long ones.
    for len in (0..sealed.len()).filter(|len| sealed.len() < 300 || len % 37 == 0) {
        assert!(R::from_sealed(&sealed[..len]).is_err(), "seed {seed}, first {len} bytes");
    }
    let mut flipped = sealed.clone();
    let at = sampler.below(sealed.len());
    flipped[at] ^= 1 << sampler.below(8);
    assert!(R::from_sealed(&flipped).is_err(), "seed {seed}, byte {at} flipped");

    // The same without the checksum's protection: anything may come out, but nothing may panic or eat memory.
    let body = &sealed[1..sealed.len() - 8];
    for len in (0..body.len()).filter(|len| body.len() < 300 || len % 37 == 0) {
        let mut reader = Reader::new(&body[..len], R::NAME);
        assert!(R::decode(&mut reader).is_err(), "seed {seed}, body cut at {len}");
    }
    let mut body = body.to_vec();
    for _ in 0..20 {
        let at = sampler.below(body.len());
        body[at] = sampler.below(256) as u8;
        let mut reader = Reader::new(&body, R::NAME);
        if let Ok(other) = R::decode(&mut reader) {
            let _ = other.to_sealed();
        }
    }
}

#[test]
fn records_read_back_and_nothing_else_passes_for_one() {
    for seed in 0..SEEDS {
        let mut sampler = Sampler::new(seed);
        let sampler = &mut sampler;
        check(&schema(sampler), sampler, seed);
        check(&command(sampler), sampler, seed);
        check(&outcome(sampler), sampler, seed);
        let schema = schema(sampler);
        check::<Filter>(&sampler.filter(&schema, &[], 3), sampler, seed);
    }
}

#[test]
fn random_bytes_never_panic() {
    for seed in 0..20_000 {
        let mut sampler = Sampler::new(seed);
        // Small bytes are more often meaningful.
        let most = sampler.choose(&[4, 8, 256]);
        let bytes = sampler.list(60, |s| s.below(most) as u8);
        let reader = || Reader::new(&bytes, "test");
        let _ = Command::decode(&mut reader());
        let _ = WriteOutcome::decode(&mut reader());
        let _ = Filter::decode(&mut reader());
        let _ = Schema::decode(&mut reader());
        let _ = PayloadRef::new(&bytes).select(&Projection::only(&[field_path("a.b"), field_path("c")]));
        if let Ok(value) = Value::decode(&mut reader()) {
            let mut writer = Writer::new();
            value.encode(&mut writer);
            assert!(bytes.starts_with(&writer.into_bytes()), "seed {seed}: one encoding of each value");
        }
        assert!(Command::from_sealed(&bytes).is_err(), "seed {seed}");
    }
}

#[test]
fn lengths_and_depths_are_bounded_before_they_are_believed() {
    // A list, a text and a batch that claim to have 2^62 entries.
    let mut huge = Writer::new();
    huge.u64(1 << 62);
    let huge = huge.into_bytes();
    assert!(Object::decode(&mut Reader::new(&huge, "test")).is_err());
    assert!(String::decode(&mut Reader::new(&huge, "test")).is_err());
    assert!(Filter::decode(&mut Reader::new(&huge, "test")).is_err());

    let nested = |depth: usize| {
        let mut value = Value::Null;
        for _ in 0..depth {
            value = Value::Array(vec![value]);
        }
        let mut writer = Writer::new();
        value.encode(&mut writer);
        writer.into_bytes()
    };
    assert!(Value::decode(&mut Reader::new(&nested(64), "test")).is_ok());
    let error = Value::decode(&mut Reader::new(&nested(65), "test")).expect_err("too deep");
    assert!(error.reason.contains("deep"), "{error}");
    // Deep enough to end a stack, if it were descended into.
    assert!(Value::decode(&mut Reader::new(&[6, 1].repeat(1 << 20), "test")).is_err());
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let mut writer = Writer::sealed(Schema::FORMAT + 1);
    Schema::default().encode(&mut writer);
    let error = Schema::from_sealed(&writer.seal()).expect_err("newer");
    assert_eq!(
        error.to_string(),
        "a collection schema cannot be read: its format is newer than this version of the program (at byte 0)"
    );
}

#[test]
fn numbers_have_one_encoding() {
    for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        let mut writer = Writer::new();
        writer.u64(n);
        writer.i64(n as i64);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes, "test");
        assert_eq!((reader.u64(), reader.i64()), (Ok(n), Ok(n as i64)));
    }
    for bad in [&[0x80, 0x00][..], &[0xff; 10], &[0x80; 11], &[0x80], &[]] {
        assert!(Reader::new(bad, "test").u64().is_err(), "{bad:?}");
    }
}

#[test]
fn point_records_keep_version_and_payload_and_vectors_every_bit() {
    let mut buffer = Vec::new();
    for seed in 0..SEEDS {
        let mut sampler = Sampler::new(seed);
        let (version, payload) = (sampler.below(1 << 50) as u64, sampler.object(4));
        PointRecord::write(version, &payload, &mut buffer);
        let record = PointRecord::read(&buffer).expect("reads back");
        assert_eq!((record.version, record.payload.decode()), (version, Ok(payload)), "seed {seed}");
        for len in 0..buffer.len() {
            assert!(PointRecord::read(&buffer[..len]).is_err(), "seed {seed}, first {len} bytes");
        }

        let vector = sampler.list(40, |s| f32::from_bits(s.0.next_u32()));
        let mut bytes = Vec::new();
        write_vector(&vector, &mut bytes);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read_vector(&bytes, vector.len()).expect("reads back")), bits(&vector), "seed {seed}");
        let mut out = vec![0.0; vector.len()];
        assert_eq!(read_vector_into(&bytes, &mut out), Ok(()));
        assert_eq!(bits(&out), bits(&vector), "seed {seed}");
        assert!(
            read_vector(&bytes, vector.len() + 1).is_err()
                && read_vector(&bytes[..bytes.len().saturating_sub(1)], vector.len()).is_err()
                || vector.is_empty()
        );
    }
}

#[test]
fn selecting_from_encoded_payloads_equals_selecting_from_decoded_ones() {
    for seed in 0..SEEDS * 10 {
        let mut sampler = Sampler::new(seed);
        let payload = sampler.object(4);
        let paths = sampler.list(4, |s| field_path(s.choose(&["a", "b", "a.b", "a.b.c", "c.d", "c", "d.a", "e.e"])));
        let mut writer = Writer::new();
        payload.encode(&mut writer);
        let bytes = writer.into_bytes();
        for selection in [
            PayloadSelection::None,
            PayloadSelection::All,
            PayloadSelection::Include(paths.clone()),
            PayloadSelection::Exclude(paths.clone()),
        ] {
            let projection = Projection::from(&selection);
            let selected = PayloadRef::new(&bytes).select(&projection).expect("well-formed");
            assert_eq!(selected, projection.apply(&payload), "seed {seed}, {selection:?} of {payload:?}");
            check_selection(&selection, &payload, &selected, &format!("seed {seed}, {selection:?} of {payload:?}"));
        }
    }
}

/// What a selection means, in terms of what paths reach.
fn check_selection(selection: &PayloadSelection, payload: &Object, selected: &Object, what: &str) {
    let reached = |path: &FieldPath, object: &Object| {
        let mut found = Vec::new();
        let _ = path.visit(object, &mut |value| {
            // Lists within lists are values that paths do not go into.
            if !matches!(value, Value::Array(_)) {
                found.push(value.clone());
            }
            ControlFlow::Continue(())
        });
        found
    };
    match selection {
        PayloadSelection::None => assert!(selected.is_empty()),
        PayloadSelection::All => assert_eq!(selected, payload),
        PayloadSelection::Include(paths) => {
            for path in paths {
                assert_eq!(reached(path, selected), reached(path, payload), "{path} in {selected:?}: {what}");
            }
        }
        PayloadSelection::Exclude(paths) => {
            let mut expected = payload.clone();
            paths.iter().for_each(|path| path.remove(&mut expected));
            assert_eq!(*selected, expected, "{what}");
        }
    }
}

fn golden_command() -> Command {
    let mut payload = Object::new();
    payload.insert("n".into(), Value::Int(-3));
    payload.insert("s".into(), "é".into());
    payload.insert("v".into(), Value::Array(vec![Value::Null, true.into(), 0.5.into()]));
    let vectors = [("v".to_owned(), vec![1.0, -2.0])].into();
    let point = Point { id: PointId::Num(300), vectors, payload };
    Command { request_id: 1, after: Some(PointId::Uuid(2)), change: Change::Upsert(vec![point]).into() }
}

fn filter_of_format_1() -> Filter {
    let field = |path: &str, test| Condition::Field { path: field_path(path), test };
    let numbers = Bounds { lower: Some((Number::Int(-1), true)), upper: Some((Number::Float(2.5), false)) };
    let moments = Bounds { lower: None, upper: Some((1_000_000, false)) };
    Filter {
        must: vec![
            field("s", Test::Match(Scalar::String("é".into()))),
            field("n", Test::Any(vec![Scalar::Int(300), Scalar::Bool(true), Scalar::Bool(false)])),
        ],
        should: vec![
            field("n", Test::Range(Range::Number(numbers))),
            field("t", Test::Range(Range::Datetime(moments))),
        ],
        must_not: vec![
            Condition::Filter(Box::new(Filter { must: vec![field("a.b", Test::Exists)], ..Filter::default() })),
            field("a.b", Test::IsNull),
            Condition::has_id(vec![PointId::Num(1), PointId::Uuid(2)]),
        ],
    }
}

/// As [`filter_of_format_1`], and what format 2 has beyond it, as far in as it may be.
fn filter_of_format_2() -> Filter {
    let prefix = Condition::Field { path: field_path("s"), test: Test::Prefix("é".into()) };
    let inner = Filter { must_not: vec![prefix], ..Filter::default() };
    let mut filter = filter_of_format_1();
    filter.should.push(Condition::Filter(Box::new(inner)));
    filter
}

/// As [`filter_of_format_2`], and what format 3 has beyond it.
fn filter_of_format_3() -> Filter {
    let count = |bounds| Condition::Field { path: field_path("s"), test: Test::ValuesCount(bounds) };
    let inner = Filter {
        must: vec![count(Bounds { lower: Some((300, true)), upper: None })],
        should: vec![count(Bounds { lower: Some((0, false)), upper: Some((u64::MAX, false)) })],
        must_not: vec![count(Bounds { lower: None, upper: Some((1, true)) })],
    };
    let mut filter = filter_of_format_2();
    filter.must_not.push(Condition::Filter(Box::new(inner)));
    filter
}

fn by_filter(filter: Filter) -> [Command; 2] {
    let update = Change::UpdatePayload {
        target: Target::Filter(filter.clone()),
        change: PayloadChange::Delete(vec![field_path("a.b")]),
    };
    [Change::DeleteByFilter(filter), update].map(|change| Command { request_id: 1, after: None, change: change.into() })
}

/// The bytes of a format never change, and every later version reads them: a new format gets bytes of its own beside
/// these.
fn keeps_its_bytes<R: Record + PartialEq + Debug>(record: &R, format: u8, golden: &str) {
    let bytes = record.to_sealed();
    assert_eq!(bytes[0], format, "{record:?}");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden, "{record:?}");
    assert_eq!(R::from_sealed(&bytes).as_ref(), Ok(record));
}

#[test]
fn format_1_has_these_bytes() {
    let mut schema = Schema::default();
    schema.vectors.insert("v".into(), VectorSpec { dim: 384, metric: Metric::L2, index: IndexPolicy::Graph });
    schema.fields.insert(field_path("a.b"), sagitta_model::FieldType::Float);
    let filter = Filter { must_not: vec![Condition::has_id(vec![PointId::Num(1)])], ..Filter::default() };
    let outcome = WriteOutcome { index: 9, applied: 1, ..WriteOutcome::default() };
    keeps_its_bytes(&golden_command(), 1, GOLDEN_COMMAND);
    let [delete, update] = by_filter(filter_of_format_1());
    keeps_its_bytes(&delete, 1, GOLDEN_DELETE_BY_FILTER);
    keeps_its_bytes(&update, 1, GOLDEN_UPDATE_BY_FILTER);
    keeps_its_bytes(&schema, 1, GOLDEN_SCHEMA);
    keeps_its_bytes(&filter, 1, GOLDEN_FILTER);
    keeps_its_bytes(&outcome, 1, GOLDEN_OUTCOME);
    let mut record = Vec::new();
    PointRecord::write(7, &Object::from([("k".to_owned(), Value::Bool(false))]), &mut record);
    assert_eq!(record.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), GOLDEN_POINT);
}

#[test]
fn format_2_of_commands_has_these_bytes() {
    let [delete, update] = by_filter(filter_of_format_2());
    keeps_its_bytes(&delete, 2, GOLDEN_DELETE_BY_FILTER_2);
    keeps_its_bytes(&update, 2, GOLDEN_UPDATE_BY_FILTER_2);
    keeps_its_bytes(&filter_of_format_2(), 2, GOLDEN_FILTER_2);
}

#[test]
fn format_3_of_commands_has_these_bytes() {
    let [delete, update] = by_filter(filter_of_format_3());
    keeps_its_bytes(&delete, 3, GOLDEN_DELETE_BY_FILTER_3);
    keeps_its_bytes(&update, 3, GOLDEN_UPDATE_BY_FILTER_3);
    keeps_its_bytes(&filter_of_format_3(), 3, GOLDEN_FILTER_3);
}

#[test]
fn splits_have_these_bytes() {
    let split = Split { request_id: 1, at: 0x0102, right: 300 };
    keeps_its_bytes(&split, 4, GOLDEN_SPLIT);
    let mut earlier = Writer::sealed(3);
    split.encode(&mut earlier);
    let error = Split::from_sealed(&earlier.seal()).expect_err("another format");
    assert_eq!(error.reason, "it is not in the format of a split");
}

#[test]
fn entries_of_merges_have_these_bytes() {
    let Change::Upsert(points) = &*golden_command().change else { panic!("it has points") };
    let outcome = WriteOutcome { index: 9, applied: 1, ..WriteOutcome::default() };
    let range = HashRange { first: 0x0102, last: u64::MAX };
    let import = Import {
        merge: 300,
        step: 2,
        versions: points.iter().map(|_| 301).collect(),
        points: points.clone(),
        deleted: vec![PointId::Num(7)],
        requests: vec![RememberedRequest { id: 1, range, outcome }],
    };
    keeps_its_bytes(&MergeEntry::Freeze { merge: 300 }, 5, GOLDEN_FREEZE);
    keeps_its_bytes(&MergeEntry::Thaw { merge: 300 }, 5, GOLDEN_THAW);
    keeps_its_bytes(&MergeEntry::Import(import), 5, GOLDEN_IMPORT);
    keeps_its_bytes(&MergeEntry::Complete { merge: 300, step: 3, above: 301 }, 5, GOLDEN_COMPLETE);
    let mut earlier = Writer::sealed(4);
    MergeEntry::Freeze { merge: 300 }.encode(&mut earlier);
    let error = MergeEntry::from_sealed(&earlier.seal()).expect_err("another format");
    assert_eq!(error.reason, "it is not in the format of a merge");
}

#[test]
fn a_command_has_one_format_and_is_nonsense_in_any_other() {
    let [of_1, _] = by_filter(filter_of_format_1());
    let [of_2, _] = by_filter(filter_of_format_2());
    let [of_3, _] = by_filter(filter_of_format_3());
    for (command, other) in [
        (of_1.clone(), 2),
        (of_1, 3),
        (of_2.clone(), 1),
        (of_2, 3),
        (of_3.clone(), 1),
        (of_3, 2),
        (golden_command(), 2),
        (golden_command(), 3),
    ] {
        let mut writer = Writer::sealed(other);
        command.encode(&mut writer);
        let error = Command::from_sealed(&writer.seal()).expect_err("another format");
        assert_eq!(error.reason, "it is not in the oldest format that can hold it", "{command:?}");
    }
}

const GOLDEN_FREEZE: &str = "0500ac02552f1a995b31b0b8";
const GOLDEN_THAW: &str = "0501ac02bb9885e6c18ec9f1";
const GOLDEN_IMPORT: &str = "0502ac02020101760100ac020100020000803f000000c003016e030501730502c3a901760603000204000000000000e03fad0201000701010000000000000000000000000000000201000000000000ffffffffffffffff0901000000006e460f70c67aae39";
const GOLDEN_COMPLETE: &str = "0503ac0203ad02e98cfa651007da5f";
const GOLDEN_SPLIT: &str = "04010000000000000000000000000000000201000000000000ac027c9e884780f618d7";
const GOLDEN_COMMAND: &str = "0101000000000000000000000000000000010102000000000000000000000000000000000101760100ac020100020000803f000000c003016e030501730502c3a901760603000204000000000000e03f4c266d3f88368a06";
const GOLDEN_DELETE_BY_FILTER: &str = "0101000000000000000000000000000000000202000173000302c3a900016e010302d80401000200016e020202010104000000000000044000017403000180897a0302010003612e620400000003612e62050102000101020000000000000000000000000000009c11e87f902705f3";
const GOLDEN_UPDATE_BY_FILTER: &str = "010100000000000000000000000000000000030102000173000302c3a900016e010302d80401000200016e020202010104000000000000044000017403000180897a0302010003612e620400000003612e6205010200010102000000000000000000000000000000020103612e626fc8fa8175d1cd92";
const GOLDEN_DELETE_BY_FILTER_2: &str = "0201000000000000000000000000000000000202000173000302c3a900016e010302d80401000300016e020202010104000000000000044000017403000180897a020000010001730602c3a90302010003612e620400000003612e6205010200010102000000000000000000000000000000214f8f43ea65f9b1";
const GOLDEN_UPDATE_BY_FILTER_2: &str = "020100000000000000000000000000000000030102000173000302c3a900016e010302d80401000300016e020202010104000000000000044000017403000180897a020000010001730602c3a90302010003612e620400000003612e6205010200010102000000000000000000000000000000020103612e628a095e5a07f8e506";
const GOLDEN_FILTER_2: &str = "0202000173000302c3a900016e010302d80401000300016e020202010104000000000000044000017403000180897a020000010001730602c3a90302010003612e620400000003612e6205010200010102000000000000000000000000000000f441bd4db3b1b1c6";
const GOLDEN_DELETE_BY_FILTER_3: &str = "0301000000000000000000000000000000000202000173000302c3a900016e010302d80401000300016e020202010104000000000000044000017403000180897a020000010001730602c3a90402010003612e620400000003612e620501020001010200000000000000000000000000000002010001730702ac02000100017307010001ffffffffffffffffff010100017307000201d1aea9cba11657ff";
const GOLDEN_UPDATE_BY_FILTER_3: &str = "030100000000000000000000000000000000030102000173000302c3a900016e010302d80401000300016e020202010104000000000000044000017403000180897a020000010001730602c3a90402010003612e620400000003612e620501020001010200000000000000000000000000000002010001730702ac02000100017307010001ffffffffffffffffff010100017307000201020103612e629909b5993e7fd090";
const GOLDEN_FILTER_3: &str = "0302000173000302c3a900016e010302d80401000300016e020202010104000000000000044000017403000180897a020000010001730602c3a90402010003612e620400000003612e620501020001010200000000000000000000000000000002010001730702ac02000100017307010001ffffffffffffffffff010100017307000201aa4c618e202c849c";
const GOLDEN_SCHEMA: &str = "01010176800302020103612e62022438b46c8027f944";
const GOLDEN_FILTER: &str = "01000001010100017d7480717df285c2";
const GOLDEN_OUTCOME: &str = "01090100000000f1337c286e459db2";
const GOLDEN_POINT: &str = "010701016b0129197391725332b3";
