//! Ground truth: for each query the ids of its true nearest neighbours.

use std::collections::HashSet;
use std::path::Path;

use sagitta_model::PointId;

use super::error::{DataError, grouped};
use super::hdf5::Hdf5Matrix;
use super::{Format, Matrix};

/// Ids read at most: 400 MB. A million queries with a hundred neighbours each would pass it; measure a part then.
const MAX_IDS: u64 = 50_000_000;

/// The true nearest neighbours of a list of queries, nearest first, and perhaps how far away they are.
#[derive(Clone, Debug)]
pub struct GroundTruth {
    neighbours: Vec<Vec<u64>>,
    /// In whatever measure the file has; only equality among one query's distances is used.
    distances: Option<Vec<Vec<f32>>>,
}

impl GroundTruth {
    /// Reads the neighbours from ivecs, ibin, an integer npy or the dataset `neighbors` of an ann-benchmarks file, and
    /// the distances, if any, from a file of floats of the same shape; an ann-benchmarks file brings its own.
    pub fn read(neighbours: &Path, distances: Option<&Path>) -> Result<Self, DataError> {
        let format = Format::detect(neighbours)?;
        let (ids, own_distances) = match format {
            Format::Hdf5 => {
                let mut matrix = Hdf5Matrix::open(neighbours, "neighbors")?;
                bounded(neighbours, matrix.rows(), matrix.columns())?;
                let distances = Hdf5Matrix::open(neighbours, "distances").ok();
                let distances = distances.map(|mut m| m.vectors(0, m.rows() as usize)).transpose()?;
                (matrix.ids(0, matrix.rows() as usize)?, distances)
            }
            _ => {
                let mut matrix = Matrix::open(neighbours, format)?;
                bounded(neighbours, matrix.rows(), matrix.columns())?;
                let rows = matrix.rows() as usize;
                (matrix.ids(0, rows)?, None)
            }
        };
        let distances = match distances {
            None => own_distances,
            Some(path) => {
                let mut matrix = Matrix::open(path, Format::detect(path)?)?;
                let rows = matrix.rows() as usize;
                same_shape(path, (rows, matrix.columns()), (ids.len(), ids.first().map_or(0, Vec::len)))?;
                Some(matrix.vectors(0, rows)?)
            }
        };
        Ok(Self { neighbours: ids, distances })
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.neighbours.len()
    }

    /// Neighbours known per query.
    pub fn depth(&self) -> usize {
        self.neighbours.first().map_or(0, Vec::len)
    }

    /// The ids that are right among the first `k` hits of a query: its `k` nearest, and with distances also those
    /// that are just as near as the last of them.
    pub fn right_answers(&self, query: usize, k: usize) -> HashSet<PointId> {
        let ids = &self.neighbours[query];
        let mut count = k.min(ids.len());
        if let Some(distances) = self.distances.as_ref().map(|all| &all[query])
            && count > 0
        {
            let last = distances[count - 1];
            count += distances[count..].iter().take_while(|distance| **distance == last).count();
        }
        ids[..count].iter().map(|id| PointId::Num(*id)).collect()
    }
}

fn bounded(path: &Path, rows: u64, columns: usize) -> Result<(), DataError> {
    if rows.saturating_mul(columns as u64) <= MAX_IDS {
        return Ok(());
    }
    let found = format!("{} x {columns}", grouped(rows));
    let fix = "cut the ground truth and the queries to their first rows";
    Err(DataError::file(path, "shape", format!("at most {} ids", grouped(MAX_IDS)), found, fix))
}

fn same_shape(path: &Path, found: (usize, usize), expected: (usize, usize)) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    let fix = "name the file of distances that belongs to the file of neighbours";
    let shape = |(rows, columns)| format!("({rows}, {columns})");
    Err(DataError::file(path, "shape", format!("{}, as of the neighbours", shape(expected)), shape(found), fix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Folder, npy};

    fn matrix<T: Copy, const N: usize>(rows: &[&[T]], to_bytes: impl Fn(T) -> [u8; N]) -> (String, Vec<u8>) {
        let bytes = rows.iter().flat_map(|row| row.iter().flat_map(|x| to_bytes(*x)).collect::<Vec<u8>>()).collect();
        (format!("{}, {}", rows.len(), rows[0].len()), bytes)
    }

    #[test]
    fn neighbours_tied_with_the_last_one_are_right_too() {
        let folder = Folder::new();
        let (shape, bytes) = matrix(&[&[4i32, 2, 9, 7], &[1, 3, 5, 6]], i32::to_le_bytes);
        let ids = folder.write("ids.npy", &npy("<i4", &shape, &bytes));
        let (shape, bytes) = matrix(&[&[1f32, 2.0, 2.0, 3.0], &[1.0, 1.0, 1.0, 1.0]], f32::to_le_bytes);
        let distances = folder.write("distances.npy", &npy("<f4", &shape, &bytes));

        let strict = GroundTruth::read(&ids, None).expect("reads");
        assert_eq!((strict.queries(), strict.depth()), (2, 4));
        assert_eq!(strict.right_answers(0, 2), [4, 2].map(PointId::Num).into());
        let tied = GroundTruth::read(&ids, Some(&distances)).expect("reads");
        assert_eq!(tied.right_answers(0, 2), [4, 2, 9].map(PointId::Num).into());
        assert_eq!(tied.right_answers(0, 3), [4, 2, 9].map(PointId::Num).into());
        assert_eq!(tied.right_answers(1, 1).len(), 4);
        assert_eq!(tied.right_answers(1, 10).len(), 4);
    }

    #[test]
    fn ibin_ground_truth_has_its_distances_behind() {
        let folder = Folder::new();
        let mut bytes = [2u32, 2].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        bytes.extend([1u32, 2, 3, 4].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([0.5f32; 4].iter().flat_map(|n| n.to_le_bytes()));
        let truth = GroundTruth::read(&folder.write("gt.ibin", &bytes), None).expect("reads");
        assert_eq!(truth.right_answers(1, 2), [3, 4].map(PointId::Num).into());
    }

    #[test]
    fn scores_given_for_neighbours_are_refused() {
        let folder = Folder::new();
        let (shape, bytes) = matrix(&[&[0.5f32, 0.25]], f32::to_le_bytes);
        let path = folder.write("scores.npy", &npy("<f4", &shape, &bytes));
        let error = GroundTruth::read(&path, None).expect_err("refused");
        assert!(error.to_string().contains("expected integers, found float32"), "{error}");
        let (shape, bytes) = matrix(&[&[1i32, 2]], i32::to_le_bytes);
        let ids = folder.write("ids.npy", &npy("<i4", &shape, &bytes));
        let (shape, bytes) = matrix(&[&[1f32, 2.0], &[1.0, 2.0]], f32::to_le_bytes);
        let longer = folder.write("longer.npy", &npy("<f4", &shape, &bytes));
        let error = GroundTruth::read(&ids, Some(&longer)).expect_err("refused").to_string();
        assert!(error.contains("(1, 2), as of the neighbours, found (2, 2)"), "{error}");
    }
}
