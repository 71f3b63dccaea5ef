use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use sagitta_model::Metric;

use super::data::{Sample, Values};
use super::{Suite, prepare};
use crate::bitmap::Bitmap;
use crate::index::{
    BuildControl, Built, Candidate, IndexEngine, IndexError, IndexFile, IndexSpec, Never, PreparedQuery, RowSet,
    ScanParams, SearchParams, VectorIndex,
};

const DIM: usize = 40;

/// Rows of an index that is damaged: its files have several blocks.
const DAMAGED_ROWS: usize = 500;

/// Bytes flipped in each file, besides its first and last ones.
const FLIPS: usize = 60;

impl Suite<'_> {
    /// Vectors, queries and filters of the wrong shape are errors and nothing else.
    pub fn malformed_input_is_refused(&self) {
        let sample = Sample::new(self.rows(50), DIM, Values::Floats, 21);
        for (value, what) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinite"), (-1e30, "too large")] {
            let spoiled = sample.with_value(sample.len() / 2 * DIM, value);
            assert!(matches!(self.build(&spoiled, Metric::L2), Err(IndexError::Vector { .. })), "{what} value");
            assert!(matches!(PreparedQuery::new(Metric::L2, &[value]), Err(IndexError::Vector { .. })), "{what}");
        }
        let zeros = Sample::constant(self.rows(50), 1).with_value(3, 0.0);
        assert!(matches!(self.build(&zeros, Metric::Cosine), Err(IndexError::Vector { .. })), "zero under cosine");
        assert!(self.build(&zeros, Metric::L2).is_ok(), "zero under L2");
        let none = Sample::new(0, DIM, Values::Floats, 21);
        assert!(matches!(self.build(&none, Metric::L2), Err(IndexError::Spec { .. })), "no rows");

        let index = self.index(&sample, Metric::L2);
        let rows = sample.len();
        let query = prepare(Metric::L2, &sample.queries[0]);
        let params = SearchParams::new(3);
        let search = |query: &PreparedQuery, params: &SearchParams<'_>| index.search(query, params, &mut Vec::new());
        let longer = prepare(Metric::L2, &[1.0; DIM + 1]);
        assert!(matches!(search(&longer, &params), Err(IndexError::Dimension { expected: DIM, actual: 41 })));
        let cosine = prepare(Metric::Cosine, &sample.queries[0]);
        assert!(matches!(search(&cosine, &params), Err(IndexError::Metric { .. })));
        let allow = Some(&Bitmap::full(rows + 1));
        assert!(matches!(search(&query, &SearchParams { allow, ..params }), Err(IndexError::Bitmap { .. })));

        let outside = [0, rows as u32];
        let scan = |set| index.search_rows(&query, &ScanParams::new(3, set), &mut Vec::new());
        assert!(matches!(scan(RowSet::List(&outside)), Err(IndexError::Row { .. })));
        assert!(matches!(scan(RowSet::List(&[2, 1])), Err(IndexError::Row { .. })), "not ascending");
        assert!(matches!(scan(RowSet::Bitmap(&Bitmap::full(rows - 1))), Err(IndexError::Bitmap { .. })));
        assert!(matches!(index.similarities(&query, &outside, &mut Vec::new()), Err(IndexError::Row { .. })));
        assert!(matches!(index.read_row(rows as u32, &mut [0.0; DIM]), Err(IndexError::Row { .. })));
        assert!(matches!(index.read_row(0, &mut [0.0; DIM - 1]), Err(IndexError::Dimension { .. })));
    }

    /// Builds, searches and verifications give up when they are asked to.
    pub fn stopping_stops(&self) {
        let sample = Sample::new(self.rows(200), DIM, Values::Floats, 22);
        let stop = AtomicBool::new(true);
        let spec = IndexSpec::new(DIM, Metric::L2, self.kind);
        let control = BuildControl { threads: 1, stop: &stop, progress: &|_| () };
        let built = self.engine.build(&spec, sample.rows(), &self.folder(), &control);
        assert!(matches!(built, Err(IndexError::Stopped)));

        let index = self.index(&sample, Metric::L2);
        let query = prepare(Metric::L2, &sample.queries[0]);
        let params = SearchParams { stop: &stop, ..SearchParams::new(3) };
        assert!(matches!(index.search(&query, &params, &mut Vec::new()), Err(IndexError::Stopped)));
        let params = ScanParams { stop: &stop, ..ScanParams::new(3, RowSet::All) };
        assert!(matches!(index.search_rows(&query, &params, &mut Vec::new()), Err(IndexError::Stopped)));
        assert!(matches!(index.verify(&stop), Ok(false)));
    }

    /// With any byte flipped, an index does not open, or the searches that touch the byte fail and the others answer as
    /// before; and verification finds it.
    pub fn damage_is_never_served(&self) {
        for metric in [Metric::Cosine, Metric::L2] {
            let sample = Sample::new(self.rows(DAMAGED_ROWS), DIM, Values::Floats, 23);
            let (dir, built) = self.build(&sample, metric).unwrap_or_else(|error| panic!("{error}"));
            let query = prepare(metric, &sample.queries[0]);
            let intact = answers(self.engine, &dir, &built, &query).unwrap_or_else(|error| panic!("{error}"));
            let intact: Vec<_> = intact.answers.into_iter().map(|answer| answer.ok()).collect();
            assert!(intact.iter().all(Option::is_some), "the intact index answers");
            for file in &built.files {
                let path = dir.join(&file.name);
                let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{error}"));
                for at in places(bytes.len()) {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << (at % 8);
                    fs::write(&path, &flipped).unwrap_or_else(|error| panic!("{error}"));
                    let case = format!("{metric}, byte {at} of {}", file.name);
                    match answers(self.engine, &dir, &built, &query) {
                        Ok(read) => read.check(&intact, &case),
                        Err(error) => assert!(matches!(error, IndexError::Damaged(_)), "{case}: {error}"),
                    }
                }
                fs::write(&path, &bytes).unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }

    /// A file that is missing, cut short or of another index is found when opening.
    pub fn missing_and_foreign_files_do_not_open(&self) {
        let sample = Sample::new(self.rows(60), DIM, Values::Floats, 24);
        let other = Sample::new(self.rows(60), DIM, Values::Floats, 25);
        let (dir, built) = self.build(&sample, Metric::L2).unwrap_or_else(|error| panic!("{error}"));
        let (other_dir, other_built) = self.build(&other, Metric::L2).unwrap_or_else(|error| panic!("{error}"));
        for file in &built.files {
            let path = dir.join(&file.name);
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{error}"));
            let spoil = |content: Option<&[u8]>| {
                fs::remove_file(&path).unwrap_or_else(|error| panic!("{error}"));
                if let Some(content) = content {
                    fs::write(&path, content).unwrap_or_else(|error| panic!("{error}"));
                }
                self.engine.open(&dir, &built.files).err()
            };
            let missing = spoil_result(spoil, None);
            assert!(matches!(missing, IndexError::Io { .. }), "{} is missing: {missing}", file.name);
            fs::write(&path, &bytes).unwrap_or_else(|error| panic!("{error}"));
            for content in [&[][..], &bytes[..bytes.len() - 1], &bytes[..bytes.len() / 2]] {
                let cut = spoil_result(spoil, Some(content));
                assert!(matches!(cut, IndexError::Damaged(_)), "{} cut short: {cut}", file.name);
            }
            if other_built.files.iter().any(|other| other.name == file.name && other.digest != file.digest) {
                let foreign = fs::read(other_dir.join(&file.name)).unwrap_or_else(|error| panic!("{error}"));
                let error = spoil_result(spoil, Some(&foreign));
                assert!(matches!(error, IndexError::Damaged(_)), "{} of another index: {error}", file.name);
            }
            fs::write(&path, &bytes).unwrap_or_else(|error| panic!("{error}"));
            let without: Vec<IndexFile> = built.files.iter().filter(|listed| *listed != file).cloned().collect();
            assert!(self.engine.open(&dir, &without).is_err(), "{} not listed", file.name);
        }
        assert!(self.engine.open(&dir, &built.files).is_ok(), "put back");
    }
}

fn spoil_result(spoil: impl Fn(Option<&[u8]>) -> Option<IndexError>, content: Option<&[u8]>) -> IndexError {
    spoil(content).unwrap_or_else(|| panic!("a spoiled index was opened"))
}

/// The first and last bytes of a file, and some spread over the rest.
fn places(len: usize) -> impl Iterator<Item = usize> {
    const EDGE: usize = 48;
    let step = (len / FLIPS).max(1);
    (0..len).filter(move |&at| at < EDGE || at + EDGE >= len || at % step == 0)
}

type Question<'a> = dyn Fn(&dyn VectorIndex, &mut Vec<Candidate>) -> Result<(), IndexError> + 'a;
type Answer = Result<Vec<Candidate>, IndexError>;

struct Reading {
    answers: Vec<Answer>,
    verified: Result<bool, IndexError>,
}

/// Opens an index and asks it in every way.
fn answers(engine: &dyn IndexEngine, dir: &Path, built: &Built, query: &PreparedQuery) -> Result<Reading, IndexError> {
    let index = engine.open(dir, &built.files)?;
    let ask = |question: &Question<'_>| {
        let mut found = Vec::new();
        question(&*index, &mut found).map(|()| found)
    };
    let mut answers = vec![
        ask(&|index, out| index.search(query, &SearchParams::new(5), out).map(drop)),
        ask(&|index, out| index.search_rows(query, &ScanParams::new(5, RowSet::All), out).map(drop)),
        ask(&|index, out| index.search_rows(query, &ScanParams::exact(5, RowSet::All), out).map(drop)),
    ];
    for row in 0..index.shape().rows as u32 {
        answers.push(ask(&|index, out| {
            let (mut values, mut scores) = (vec![0.0; DIM], Vec::new());
            index.read_row(row, &mut values)?;
            index.similarities(query, &[row], &mut scores)?;
            out.extend(values.iter().chain(&scores).map(|&similarity| Candidate { row, similarity }));
            Ok(())
        }));
    }
    Ok(Reading { answers, verified: index.verify(&Never) })
}

impl Reading {
    fn check(&self, intact: &[Option<Vec<Candidate>>], case: &str) {
        assert!(matches!(self.verified, Err(IndexError::Damaged(_))), "{case}: verification found nothing");
        for (answer, intact) in self.answers.iter().zip(intact) {
            match answer {
                Ok(found) => assert_eq!(Some(found), intact.as_ref(), "{case}: a wrong answer"),
                Err(error) => assert!(matches!(error, IndexError::Damaged(_)), "{case}: {error}"),
            }
        }
    }
}
