//! Real embeddings with filters and published exact answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sagitta_model::filter::{Bounds, Number};
use sagitta_model::{Condition, FieldType, Filter, Metric, Object, Range, Scalar, Test, Value};

use crate::files::{Matrix, json_lines, npy};
use crate::truth::similarity;

/// Points, queries and what is asked of them.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) metric: Metric,
    pub(crate) base: Matrix<f32>,
    pub(crate) payloads: Vec<Object>,
    pub(crate) fields: Vec<(&'static str, FieldType)>,
    queries: Matrix<f32>,
    pub(crate) cases: Vec<Case>,
}

/// A filter, or none.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) filter: Option<Arc<Filter>>,
    /// For each query the nearest rows, best first, where they were published.
    pub(crate) published: Option<Matrix<i32>>,
}

impl Set {
    pub(crate) fn query(&self, at: usize) -> &[f32] {
        &self.queries.values[at * self.queries.columns..][..self.queries.columns]
    }

    pub(crate) fn queries(&self) -> usize {
        self.queries.rows().len()
    }
}

/// The folder of the full sets, if there is one.
fn full() -> Option<PathBuf> {
    let folder = std::env::var_os("SAGITTA_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("SAGITTA_DATA is not set: on the repository's sample instead of 100,000 rows");
    }
    folder
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")
}

/// Sentence embeddings of documentation under the inner product. The filters of one source are correlated with the vectors, the
/// range of words is not.
pub(crate) fn text() -> Set {
    match full() {
        Some(folder) => text_of(&folder, "text384-100k", Metric::InnerProduct),
        None => text_of(&sample(), "text384-4k", Metric::InnerProduct),
    }
}

/// Descriptors of photographs under L2, queries of other photographs. Where they are not at hand, the sample's text under L2,
/// without published answers: its rows have the norm 1 only nearly, so the nearest differ here and there.
pub(crate) fn pictures() -> Set {
    match full() {
        Some(folder) => pictures_of(&folder),
        None => text_of(&sample(), "text384-4k", Metric::L2),
    }
}

fn text_of(folder: &Path, name: &'static str, metric: Metric) -> Set {
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    let payload = |line: serde_json::Value| {
        let source = line["source"].as_str().expect("a source");
        let words = line["words"].as_i64().expect("a number of words");
        Object::from([("source".to_owned(), source.into()), ("words".to_owned(), words.into())])
    };
    let filters = std::fs::read(file("filters.json")).expect("the filters");
    let filters: serde_json::Value = serde_json::from_slice(&filters).expect("JSON");
    let published = |truth: &str| (metric == Metric::InnerProduct).then(|| npy(&file(truth)));
    let mut cases = vec![Case { name: "all rows", filter: None, published: published("gt.ids.npy") }];
    for (key, name) in [("filter1", "1 % by source"), ("filter10", "10 % by source"), ("filter50", "50 % by words")] {
        let published = published(&format!("gt.{key}.ids.npy"));
        cases.push(Case { name, filter: Some(only(condition(&filters[key]))), published });
    }
    Set {
        name,
        metric,
        base: npy(&file("base.f16.npy")),
        payloads: json_lines(&file("payload.jsonl.gz")).map(payload).collect(),
        fields: vec![("source", FieldType::Keyword), ("words", FieldType::Integer)],
        queries: npy(&file("query.f32.npy")),
        cases,
    }
}

fn condition(described: &serde_json::Value) -> Condition {
    let bound = |name| described["range"][name].as_i64().map(|n| (Number::Int(n), true));
    let test = match described["match"].as_str() {
        Some(text) => Test::Match(Scalar::String(text.to_owned())),
        None => Test::Range(Range::Number(Bounds { lower: bound("gte"), upper: bound("lte") })),
    };
    Condition::Field { path: described["key"].as_str().and_then(|key| key.parse().ok()).expect("a path"), test }
}

fn only(condition: Condition) -> Arc<Filter> {
    Arc::new(Filter { must: vec![condition], ..Filter::default() })
}

fn pictures_of(folder: &Path) -> Set {
    const NAME: &str = "sift128-100k";
    let file = |end: &str| folder.join(format!("{NAME}.{end}"));
    let base: Matrix<f32> = npy(&file("base.u8.npy"));
    // The descriptors come without payload. One field has to do with the vectors: how near they are to the first one.
    let mut order: Vec<usize> = (0..base.rows().len()).collect();
    let near: Vec<f32> =
        base.rows().map(|row| similarity(Metric::L2, row, base.rows().next().expect("rows"))).collect();
    order.sort_by(|&a, &b| near[b].total_cmp(&near[a]));
    let mut rank = vec![0i64; order.len()];
    order.iter().enumerate().for_each(|(at, &row)| rank[row] = at as i64);
    let payload = |(row, rank): (usize, i64)| -> Object {
        [("hundredth", row as i64 % 100), ("half", row as i64 % 2), ("rank", rank)]
            .map(|(name, n)| (name.to_owned(), Value::Int(n)))
            .into()
    };
    let number = |field: &str, n| {
        only(Condition::Field { path: field.parse().expect("a path"), test: Test::Match(Scalar::Int(n)) })
    };
    let nearest = Bounds { lower: None, upper: Some((Number::Int(order.len() as i64 / 10), false)) };
    let nearest =
        only(Condition::Field { path: "rank".parse().expect("a path"), test: Test::Range(Range::Number(nearest)) });
    let case = |name, filter| Case { name, filter: Some(filter), published: None };
    Set {
        name: NAME,
        metric: Metric::L2,
        payloads: rank.into_iter().enumerate().map(payload).collect(),
        base,
        fields: ["hundredth", "half", "rank"].map(|name| (name, FieldType::Integer)).into(),
        queries: npy(&file("query.u8.npy")),
        cases: vec![
            Case { name: "all rows", filter: None, published: Some(npy(&file("gt.ids.npy"))) },
            case("1 % by chance", number("hundredth", 7)),
            case("10 % that are near each other", nearest),
            case("50 % by chance", number("half", 1)),
        ],
    }
}
