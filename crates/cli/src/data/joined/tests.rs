use sagitta_model::PointId;

use super::*;
use crate::data::testing::{Folder, f32s, npy, read_all};
use crate::data::{Content, ReadOptions, open};

struct Files {
    folder: Folder,
}

impl Files {
    fn new() -> Self {
        let folder = Folder::new();
        folder.write("v.npy", &npy("<f4", "3, 2", &f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])));
        Self { folder }
    }

    fn join(&self, payloads: Option<&str>, ids: Option<&str>) -> Result<Joined, DataError> {
        let vectors = open(&self.folder.path("v.npy"), &ReadOptions::default())?;
        let options = ReadOptions { content: Content::Payloads, ..ReadOptions::default() };
        let payloads =
            payloads.map(|text| open(&self.folder.write("p.jsonl", text.as_bytes()), &options)).transpose()?;
        let ids = ids.map(|text| IdFile::open(&self.folder.write("i.txt", text.as_bytes()))).transpose()?;
        Joined::new(vectors, payloads, ids)
    }
}

#[test]
fn rows_are_put_together_in_order_from_any_row_on() {
    let files = Files::new();
    let mut joined = files.join(Some("{\"a\": 0}\n{\"a\": 1}\n{\"a\": 2}\n"), Some("10\n11\n12\n")).expect("joins");
    assert!(joined.summary().has_ids);
    let rows = read_all(&mut joined, 2).expect("reads");
    assert_eq!(rows.len(), 3);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row.id, Some(PointId::Num(10 + at as u64)));
        assert_eq!(row.vectors[""][0], 2.0 * at as f32);
        assert_eq!(row.payload["a"], (at as i64).into());
    }
    joined.seek(1).expect("seeks");
    assert_eq!(joined.read(5).expect("reads"), rows[1..]);
    assert_eq!(joined.fraction(), 1.0);
}

#[test]
fn files_that_do_not_belong_together_are_refused_before_a_row_is_read() {
    let files = Files::new();
    let refused = |payloads, ids| files.join(payloads, ids).err().expect("refused").to_string();
    let text = refused(Some("{}\n{}\n"), None);
    assert!(text.contains("p.jsonl: rows: expected 3, as many as in ") && text.ends_with("v.npy, found 2"), "{text}");
    assert!(refused(None, Some("1\n2\n3\n4\n")).contains("found 4"));
    assert!(refused(Some("{\"vector\": [1]}\n{}\n{}"), None).contains("found vectors in the payload file"));
    let mut joined = files.join(Some("{\"id\": 1}\n{\"id\": 2}\n{\"id\": 3}"), Some("1\n2\n4\n")).expect("joins");
    assert_eq!(joined.read(2).expect("the same ids").len(), 2);
    let text = joined.read(1).expect_err("other ids").to_string();
    assert!(text.contains("i.txt, row 2, id: expected 3, found 4"), "{text}");
}
