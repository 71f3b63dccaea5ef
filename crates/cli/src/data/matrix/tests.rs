use super::*;
use crate::data::ReadOptions;
use crate::data::testing::{Folder, check_reader, f32s, npy, npy_with, refusal, rows, sample};

fn options() -> ReadOptions {
    ReadOptions::default()
}

/// What `make.py` puts into row `row` of the matrices of floats.
fn floats(row: usize) -> Vec<f32> {
    (0..4).map(|column| row as f32 + 0.25 * column as f32).collect()
}

fn integers(row: usize) -> Vec<f32> {
    (0..4).map(|column| (row + 10 * column) as f32).collect()
}

#[test]
fn arrays_that_numpy_wrote_read_right_in_every_type_and_version() {
    let float_files = ["f2.npy", "f4.npy", "f8.npy", "f4_big_endian.npy", "f4_version2.npy", "f4_version3.npy"];
    for name in float_files {
        let rows = check_reader(&sample(name), &options());
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(row.vectors[""], floats(at), "{name}, row {at}");
        }
        assert_eq!(rows.len(), 5, "{name}");
    }
    for name in ["u1.npy", "i1.npy", "i8.npy"] {
        let rows = check_reader(&sample(name), &options());
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(row.vectors[""], integers(at), "{name}, row {at}");
        }
    }
}

#[test]
fn texmex_and_big_ann_files_read_right() {
    let folder = Folder::new();
    let prefixed = |rows: &[Vec<u8>]| {
        let row = |row: &Vec<u8>| [&4i32.to_le_bytes()[..], row].concat();
        rows.iter().flat_map(row).collect::<Vec<u8>>()
    };
    let headed =
        |rows: &[Vec<u8>]| [&(rows.len() as u32).to_le_bytes()[..], &4u32.to_le_bytes(), &rows.concat()].concat();
    let as_f32: Vec<Vec<u8>> = (0..3).map(|row| f32s(&floats(row))).collect();
    let as_u8: Vec<Vec<u8>> = (0..3).map(|row| integers(row).iter().map(|x| *x as u8).collect()).collect();
    let as_i32: Vec<Vec<u8>> =
        (0..3).map(|row| integers(row).iter().flat_map(|x| (*x as i32).to_le_bytes()).collect()).collect();
    type Expected = fn(usize) -> Vec<f32>;
    let cases: [(&str, Vec<u8>, Expected); 7] = [
        ("a.fvecs", prefixed(&as_f32), floats),
        ("a.bvecs", prefixed(&as_u8), integers),
        ("a.ivecs", prefixed(&as_i32), integers),
        ("a.fbin", headed(&as_f32), floats),
        ("a.u8bin", headed(&as_u8), integers),
        ("a.i8bin", headed(&as_u8), integers),
        ("a.ibin", headed(&as_i32), integers),
    ];
    for (name, bytes, expected) in cases {
        let rows = check_reader(&folder.write(name, &bytes), &options());
        for (at, row) in rows.iter().enumerate() {
            assert_eq!(row.vectors[""], expected(at), "{name}, row {at}");
        }
        assert_eq!(rows.len(), 3);

        // Every shorter file and a longer one are refused before a row is read, unless whole rows are missing from a
        // format that does not say how many there are.
        let row_bytes = if name.ends_with("vecs") { bytes.len() / 3 } else { usize::MAX };
        for length in 0..bytes.len() {
            let cut = folder.write(&format!("cut_{name}"), &bytes[..length]);
            let refused = crate::data::open(&cut, &options()).is_err();
            assert_eq!(refused, length == 0 || length % row_bytes != 0, "{name} cut to {length}");
        }
        let longer = folder.write(&format!("longer_{name}"), &[&bytes[..], &[0]].concat());
        assert!(refusal(&longer, &options()).contains("size: expected"));
    }
}

#[test]
fn npy_files_that_are_cut_off_or_not_by_rows_are_refused_with_what_was_found() {
    let folder = Folder::new();
    let refuse = |name: &str, bytes: &[u8]| refusal(&folder.write(name, bytes), &options());
    let data = f32s(&[0.0; 12]);
    let good = npy("<f4", "3, 4", &data);
    assert_eq!(rows(&folder.write("good.npy", &good), &options(), 2).expect("reads").len(), 3);
    for length in 8..good.len() {
        let text = refuse("cut.npy", &good[..length]);
        assert!(text.starts_with(": size: "), "cut to {length}: {text}");
    }
    assert_eq!(
        refuse("cut.npy", &good[..good.len() - 5]),
        ": size: expected 176 bytes for the 3 rows that the header announces, found 171 bytes, room for 2 whole rows"
    );
    let cases = [
        (npy("<c8", "3, 4", &data), ": dtype: expected floats of 2, 4 or 8 bytes or integers, found `<c8`"),
        (npy("|O", "3, 4", &data), ": dtype: expected floats of 2, 4 or 8 bytes or integers, found `|O`"),
        (npy("<f4", "3, 2, 2", &data), ": shape: expected one or two axes, found [3, 2, 2]"),
        (npy("<f4", "12,", &data), ": shape: expected two axes, (rows, dimensions), found one axis of 12 numbers"),
        (npy("<f4", "12, 0", &[]), ": dimensions: expected 1 to 16,384, found 0"),
        (npy("<f4", "0, 99999", &[]), ": dimensions: expected 1 to 16,384, found 99999"),
        (
            npy_with("not a dictionary", &data),
            ": header: expected a dictionary of `descr`, `fortran_order` and `shape`",
        ),
    ];
    for (bytes, expected) in cases {
        let text = refuse("bad.npy", &bytes);
        assert!(text.starts_with(expected), "{text}");
    }
    let columns = npy_with("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4), }", &data);
    assert!(refuse("columns.npy", &columns).contains("fortran_order: expected False"));
    assert!(refusal(&sample("f4_fortran.npy"), &options()).contains("fortran_order: expected False"));
    let huge = npy("<f4", "18446744073709551615, 16384", &data);
    assert!(refuse("huge.npy", &huge).contains("an impossible number of bytes"));
}

#[test]
fn bad_numbers_and_ragged_rows_are_refused_with_row_and_component() {
    let folder = Folder::new();
    let mut data = vec![0.5f32; 12];
    data[6] = f32::NAN;
    let text = refusal(&folder.write("nan.npy", &npy("<f4", "3, 4", &f32s(&data))), &options());
    assert_eq!(text, ", row 1, vector[2]: expected a finite float32, found NaN");

    let row = |dimension: i32| [&dimension.to_le_bytes()[..], &f32s(&[0.5; 4])].concat();
    let ragged = folder.write("ragged.fvecs", &[row(4), row(4), row(3)].concat());
    assert_eq!(refusal(&ragged, &options()), ", row 2, dimension: expected 4, as in row 0, found 3");
    let swapped = folder.write("swapped.fvecs", &row(4i32.swap_bytes()));
    assert_eq!(refusal(&swapped, &options()), ": dimensions: expected 1 to 16,384, found 67108864");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let folder = Folder::new();
    let path = folder.write("a.npy", &npy("<f4", "3, 4", &f32s(&[0.5; 12])));
    let mut reader = crate::data::open(&path, &options()).expect("opens");
    reader.read(1).expect("reads");
    File::options().write(true).open(&path).and_then(|file| file.set_len(140)).expect("shrinks");
    assert!(reader.read(2).expect_err("too short").to_string().contains("did the file change"));
}
