use super::*;

const FAISS: &str = "crates/engine-faiss/src/walk.rs";
const OTHER: &str = "crates/shard/src/seal.rs";

/// The findings in `text`, as `line: what`.
fn found(path: &str, text: &str) -> Vec<String> {
    let findings = check(&Source::parse(path, text));
    findings.iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
}

#[test]
fn unsafe_stays_in_its_places() {
    assert_eq!(found(OTHER, "fn f() {\n    // SAFETY: none\n    unsafe { g() }\n}\n"), ["3: `unsafe`"]);
    assert_eq!(found(OTHER, "#![deny(unsafe_code)]\n// unsafe\nlet a = \"unsafe\";\n"), [""; 0]);
}

#[test]
fn unsafe_says_why_it_is_sound() {
    let bare = "`unsafe` without a SAFETY comment";
    for text in [
        "unsafe { f() }\n",
        "// It is fine.\nunsafe impl Send for A {}\n",
        "// SAFETY: of the other one.\nunsafe { f() };\nunsafe { g() };\n",
        "unsafe { f() }; // SAFETY: of this one.\nunsafe { g() };\n",
        "// SAFETY: too far away.\n\nunsafe fn f() {}\n",
        "unsafe extern \"C\" {\n    fn f();\n}\n",
    ] {
        assert_eq!(found(FAISS, text).len(), 1, "{text}");
        assert!(found(FAISS, text)[0].ends_with(bare), "{text}");
    }
    for text in [
        "// SAFETY: why,\n// at length.\nunsafe { f() }\n",
        "unsafe { f() } // SAFETY: why\n",
        "// SAFETY: why\nlet a =\n    unsafe { f() };\n",
        "/// # Safety\n/// The caller promises it.\n#[inline]\npub unsafe fn f() {}\n",
        "// SAFETY: why\n#[cfg(target_os = \"linux\")]\nunsafe impl Send for A {}\n",
        "type F = unsafe extern \"C\" fn(u8);\ntype G = unsafe fn(u8);\n#[unsafe(no_mangle)]\nfn h() {}\n",
    ] {
        assert_eq!(found(FAISS, text), [""; 0], "{text}");
    }
}

#[test]
fn an_allowed_lint_has_its_reason() {
    for text in [
        "#[allow(dead_code)]\nfn f() {}\n",
        "#![allow(\n    dead_code,\n)]\n",
        "#[expect(unused)]\nfn f() {}\n",
        "#[cfg_attr(test, allow(unused))]\nfn f() {}\n",
        "#[allow(unused)] // because\nfn f() {}\n",
    ] {
        assert_eq!(found(OTHER, text).len(), 1, "{text}");
    }
    for text in [
        "#[allow(dead_code, reason = \"kept for the debugger\")]\nfn f() {}\n",
        "#![allow(\n    dead_code,\n    reason = \"generated (by us)\"\n)]\n",
        "fn allow(a: u8) {}\nlet b = limits.allow(1);\nlet c = d.expect(\"invariant\");\n",
        "#[derive(Debug)] struct A; fn f() { a.expect(\"invariant\") }\n",
    ] {
        assert_eq!(found(OTHER, text), [""; 0], "{text}");
    }
}

#[test]
fn tests_do_not_sleep() {
    let text = "fn f() { sleep(1) }\n#[cfg(test)]\nmod tests {\n    fn g() { thread::sleep(SECOND) }\n}\n";
    assert_eq!(found(OTHER, text), ["4: a test sleeps"]);
    assert_eq!(found("tests/cluster/src/clients.rs", "//! x\nfn f() { sleep(1) }\n"), ["2: a test sleeps"]);
    assert_eq!(found("benches/overhead/rounds.rs", "//! x\nfn f() { sleep(1) }\n"), [""; 0]);
    assert_eq!(found("tests/cluster/src/clients.rs", "//! x\nfn f() { sleeper(1); asleep(2) }\n"), [""; 0]);
}

#[test]
fn a_crate_says_what_it_may_not_know() {
    let path = "crates/shard/src/lib.rs";
    assert_eq!(found(path, "//! One replica's data.\n//!\n//! May not know: Raft.\n"), [""; 0]);
    assert_eq!(found(path, "//! One replica's data.\n"), ["1: the crate does not say what it may not know"]);
    assert_eq!(found(path, "use a;\n//! May not know: b"), ["1: the crate's first lines are not its documentation"]);
    assert_eq!(found("crates/shard/src/seal/lib.rs", ""), [""; 0]);
    let shared_by_tests = found("tests/history/src/lib.rs", "//! What clients did.\n");
    assert_eq!(shared_by_tests, ["1: the crate does not say what it may not know"]);
    assert_eq!(found("tests/server/main.rs", "//! The server.\n"), [""; 0]);
}
