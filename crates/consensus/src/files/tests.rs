use std::fs;
use std::io::Read as _;

use super::*;

const OFFER: u128 = 0x0f;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

fn json(files: &[(&str, u64)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name, bytes, "00".repeat(32))).collect();
    serde_json::to_vec(&serde_json::json!({ "format": 1, "offer": "0".repeat(32), "files": files })).unwrap()
}

#[test]
fn a_folder_is_described_whole_and_the_bytes_of_format_1_stay_readable() {
    let dir = folder(&[("db/CURRENT", b"x"), ("segments/4/vectors-0/exact", b""), ("a", b"abc")]);
    let manifest = Manifest::of(dir.path(), OFFER).unwrap();
    let golden = concat!(
        r#"{"format":1,"offer":"0000000000000000000000000000000f","files":["#,
        r#"["a",3,"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"],"#,
        r#"["db/CURRENT",1,"3ae7d805f6789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b5"],"#,
        r#"["segments/4/vectors-0/exact",0,"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"]]}"#,
    );
    assert_eq!(String::from_utf8(manifest.encode().unwrap().to_vec()).unwrap(), golden);
    assert_eq!(Manifest::decode(golden.as_bytes()).unwrap(), manifest);
    assert_eq!((manifest.offer(), manifest.bytes()), (OFFER, 4));
    assert_eq!(manifest.file("db/CURRENT").map(|file| file.bytes), Some(1));
    assert_eq!(manifest.file("db/current"), None);
}

#[test]
fn what_would_lead_out_of_the_folder_or_overflow_is_refused() {
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let deep = ["x"; MAX_COMPONENTS + 1].join("/");
    let names =
        ["../x", "a/../x", "..", ".", "/etc/passwd", "", "a//b", "a/", "/", "a\0b", "a\\b", "a b", "ä", &long, &deep];
    for name in names {
        let refused = Manifest::decode(&json(&[(name, 1)]));
        assert!(matches!(refused, Err(FilesError::Malformed(_))), "{name:?}: {refused:?}");
    }
    let lists: [&[(&str, u64)]; 5] = [
        &[("a", 1), ("a", 1)],
        &[("b", 1), ("a", 1)],
        &[("a", u64::MAX), ("b", 1)],
        &[("a", 1), ("a/b", 1)],
        // What stands between a file and what takes it for a folder does not hide it.
        &[("a", 1), ("a-b", 1), ("a/b", 1)],
    ];
    for files in lists {
        let refused = Manifest::decode(&json(files));
        assert!(matches!(refused, Err(FilesError::Malformed(_))), "{files:?}: {refused:?}");
    }
    assert!(Manifest::decode(&json(&[("a", u64::MAX), ("b/..c/_-.", 0)])).is_ok(), "odd, and harmless");
}

#[test]
fn what_is_no_manifest_or_a_newer_one_is_refused() {
    let whole = json(&[("a", 1)]);
    for cut in 0..whole.len() {
        assert!(matches!(Manifest::decode(&whole[..cut]), Err(FilesError::Malformed(_))), "cut at {cut}");
    }
    let text = String::from_utf8(whole).unwrap();
    let change = |from: &str, to: &str| Manifest::decode(text.replacen(from, to, 1).as_bytes());
    assert!(matches!(change("\"format\":1", "\"format\":2"), Err(FilesError::Newer { found: 2 })));
    for (from, to) in
        [("[\"a\",1", "[\"a\",-1"), ("00\"]", "0\"]"), ("00\"]", "0x\"]"), ("\"offer\":\"0", "\"offer\":\"")]
    {
        assert!(matches!(change(from, to), Err(FilesError::Malformed(_))), "{from} -> {to}");
    }
    let large = vec![b' '; MAX_MANIFEST_BYTES + 1];
    assert!(matches!(Manifest::decode(&large), Err(FilesError::Malformed(_))));
}

#[test]
fn ten_thousand_files_fit_and_more_are_refused_with_their_number() {
    let of = |count: u64| {
        let file = |number| StateFile { name: format!("db/{number:06}.sst"), bytes: 64 << 20, blake3: [7; 32] };
        Manifest { offer: OFFER, files: (0..count).map(file).collect() }
    };
    let encoded = of(10_000).encode().unwrap();
    assert_eq!(Manifest::decode(&encoded).unwrap().files().len(), 10_000);
    let error = of(12_000).encode().unwrap_err();
    assert!(matches!(error, FilesError::TooManyFiles { files: 12_000, .. }));
    assert!(error.to_string().contains("12000 files"), "{error}");
}

#[test]
fn a_folder_with_a_link_in_it_is_not_described() {
    let dir = folder(&[("a", b"abc")]);
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("b")).unwrap();
    assert!(matches!(Manifest::of(dir.path(), OFFER), Err(FilesError::Malformed(_))));
}

#[test]
fn a_file_of_another_size_or_with_a_flipped_bit_is_noticed() {
    let dir = folder(&[("a", b"abc")]);
    let manifest = Manifest::of(dir.path(), OFFER).unwrap();
    let check = |bytes: &[u8]| {
        let mut checking = manifest.files()[0].checking();
        checking.update(bytes).and_then(|()| checking.finish())
    };
    assert!(check(b"abc").is_ok());
    for wrong in [&b"ab"[..], b"abcd", b"abb", b""] {
        assert!(matches!(check(wrong), Err(FilesError::Differs { .. })), "{wrong:?}");
    }
}

#[test]
fn only_what_the_manifest_names_is_opened_and_nothing_once_it_is_taken_away() {
    let dir = folder(&[("state/a", b"abc"), ("secret", b"s"), ("state/later", b"l")]);
    let root = dir.path().join("state");
    fs::remove_file(root.join("later")).unwrap();
    let manifest = Manifest::of(&root, OFFER).unwrap();
    fs::write(root.join("later"), b"l").unwrap();
    let (shelf, group) = (Shelf::default(), GroupId(7));
    shelf.put(group, root.clone(), manifest);
    let (mut file, entry) = shelf.open(group, OFFER, "a").unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), entry.bytes), ("abc", 3));
    for name in ["later", "../secret", "", "b"] {
        assert!(matches!(shelf.open(group, OFFER, name), Err(FilesError::Gone { .. })), "{name:?}");
    }
    assert!(matches!(shelf.open(GroupId(8), OFFER, "a"), Err(FilesError::Gone { .. })));
    assert!(matches!(shelf.open(group, OFFER + 1, "a"), Err(FilesError::Gone { .. })));
    assert_eq!(shelf.take_away(group, OFFER), Some(root));
    assert!(matches!(shelf.open(group, OFFER, "a"), Err(FilesError::Gone { .. })));
    assert_eq!((shelf.take_away(group, OFFER), shelf.offers()), (None, vec![]));
}
