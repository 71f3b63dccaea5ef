use proptest::prelude::*;

use super::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Value::Float),
        ".*".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(".*", inner, 0..6).prop_map(Value::Object),
        ]
    })
}

proptest! {
    #[test]
    fn values_survive_a_trip_through_json(value in value()) {
        let text = serde_json::to_string(&Json(&value)).expect("serialises");
        prop_assert_eq!(parse_value(&text), Ok(value), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        let _ = parse_value(&text);
        let _ = parse_row(text.as_bytes(), &ReadOptions::default());
    }
}

#[test]
fn errors_say_where_in_a_value_they_are() {
    for (text, expected) in [
        ("", "line: expected whole JSON"),
        ("[1, {\"a\": [tru]}]", "[1].a[0]: expected valid JSON"),
        ("{\"a\": 18446744073709551615}", "a: expected an integer up to"),
    ] {
        let error = parse_value(text).expect_err("refused");
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}
