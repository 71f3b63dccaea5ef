use super::*;

/// Code, then comment, of each line of `text`.
fn split(text: &str) -> Vec<(String, String)> {
    Source::parse("crates/x/src/a.rs", text).lines.into_iter().map(|line| (line.code, line.comment)).collect()
}

fn code(text: &str) -> String {
    split(text).into_iter().map(|(code, _)| code).collect::<Vec<_>>().join("\n")
}

#[test]
fn comments_are_not_code() {
    assert_eq!(split("let a = 1; // unsafe\n"), [("let a = 1; ".into(), "// unsafe".into())]);
    assert_eq!(code("a /* b /* c */ d */ e"), "a  e");
    assert_eq!(code("a /*/ b */ c"), "a  c");
    assert_eq!(split("/* one\ntwo */ x")[1], (" x".into(), "two */".into()));
}

#[test]
fn strings_lose_their_contents() {
    for (text, expected) in [
        (r#"f("unsafe { // ", 1)"#, r#"f("", 1)"#),
        (r#"f("a\"b", 1)"#, r#"f("", 1)"#),
        (r###"f(r#"a"b"#, 1)"###, r#"f(r"", 1)"#),
        (r#"f(b"unsafe", c"x")"#, r#"f(b"", c"")"#),
        (r###"f(br##"a"#b"##)"###, r#"f(br"")"#),
        ("var\"x\"", "var\"\""),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
    assert_eq!(code("\"a\nb\\\nc\" + d"), "\"\n\n\" + d");
}

#[test]
fn characters_and_lifetimes_are_told_apart() {
    for (text, expected) in [
        ("'{' + '}'", "'' + ''"),
        (r"'\'' + '\u{7b}' + b'\\'", "'' + '' + b''"),
        ("fn f<'a>(x: &'a str) -> &'static str {", "fn f<'a>(x: &'a str) -> &'static str {"),
        ("b'{'", "b''"),
        ("r#type", "r#type"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
}

#[test]
fn test_modules_are_marked() {
    let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn b() { {} }\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}\n";
    let marks: Vec<bool> = Source::parse("crates/x/src/a.rs", text).lines.iter().map(|line| line.test).collect();
    assert_eq!(marks, [false, true, true, true, true, true, false, true, true, false]);
}

#[test]
fn test_files_are_known_by_their_path() {
    for (path, expected) in [
        ("crates/x/src/a/tests.rs", true),
        ("crates/x/tests/a.rs", true),
        ("tests/golden/src/lib.rs", true),
        ("crates/x/src/tests_of_time.rs", false),
    ] {
        assert_eq!(is_test_path(path), expected, "{path}");
    }
}

#[test]
fn words_have_edges() {
    assert_eq!(words("unsafe_code unsafe my_unsafe unsafe{", "unsafe").collect::<Vec<_>>(), [12, 29]);
}
