use super::*;
use crate::data::GroundTruth;
use crate::data::testing::{Folder, check_reader, refusal, rows, sample};

const FILES: [&str; 3] = ["annbench.hdf5", "annbench_latest.hdf5", "annbench_f8.hdf5"];

fn dataset(name: &str) -> ReadOptions {
    ReadOptions { dataset: name.to_owned(), ..ReadOptions::default() }
}

#[test]
fn chunked_and_contiguous_datasets_read_right() {
    for file in FILES {
        for (name, count) in [("train", 50), ("test", 3)] {
            let rows = check_reader(&sample(file), &dataset(name));
            assert_eq!(rows.len(), count, "{file}, {name}");
            for (at, row) in rows.iter().enumerate() {
                let expected: Vec<f32> = (0..6).map(|column| at as f32 + 0.25 * column as f32).collect();
                assert_eq!(row.vectors[""], expected, "{file}, {name}, row {at}");
            }
        }
        let reader = Hdf5Reader::open(&sample(file), &dataset("train")).expect("opens");
        assert_eq!(reader.summary().metric, Some(Metric::Cosine), "{file}");
        let truth = GroundTruth::read(&sample(file), None).expect("reads");
        assert_eq!((truth.queries(), truth.depth()), (3, 2), "{file}");
        assert!(truth.right_answers(2, 1).contains(&sagitta_model::PointId::Num(2)));
    }
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    let path = sample(FILES[0]);
    let text = refusal(&path, &dataset("vectors"));
    assert!(text.starts_with(": datasets: expected `vectors`, found distances, "), "{text}");
    assert!(text.contains("train"), "{text}");
    let text = refusal(&path, &dataset("flat"));
    assert_eq!(text, ": dataset `flat`, shape: expected two axes, (rows, dimensions), found [4]");
    let text = refusal(&path, &dataset("words"));
    assert!(text.starts_with(": dataset `words`, type: expected floats of 4 or 8 bytes or integers"), "{text}");
    let text = refusal(&path, &dataset("nan"));
    assert_eq!(text, ", row 1, nan[0]: expected a finite float32, found NaN");
    let text = refusal(&sample("jaccard.hdf5"), &dataset("train"));
    assert!(text.contains("attribute `distance`: expected angular, euclidean or dot, found `jaccard`"), "{text}");
}

#[test]
fn chunks_that_were_never_written_are_not_read_as_zeros() {
    let text = refusal(&sample("holes.hdf5"), &dataset("train"));
    assert_eq!(text, ", row 9, dataset `train`: expected every row written, found 1 of 2 chunks");
    assert_eq!(check_reader(&sample("holes.hdf5"), &dataset("zeros")).len(), 10);
}

#[test]
fn a_file_cut_off_anywhere_is_refused_and_damage_never_panics() {
    let folder = Folder::new();
    for file in FILES {
        let bytes = std::fs::read(sample(file)).expect("reads");
        let mut refused = 0;
        for length in (0..bytes.len()).step_by(37) {
            let path = folder.write("cut.hdf5", &bytes[..length]);
            refused += usize::from(rows(&path, &dataset("train"), 7).is_err());
        }
        assert_eq!(refused, bytes.len().div_ceil(37), "{file}: every cut is noticed");
        for at in (0..bytes.len()).step_by(11) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let path = folder.write("flipped.hdf5", &flipped);
            // Contiguous data and old headers carry no checksum: what matters is that nothing panics, hangs or reads
            // as more rows than there are.
            if let Ok(rows) = rows(&path, &dataset("train"), 7) {
                assert!(rows.len() <= 50, "{file}, flip at {at}: {} rows", rows.len());
            }
        }
    }
}
