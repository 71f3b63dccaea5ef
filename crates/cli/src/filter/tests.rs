use proptest::prelude::*;
use sagitta_model::filter::Bounds;
use sagitta_model::value::{Object, Value};
use sagitta_model::{FieldPath, Number, PointId, Range, Scalar, Test};

use super::*;

fn field(path: &str, test: Test) -> Condition {
    Condition::Field { path: path.parse().expect("a path"), test }
}

fn text(text: &str) -> Scalar {
    Scalar::String(text.to_owned())
}

fn prefix(path: &str, text: &str) -> Condition {
    field(path, Test::Prefix(text.to_owned()))
}

fn counting(path: &str, lower: Option<(u64, bool)>, upper: Option<(u64, bool)>) -> Condition {
    field(path, Test::ValuesCount(Bounds { lower, upper }))
}

fn all(must: Vec<Condition>) -> Filter {
    Filter { must, ..Filter::default() }
}

fn at_least(n: i64) -> Test {
    Test::Range(Range::Number(Bounds { lower: Some((Number::Int(n), true)), upper: None }))
}

#[test]
fn the_short_form_means_what_it_says() {
    let source = || field("source", Test::Match(text("rust-docs")));
    let words = || field("words", at_least(50));
    let cases = [
        ("source = \"rust-docs\"", all(vec![source()])),
        ("source == 'rust-docs' AND words >= 50", all(vec![source(), words()])),
        ("source = 'rust-docs' or words >= 50", Filter { should: vec![source(), words()], ..Filter::default() }),
        (
            "words >= 50 and (source = 'rust-docs' or words >= 50)",
            Filter { must: vec![words()], should: vec![source(), words()], ..Filter::default() },
        ),
        (
            "source = 'rust-docs' and words >= 50 or words >= 50",
            Filter {
                should: vec![Condition::Filter(Box::new(all(vec![source(), words()]))), words()],
                ..Filter::default()
            },
        ),
        ("source != 'rust-docs'", Filter { must_not: vec![source()], ..Filter::default() }),
        ("not not source = 'rust-docs'", all(vec![source()])),
        (
            "words >= 50 and not source = 'rust-docs'",
            Filter { must: vec![words()], must_not: vec![source()], ..Filter::default() },
        ),
        (
            "a.b-c in [1, 'x', true]",
            all(vec![field("a.b-c", Test::Any(vec![Scalar::Int(1), text("x"), Scalar::Bool(true)]))]),
        ),
        ("source starts with 'rust-'", all(vec![prefix("source", "rust-")])),
        (
            "starts STARTS With \"\" and with = 1",
            all(vec![prefix("starts", ""), field("with", Test::Match(Scalar::Int(1)))]),
        ),
        (
            "source not starts with 'rust-' or words >= 50",
            Filter {
                should: vec![
                    Condition::Filter(Box::new(Filter {
                        must_not: vec![prefix("source", "rust-")],
                        ..Filter::default()
                    })),
                    words(),
                ],
                ..Filter::default()
            },
        ),
        ("count(tags) >= 2", all(vec![counting("tags", Some((2, true)), None)])),
        (
            "COUNT ( `id` ) < 2 and count = 1 and count(count) > 0",
            all(vec![
                counting("id", None, Some((2, false))),
                field("count", Test::Match(Scalar::Int(1))),
                counting("count", Some((0, false)), None),
            ]),
        ),
        ("1 < count(a.b) <= 3", all(vec![counting("a.b", Some((1, false)), Some((3, true)))])),
        ("3 >= count(a)", all(vec![counting("a", None, Some((3, true)))])),
        ("count(a) = 0", all(vec![counting("a", Some((0, true)), Some((0, true)))])),
        (
            "count(a) != 1",
            Filter { must_not: vec![counting("a", Some((1, true)), Some((1, true)))], ..Filter::default() },
        ),
        (
            "not count(a) > 9223372036854775807",
            Filter { must_not: vec![counting("a", Some((i64::MAX as u64, false)), None)], ..Filter::default() },
        ),
        ("a not in []", Filter { must_not: vec![field("a", Test::Any(vec![]))], ..Filter::default() }),
        (
            "a exists and b is null and c is not null",
            all(vec![field("a", Test::Exists), field("b", Test::IsNull), field("c", Test::Exists)]),
        ),
        (
            "id in [7, \"01234567-89ab-cdef-0123-456789abcdef\"]",
            all(vec![Condition::has_id(vec![
                PointId::Num(7),
                PointId::Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            ])]),
        ),
        ("`id` = 7", all(vec![field("id", Test::Match(Scalar::Int(7)))])),
        (
            "when < '1970-01-01T00:00:01Z'",
            all(vec![field(
                "when",
                Test::Range(Range::Datetime(Bounds { lower: None, upper: Some((1_000_000, false)) })),
            )]),
        ),
        (
            "score = 0.5",
            all(vec![field(
                "score",
                Test::Range(Range::Number(Bounds {
                    lower: Some((Number::Float(0.5), true)),
                    upper: Some((Number::Float(0.5), true)),
                })),
            )]),
        ),
        (
            "1 <= words < 2.5",
            all(vec![field(
                "words",
                Test::Range(Range::Number(Bounds {
                    lower: Some((Number::Int(1), true)),
                    upper: Some((Number::Float(2.5), false)),
                })),
            )]),
        ),
        (
            "2 > words > 1",
            all(vec![field(
                "words",
                Test::Range(Range::Number(Bounds {
                    lower: Some((Number::Int(1), false)),
                    upper: Some((Number::Int(2), false)),
                })),
            )]),
        ),
        ("50 <= words", all(vec![words()])),
    ];
    for (short, expected) in cases {
        assert_eq!(parse(short), Ok(expected), "{short}");
    }
}

#[test]
fn errors_point_at_the_place_and_say_what_would_be_right() {
    let cases = [
        ("", 0, "expected a field, such as source = \"rust-docs\", found the end"),
        (
            "source",
            6,
            "expected =, !=, <, <=, >, >=, in, starts with, exists or is null after the field `source`, found the end",
        ),
        ("source = ", 9, "expected a value, found the end"),
        ("source = rust", 9, "`rust` is not a value; text goes in quotes: \"rust\""),
        ("source = \"rust", 9, "this quote is not closed: expected a second \""),
        ("source = 'a\\q'", 11, "expected \\\\, \\n, \\t or an escaped quote after a backslash"),
        ("words >= 50 words < 60", 12, "expected `and`, `or` or the end, found `words`"),
        ("words >= 50 and", 15, "expected a field, such as"),
        ("(words >= 50", 12, "expected `)` to close the group, found the end"),
        ("words >= 50)", 11, "expected `and`, `or` or the end, found `)`"),
        ("words in 50", 9, "expected `[` to begin the list, found the number 50"),
        ("words in [50 60]", 13, "expected `,` or `]` after a value of the list, found the number 60"),
        ("words > true", 8, "true and false have no order: use = or !="),
        ("words > 'much'", 8, "only numbers and times have an order; a time is written like"),
        (
            "when > 2026-01-01",
            7,
            "`2026-01-01` is neither a 64-bit integer nor a float; text, times and UUIDs go in quotes",
        ),
        ("words = 99999999999999999999", 8, "`99999999999999999999` is neither a 64-bit integer"),
        ("source starts 'rust'", 14, "expected `with` after `starts`, found the text \"rust\""),
        ("source starts with rust", 19, "expected text in quotes after `starts with`, found `rust`"),
        ("words starts with 5", 18, "expected text in quotes after `starts with`, found the number 5"),
        ("source not = 'rust'", 11, "expected `in` or `starts with`, found `=`"),
        ("id starts with '7'", 3, "expected =, !=, <, <=, >, >="),
        ("count(tags)", 11, "expected =, !=, <, <=, > or >= after a count, as in count(tags) >= 2, found the end"),
        ("count(tags) in [1]", 12, "expected =, !=, <, <=, > or >= after a count"),
        ("count(tags) exists", 12, "expected =, !=, <, <=, > or >= after a count"),
        ("count(tags >= 2", 11, "expected `)` after the field whose values are counted, found `>=`"),
        ("count() >= 2", 6, "expected a field, such as source = \"rust-docs\", found `)`"),
        ("count(tags) >= -1", 15, "a count is compared with a whole number from 0 on"),
        ("count(tags) = 1.5", 14, "a count is compared with a whole number from 0 on"),
        ("count(tags) < 'x'", 14, "a count is compared with a whole number from 0 on"),
        ("-1 < count(tags)", 0, "a count is compared with a whole number from 0 on"),
        ("1 < count(tags) < 2.5", 18, "a count is compared with a whole number from 0 on"),
        ("1 < count(tags) > 0", 16, "expected both signs to point the same way"),
        ("a is maybe", 5, "expected `null`, found `maybe`"),
        ("a..b = 1", 0, "`a..b` is not a field path"),
        ("id < 5", 3, "the point's id has =, != and in, but not <; a field called id is written `id` in backticks"),
        ("id = -1", 5, "expected an id, a number or a UUID in quotes, found the number -1"),
        ("source = 'x' && b = 1", 13, "`&` has no meaning here"),
        ("1 < words > 0", 10, "expected both signs to point the same way"),
        ("1 < words < 'x'", 12, "only numbers and times have an order"),
        ("1 < words < '2026-01-01T00:00:00Z'", 12, "expected two numbers or two times"),
        ("1 = words", 2, "expected <, <=, > or >= after a value that comes first"),
        ("größe = 1 und", 12, "expected `and`, `or` or the end, found `und`"),
    ];
    for (short, at, message) in cases {
        let error = parse(short).expect_err(short);
        assert_eq!(error.at, Some(at), "{short}: {error:?}");
        assert!(error.message.starts_with(message), "{short}: {}", error.message);
        assert!(short.is_char_boundary(at));
    }
    let deep = "(".repeat(100_000);
    assert!(parse(&deep).expect_err("deep").message.contains("nests deeper"));
}

#[test]
fn trees_mean_the_same() {
    let tree = r#"{
        "must": [{"field": "source", "match": "rust-docs"}, {"field": "words", "range": {"gte": 1, "lt": 2.5}}],
        "should": [{"field": "a", "any": [1, "x"]}, {"field": "b", "exists": true}, {"has_id": [7]},
                   {"field": "c", "prefix": "py"},
                   {"field": "e", "values_count": {"gt": 0, "lte": 3}}, {"field": "e", "values_count": {"gte": 7}}],
        "must_not": [{"filter": {"must": [{"field": "c", "is_null": true}, {"field": "d", "match": false}]}}]
    }"#;
    let short = "source = 'rust-docs' and 1 <= words < 2.5 and (a in [1, 'x'] or b exists or id in [7] or c starts with 'py' \
                 or 0 < count(e) <= 3 or count(e) >= 7) \
                 and not (c is null and d = false)";
    assert_eq!(parse(tree), parse(short));
    assert_eq!(parse("{}"), Ok(Filter::default()));
}

#[test]
fn errors_in_a_tree_carry_their_path() {
    let cases = [
        ("{\"must\": 3}", "must: expected a list, found integer"),
        ("{\"musst\": []}", "musst: expected must, should or must_not"),
        ("{\"must\": [3]}", "must[0]: expected a condition, an object with one of match"),
        ("{\"must\": [{\"field\": \"a\"}]}", "must[0]: expected exactly one of match"),
        ("{\"must\": [{\"match\": 1}]}", "must[0]: expected `field` with the name of the field"),
        ("{\"must\": [{\"field\": \"a\", \"match\": 1.5}]}", "must[0].match: floats have many spellings"),
        ("{\"must\": [{\"field\": \"a\", \"matches\": 1}]}", "must[0].matches: expected one of match"),
        ("{\"must\": [{\"field\": \"a\", \"prefix\": 3}]}", "must[0].prefix: expected the text that values begin with"),
        ("{\"must\": [{\"field\": \"a\", \"values_count\": 3}]}", "must[0].values_count: expected an object with gt"),
        ("{\"must\": [{\"field\": \"a\", \"values_count\": {}}]}", "must[0].values_count: expected at least one of gt"),
        (
            "{\"must\": [{\"field\": \"a\", \"values_count\": {\"gte\": -1}}]}",
            "must[0].values_count.gte: expected a count, a whole number from 0 on",
        ),
        (
            "{\"must\": [{\"field\": \"a\", \"values_count\": {\"lt\": 1.5}}]}",
            "must[0].values_count.lt: expected a count",
        ),
        (
            "{\"must\": [{\"field\": \"a\", \"values_count\": {\"lt\": 1, \"lte\": 1}}]}",
            "must[0].values_count.lte: this end of the range has two bounds",
        ),
        (
            "{\"must\": [{\"field\": \"a\", \"values_count\": {\"eq\": 1}}]}",
            "must[0].values_count.eq: expected gt, gte",
        ),
        ("{\"must\": [{\"field\": \"a\", \"exists\": false}]}", "must[0].exists: expected true"),
        ("{\"must\": [{\"field\": \"a\", \"range\": {}}]}", "must[0].range: expected at least one of gt"),
        (
            "{\"must\": [{\"field\": \"a\", \"range\": {\"gt\": 1, \"gte\": 2}}]}",
            "must[0].range.gte: this end of the range has two bounds",
        ),
        (
            "{\"must\": [{\"field\": \"a\", \"range\": {\"gt\": \"noon\"}}]}",
            "must[0].range.gt: expected a number or a time",
        ),
        ("{\"must\": [{\"field\": \"a\", \"has_id\": [1]}]}", "must[0]: has_id is not about a field"),
        ("{\"must\": [{\"has_id\": [1, -2]}]}", "must[0].has_id[1]: expected an id"),
        ("{\"must\": [{\"filter\": {\"should\": [{}]}}]}", "must[0].filter.should[0]: expected exactly one of match"),
        ("{\"must\": [}", "must[0]: expected valid JSON"),
    ];
    for (tree, message) in cases {
        let error = parse(tree).expect_err(tree);
        assert_eq!(error.at, None);
        assert!(error.message.starts_with(message), "{tree}: {}", error.message);
    }
}

/// Few fields and values, so that filters often pass.
fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        (-2..3i64).prop_map(Scalar::Int),
        any::<bool>().prop_map(Scalar::Bool),
        prop::sample::select(vec!["x", "it's \"q\"\\\n", "é"]).prop_map(text),
    ]
}

fn path() -> impl Strategy<Value = FieldPath> {
    prop::sample::select(vec!["a", "id", "not", "b.c", "odd name", "x`y", "9", "count"])
        .prop_map(|path| path.parse().expect("a path"))
}

fn number_bounds() -> impl Strategy<Value = Bounds<Number>> {
    let number =
        prop_oneof![(-2..3i64).prop_map(Number::Int), (-4..5i32).prop_map(|n| Number::Float(f64::from(n) / 2.0))];
    let bound = prop::option::of((number, any::<bool>()));
    (bound.clone(), bound)
        .prop_filter("one bound at least", |(lower, upper)| lower.is_some() || upper.is_some())
        .prop_map(|(lower, upper)| Bounds { lower, upper })
}

/// Also none at all, which the parser does not make, and counts greater than it reads.
fn count_bounds() -> impl Strategy<Value = Bounds<u64>> {
    let bound = prop::option::of((prop_oneof![5 => 0..4u64, 1 => Just(u64::MAX)], any::<bool>()));
    (bound.clone(), bound).prop_map(|(lower, upper)| Bounds { lower, upper })
}

fn condition_strategy() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        (path(), scalar()).prop_map(|(path, scalar)| Condition::Field { path, test: Test::Match(scalar) }),
        (path(), prop::collection::vec(scalar(), 0..3))
            .prop_map(|(path, any)| Condition::Field { path, test: Test::Any(any) }),
        (path(), number_bounds()).prop_map(|(path, b)| Condition::Field { path, test: Test::Range(Range::Number(b)) }),
        (path(), prop::sample::select(vec!["", "x", "it's \"", "é", "y"]))
            .prop_map(|(path, text)| Condition::Field { path, test: Test::Prefix(text.to_owned()) }),
        (path(), count_bounds()).prop_map(|(path, b)| Condition::Field { path, test: Test::ValuesCount(b) }),
        path().prop_map(|path| Condition::Field { path, test: Test::Exists }),
        path().prop_map(|path| Condition::Field { path, test: Test::IsNull }),
        prop::collection::vec(
            prop_oneof![(0..3u64).prop_map(PointId::Num), Just(PointId::Num(u64::MAX)), Just(PointId::Uuid(7))],
            0..3
        )
        .prop_map(Condition::has_id),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner, 0..3);
        (list.clone(), list.clone(), list)
            .prop_map(|(must, should, must_not)| Condition::Filter(Box::new(Filter { must, should, must_not })))
    })
}

fn payload() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (-2..3i64).prop_map(Value::Int),
        (-4..5i32).prop_map(|n| Value::Float(f64::from(n) / 2.0)),
        any::<bool>().prop_map(Value::Bool),
        prop::sample::select(vec!["x", "it's \"q\"\\\n", "é"]).prop_map(Value::from),
    ];
    let value = prop_oneof![leaf.clone(), prop::collection::vec(leaf.clone(), 0..3).prop_map(Value::Array)];
    let nested = prop::collection::btree_map(Just("c".to_owned()), leaf, 0..2).prop_map(Value::Object);
    let names = prop::sample::select(vec!["a", "id", "not", "odd name", "x`y", "9", "count"]).prop_map(str::to_owned);
    (prop::collection::btree_map(names, value, 0..5), nested).prop_map(|(mut fields, nested)| {
        fields.insert("b".to_owned(), nested);
        fields
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_printed_filter_parses_to_the_same_meaning(
        one in condition_strategy(),
        payloads in prop::collection::vec(payload(), 8),
    ) {
        let filter = only(one);
        let printed = print(&filter);
        let parsed = parse(&printed);
        prop_assert!(parsed.is_ok(), "{}: {:?}", printed, parsed);
        let parsed = parsed.expect("parsed");
        for payload in &payloads {
            for id in [PointId::Num(0), PointId::Num(u64::MAX), PointId::Uuid(7)] {
                prop_assert_eq!(parsed.matches(id, payload), filter.matches(id, payload), "{}", printed);
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-c0-9 ()\\[\\]=<>!,'\"`.{}:é-]{0,40}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.at.is_none_or(|at| text.is_char_boundary(at)));
        }
    }

    #[test]
    fn words_in_any_order_never_panic(words in prop::collection::vec(prop::sample::select(vec![
        "a", "id", "not", "and", "or", "in", "is", "null", "exists", "starts", "with", "count", "(", ")", "[", "]", ",", "=", "<", ">=", "1", "'t'", "true",
    ]), 0..12)) {
        let _ = parse(&words.join(" "));
    }
}
