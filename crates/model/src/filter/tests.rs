use super::*;
use crate::schema::VectorSpec;
use crate::{IndexPolicy, Metric};

fn payload() -> Object {
    let mut payload = Object::new();
    payload.insert("source".into(), "rust-docs".into());
    payload.insert("words".into(), 50.into());
    payload.insert("score".into(), 0.5.into());
    payload.insert("draft".into(), false.into());
    payload.insert("when".into(), "2026-01-01T00:00:00Z".into());
    payload.insert("tags".into(), Value::Array(vec!["a".into(), "b".into()]));
    payload.insert("gone".into(), Value::Null);
    payload.insert("none".into(), Value::Array(Vec::new()));
    payload.insert("nulls".into(), Value::Array(vec![Value::Null, "a".into(), Value::Null]));
    payload
}

fn field(path: &str, test: Test) -> Condition {
    Condition::Field { path: path.parse().expect("valid path"), test }
}

fn text(s: &str) -> Scalar {
    Scalar::String(s.to_owned())
}

fn counting(path: &str, lower: Option<(u64, bool)>, upper: Option<(u64, bool)>) -> Condition {
    field(path, Test::ValuesCount(Bounds { lower, upper }))
}

fn between(lower: Number, upper: Number) -> Test {
    Test::Range(Range::Number(Bounds { lower: Some((lower, true)), upper: Some((upper, false)) }))
}

#[test]
fn each_test_means_what_its_documentation_says() {
    let yes = [
        field("source", Test::Match(text("rust-docs"))),
        field("tags", Test::Match(text("b"))),
        field("words", Test::Match(Scalar::Int(50))),
        field("draft", Test::Match(Scalar::Bool(false))),
        field("tags", Test::Any(vec![text("x"), text("a")])),
        field("words", between(Number::Int(50), Number::Int(51))),
        field("score", between(Number::Float(0.5), Number::Int(1))),
        field("when", Test::Range(Range::Datetime(Bounds { lower: Some((0, true)), upper: None }))),
        field("source", Test::Prefix("rust-".to_owned())),
        field("source", Test::Prefix("rust-docs".to_owned())),
        field("source", Test::Prefix(String::new())),
        field("tags", Test::Prefix("b".to_owned())),
        field("source", Test::Exists),
        field("gone", Test::IsNull),
        counting("tags", Some((2, true)), Some((2, true))),
        counting("tags", Some((1, false)), Some((3, false))),
        counting("source", Some((1, true)), None),
        counting("score", None, Some((1, true))),
        counting("gone", None, Some((0, true))),
        counting("none", None, Some((1, false))),
        counting("missing", Some((0, true)), None),
        counting("nulls", Some((3, true)), Some((3, true))),
        Condition::has_id(vec![PointId::Num(9), PointId::Num(7)]),
    ];
    let no = [
        field("source", Test::Match(text("rust"))),
        field("words", Test::Match(text("50"))),
        field("words", between(Number::Int(49), Number::Int(50))),
        field("source", Test::Prefix("Rust".to_owned())),
        field("source", Test::Prefix("docs".to_owned())),
        field("source", Test::Prefix("rust-docs-".to_owned())),
        field("words", Test::Prefix("5".to_owned())),
        field("gone", Test::Prefix(String::new())),
        field("missing", Test::Prefix(String::new())),
        field("gone", Test::Exists),
        field("none", Test::Exists),
        field("missing", Test::Exists),
        field("missing", Test::IsNull),
        field("source", Test::IsNull),
        field("tags", Test::Any(Vec::new())),
        counting("tags", Some((2, false)), None),
        counting("tags", None, Some((2, false))),
        counting("source", Some((1, false)), None),
        counting("gone", Some((0, false)), None),
        counting("none", Some((1, true)), None),
        counting("missing", Some((1, true)), Some((u64::MAX, true))),
        counting("tags", Some((2, true)), Some((1, true))),
        Condition::has_id(vec![PointId::Num(8), PointId::Uuid(7)]),
    ];
    for condition in &yes {
        assert!(condition.matches(PointId::Num(7), &payload()), "{condition:?}");
    }
    for condition in &no {
        assert!(!condition.matches(PointId::Num(7), &payload()), "{condition:?}");
    }
}

#[test]
fn must_should_and_must_not_combine() {
    let yes = || field("source", Test::Exists);
    let no = || field("missing", Test::Exists);
    let cases = [
        (vec![], vec![], vec![], true),
        (vec![yes(), yes()], vec![], vec![], true),
        (vec![yes(), no()], vec![], vec![], false),
        (vec![], vec![no(), yes()], vec![], true),
        (vec![], vec![no()], vec![], false),
        (vec![], vec![], vec![no()], true),
        (vec![yes()], vec![yes()], vec![no(), yes()], false),
    ];
    for (must, should, must_not, expected) in cases {
        let filter = Filter { must, should, must_not };
        assert_eq!(filter.matches(PointId::Num(7), &payload()), expected, "{filter:?}");
        let nested = Filter { must: vec![Condition::Filter(Box::new(filter))], ..Filter::default() };
        assert_eq!(nested.matches(PointId::Num(7), &payload()), expected);
    }
}

#[test]
fn integers_and_floats_compare_without_rounding() {
    let big = 1i64 << 53;
    assert!(Number::Int(big + 1) > Number::Float(big as f64));
    assert!(Number::Float(big as f64) < Number::Int(big + 1));
    assert!(Number::Int(i64::MAX) < Number::Float(9.3e18));
    assert!(Number::Int(i64::MIN) > Number::Float(-9.3e18));
    assert!(Number::Int(i64::MIN).same(Number::Float(i64::MIN as f64)));
    assert!(Number::Int(-1) > Number::Float(-1.5) && Number::Int(1) < Number::Float(1.5));
    assert!(Number::Int(0).same(Number::Float(-0.0)));
    assert_eq!(Number::Int(0).partial_cmp(&Number::Float(f64::NAN)), None);
    let three = Bounds { lower: Some((Number::Float(3.0), true)), upper: Some((Number::Int(3), true)) };
    assert!(three.contain(&Number::Int(3)) && three.contain(&Number::Float(3.0)));
}

#[test]
fn validation_names_the_condition_and_lists_the_declared_fields() {
    let mut schema = Schema::default();
    schema.vectors.insert("default".into(), VectorSpec { dim: 2, metric: Metric::L2, index: IndexPolicy::Auto });
    schema.fields.insert("words".parse().expect("path"), FieldType::Integer);
    let check = |condition: Condition| {
        let filter = Filter { must: vec![field("words", Test::Exists), condition], ..Filter::default() };
        filter.validate(&schema).map_err(|violation| violation.to_string())
    };
    assert_eq!(check(field("words", between(Number::Int(1), Number::Int(2)))), Ok(()));
    let unknown = check(field("colour", Test::Exists)).expect_err("undeclared");
    assert!(
        unknown.starts_with("must[1].field: ") && unknown.contains("colour") && unknown.contains("words"),
        "{unknown}"
    );
    let mistyped = check(field("words", Test::Match(text("x")))).expect_err("mistyped");
    assert!(mistyped.starts_with("must[1].match: ") && mistyped.contains("integer"), "{mistyped}");
    let mistyped = check(field("words", Test::Prefix("5".to_owned()))).expect_err("mistyped");
    assert!(mistyped.starts_with("must[1].prefix: ") && mistyped.contains("integer"), "{mistyped}");
    assert_eq!(check(counting("words", None, Some((0, true)))), Ok(()));
    let unbounded = check(counting("words", None, None)).expect_err("unbounded");
    assert!(unbounded.starts_with("must[1].values_count: has no bound"), "{unbounded}");

    let mut deep = Filter::default();
    for _ in 0..limits::MAX_FILTER_DEPTH {
        deep = Filter { should: vec![Condition::Filter(Box::new(deep))], ..Filter::default() };
    }
    let too_deep = deep.validate(&schema).expect_err("too deep").to_string();
    assert!(too_deep.contains("levels deep"), "{too_deep}");
    let wide =
        Filter { must: vec![field("words", Test::Exists); limits::MAX_FILTER_CONDITIONS + 1], ..Filter::default() };
    assert!(wide.validate(&schema).is_err());
}
