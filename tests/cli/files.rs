//! Data files, byte by byte as their formats define them.

/// A matrix whose numbers depend on their place: row by row, never zero, whole numbers below 128.
pub(crate) fn matrix(rows: usize, columns: usize) -> Vec<Vec<u8>> {
    (0..rows).map(|row| (0..columns).map(|column| ((row * 7 + column * 3) % 100 + 1) as u8).collect()).collect()
}

/// What a number looks like in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Element {
    F32,
    U8,
    I32,
}

impl Element {
    fn bytes(self, number: u8) -> Vec<u8> {
        match self {
            Self::F32 => f32::from(number).to_le_bytes().to_vec(),
            Self::U8 => vec![number],
            Self::I32 => i32::from(number).to_le_bytes().to_vec(),
        }
    }

    fn row(self, row: &[u8]) -> Vec<u8> {
        row.iter().flat_map(|number| self.bytes(*number)).collect()
    }
}

/// The TEXMEX formats: each row begins with its length.
pub(crate) fn vecs(matrix: &[Vec<u8>], element: Element) -> Vec<u8> {
    let row = |row: &Vec<u8>| [(row.len() as i32).to_le_bytes().to_vec(), element.row(row)].concat();
    matrix.iter().flat_map(row).collect()
}

/// The big-ann formats: number of rows, number of columns, then all numbers.
pub(crate) fn bin(matrix: &[Vec<u8>], element: Element) -> Vec<u8> {
    let mut bytes = (matrix.len() as u32).to_le_bytes().to_vec();
    bytes.extend((matrix[0].len() as u32).to_le_bytes());
    bytes.extend(matrix.iter().flat_map(|row| element.row(row)));
    bytes
}

/// An npy file of version 1 of float32 numbers.
pub(crate) fn npy(rows: &[Vec<f32>]) -> Vec<u8> {
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}",
        rows.len(),
        rows.first().map_or(0, Vec::len)
    );
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// The numbers of a matrix as floats.
pub(crate) fn floats(matrix: &[Vec<u8>]) -> Vec<Vec<f32>> {
    matrix.iter().map(|row| row.iter().map(|number| f32::from(*number)).collect()).collect()
}
