//! What there is before any server: completion scripts, versions, usage errors, exit codes.

use std::io::Write as _;
use std::process::{Command, Stdio};

use sagitta_tls::testing::Authority;

const DONE: i32 = 0;
const USAGE: i32 = 2;
const UNAVAILABLE: i32 = 4;

/// What a run of the program came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn shows(self, text: &str) -> Self {
        assert!(self.out.contains(text), "no {text:?} in {self:#?}");
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in {self:#?}");
        self
    }
}

fn run(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagitta"));
    // Nothing listens on port 1 of a loopback address.
    command.args(args).env("SAGITTA_ENDPOINT", "http://127.0.0.1:1").stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn completion_scripts_know_every_command_and_are_sound_where_the_shell_is_there() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]).ends_with(DONE);
        for command in ["collection", "import", "export", "search", "get", "count", "delete", "recall", "status"] {
            assert!(script.out.contains(command), "{shell}: {command}");
        }
        assert!(script.out.contains("--ground-truth") || script.out.contains("ground-truth"), "{shell}");
        // `-n` reads a script without running it.
        let check = Command::new(shell).arg("-n").stdin(Stdio::piped()).spawn();
        if let (Ok(mut child), "bash" | "zsh" | "fish") = (check, shell) {
            child.stdin.take().expect("piped").write_all(script.out.as_bytes()).expect("written");
            assert!(child.wait().expect("waited").success(), "{shell} does not accept its script");
        }
    }
    run(&["completion", "cmd"]).ends_with(USAGE).says("bash");
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = run(&["completion", "bash"]).out;
    let complete = |words: &str, at: usize| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _sagitta sagitta \"${{COMP_WORDS[{at}]}}\" ''; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().expect("bash runs");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(complete("sagitta coll", 1).trim(), "collection");
    let subcommands = complete("sagitta collection ''", 2);
    assert!(["create", "list", "describe", "delete"].iter().all(|name| subcommands.contains(name)), "{subcommands}");
    assert!(complete("sagitta import --pay", 2).contains("--payload"));
}

#[test]
fn help_and_version_go_to_standard_output_and_usage_errors_to_standard_error() {
    run(&["--version"]).ends_with(DONE).shows(concat!("sagitta ", env!("CARGO_PKG_VERSION")));
    run(&["--help"]).ends_with(DONE).shows("Examples:").shows("Exit codes: 0 done");
    run(&["import", "--help"]).ends_with(DONE).shows("--payload <FILE>").shows("SAGITTA_ENDPOINT");
    let refused = run(&["serach"]).ends_with(USAGE).says("search");
    assert_eq!(refused.out, "");
    run(&["count", "Docs"]).ends_with(USAGE).says("a-z");
    run(&["count", "docs", "--endpoint", "ftp://x"]).ends_with(USAGE).says("http");
    let refused = run(&["count", "docs", "--timeout", "1s"]).ends_with(UNAVAILABLE);
    refused.says("cannot reach http://127.0.0.1:1: ").says("Connection refused");
}

#[test]
fn of_several_endpoints_that_do_not_answer_each_is_named_with_its_reason() {
    let several = ["count", "docs", "--timeout", "5s", "--endpoint", "127.0.0.1:1, http://127.0.0.1:2"];
    let refused = run(&several).ends_with(UNAVAILABLE).says("none of the 2 endpoints that were asked answers");
    let refused = refused.says("  http://127.0.0.1:1: ").says("  http://127.0.0.1:2: ").says("Connection refused");
    refused.says("hint: are the servers running there?");
    let document = run(&[&several[..], &["-o", "json"]].concat()).ends_with(UNAVAILABLE).err;
    let document: serde_json::Value = serde_json::from_str(&document).expect(&document);
    assert_eq!(document["error"]["kind"], "unavailable");
    let details = document["error"]["details"].as_array().expect("a list");
    assert!(details.len() == 2 && details[0].as_str().expect("text").contains("127.0.0.1:"), "{document}");
    for (bad, says) in
        [("127.0.0.1,", "host:port"), ("127.0.0.1,ftp://b", "only `http` and `https`"), (",", "host:port")]
    {
        run(&["count", "docs", "--endpoint", bad]).ends_with(USAGE).says("--endpoint: ").says(says);
    }
    run(&["cluster", "init", "--endpoint", "127.0.0.1:1,127.0.0.1:2"]).ends_with(USAGE).says("name that one alone");
}

#[test]
fn what_cannot_be_used_for_encryption_is_told_by_its_option() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "authority");
    let [good, other] = ["good", "other"].map(|name| authority.sign(name, &["127.0.0.1"]));
    let text = |path: &std::path::Path| path.display().to_string();
    let (ca, cert, key) = (text(&authority.path()), text(&good.cert), text(&good.key));
    let (missing, other_key) = (text(&folder.path().join("missing")), text(&other.key));
    let not_encrypted =
        "--tls-ca: has no meaning for `http://127.0.0.1:1`, which is not encrypted: say https://127.0.0.1:1";
    let count = ["count", "docs", "--timeout", "5s"];
    for (options, says) in [
        (&["--tls-ca", &ca][..], not_encrypted),
        (&["--endpoint", "db", "--tls-ca", &missing], &format!("--tls-ca: {missing}: cannot be read (No such file")),
        (&["--endpoint", "db", "--tls-ca", &key], &format!("--tls-ca: {key}: holds a key and no certificate")),
        (
            &["--endpoint", "db", "--tls-ca", &ca, "--tls-cert", &cert],
            "--tls-cert: a certificate is of no use without its key",
        ),
        (
            &["--endpoint", "db", "--tls-ca", &ca, "--tls-key", &key],
            "--tls-key: a key is of no use without its certificate",
        ),
        (
            &["--endpoint", "db", "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &other_key],
            &format!("--tls-key: {other_key}: the key does not belong to the certificate in {cert}"),
        ),
        (&["--endpoint", "db", "--tls-ca", &ca, "--tls-name", "a b"], "--tls-name: `a b` is neither a name"),
    ] {
        run(&[&count[..], options].concat()).ends_with(USAGE).says(says).says("hint: ");
    }
    // Without a scheme, encryption is meant.
    let refused = run(&[&count[..], &["--endpoint", "127.0.0.1:1", "--tls-ca", &ca]].concat()).ends_with(UNAVAILABLE);
    refused.says("cannot reach https://127.0.0.1:1: ").says("Connection refused");
    let help = run(&["--help"]).ends_with(DONE);
    help.shows("SAGITTA_TLS_CA").shows("SAGITTA_TLS_CERT").shows("SAGITTA_TLS_KEY").shows("SAGITTA_TLS_NAME");
}

#[test]
fn inspect_says_where_it_is() {
    run(&["inspect"]).ends_with(USAGE).says("hint: on the machine that has them: sagittad inspect --data FOLDER");
    run(&["inspect", "--data", "/x", "--quick"]).ends_with(USAGE).says("sagittad inspect --data /x --quick");
    assert!(!run(&["--help"]).out.contains("inspect"));
}

#[test]
fn the_help_of_commands_for_clusters_teaches() {
    for (path, shows) in [
        (&["cluster", "init"][..], "the join token, this once"),
        (&["cluster", "health"], "0 if the cluster is healthy, 8 if it is degraded"),
        (&["cluster", "rotate-token"], "Nodes that have joined stay"),
        (&["cluster", "status"], "jq .problems"),
        (&["node", "show"], "the beginning of its id"),
        (&["node", "list"], "sagitta node list"),
        (&["node", "drain"], "what would be moved"),
        (&["node", "undrain"], "until nodes hold alike"),
        (&["node", "remove"], "worth nothing then"),
        (&["operation", "list"], "sagitta operation list --all"),
        (&["operation", "show"], "sagitta operation show 7"),
        (&["operation", "cancel"], "sagitta node undrain"),
        (&["shard", "list"], "--node 10.0.0.7:6380"),
        (&["shard", "show"], "sagitta shard show 16"),
        (&["shard", "transfer-leader"], "Writes of the shard pause"),
        (&["shard", "move"], "for a day"),
    ] {
        run(&[path, &["--help"]].concat()).ends_with(DONE).shows("Examples:").shows(shows).shows("--endpoint");
    }
    run(&["shard", "show", "x"]).ends_with(USAGE).says("invalid value 'x' for '<ID>'");
    run(&["shard", "transfer-leader", "16"]).ends_with(USAGE).says("--to <NODE>");
    run(&["shard", "move", "docs", "16", "--from", "1"]).ends_with(USAGE).says("--to <NODE>");
    run(&["node", "show"]).ends_with(USAGE).says("<NODE>");
    run(&["cluster"]).ends_with(USAGE).says("rotate-token");
    run(&["nodes", "list"]).ends_with(USAGE).says("'node'");
}

#[test]
fn an_address_without_a_port_is_that_of_a_server_with_its_default_port() {
    // Addresses that are kept for documentation: nobody answers there.
    for (given, means) in [
        ("192.0.2.1", "http://192.0.2.1:6380"),
        ("http://192.0.2.1", "http://192.0.2.1:6380"),
        ("192.0.2.1:80", "http://192.0.2.1:80"),
        ("[2001:db8::1]", "http://[2001:db8::1]:6380"),
        ("host.invalid", "http://host.invalid:6380"),
    ] {
        run(&["count", "docs", "--timeout", "10ms", "--endpoint", given]).ends_with(UNAVAILABLE).says(means);
    }
    for (bad, says) in [("127.0.0.1:99999", "1 to 65535"), ("::1", "https://[::1]"), ("", "host:port")] {
        run(&["count", "docs", "--endpoint", bad]).ends_with(USAGE).says("--endpoint: ").says(says);
    }
    run(&["--help"]).ends_with(DONE).shows("Without a port it is 6380");
}

#[test]
fn wrong_arguments_are_one_json_document_where_json_was_asked_for() {
    let cases: [(&[&str], &str, &str); 6] = [
        (&["count", "--output", "json"], "required arguments were not provided: <COLLECTION>", "--help"),
        (&["-o", "json", "count", "docs", "--flter", "x"], "'--flter'", "'--filter'"),
        (&["count", "Docs", "-ojson"], "a-z", "--help"),
        (&["--output=json", "serach"], "'serach'", "'search'"),
        (&["search", "docs", "-o", "json"], "--vector <JSON>|--query <FILE>|--like <ID>", "--help"),
        (&["count", "docs", "-o", "json", "--filter", "words >"], "expected a value", "filter syntax"),
    ];
    for (args, message, hint) in cases {
        let ran = run(args).ends_with(USAGE);
        assert_eq!(ran.out, "", "{args:?}");
        let document: serde_json::Value = serde_json::from_str(&ran.err).expect(&ran.err);
        let text = |key: &str| document["error"][key].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("kind"), "invalid", "{args:?}");
        assert!(text("message").contains(message) && text("hint").contains(hint), "{args:?}: {}", ran.err);
    }
    let help = run(&["count", "--help", "-o", "json"]).ends_with(DONE).shows("Usage:");
    assert_eq!(help.err, "");
}

#[test]
fn usage_errors_name_every_way_to_say_what_is_missing() {
    let cases: [(&[&str], &[&str]); 3] = [
        (&["delete", "docs"], &["ID", "--filter <FILTER>"]),
        (&["collection", "create", "docs"], &["--dim <N>", "--vector <NAME=DIM[:METRIC[:INDEX]]>"]),
        (&["search", "docs"], &["--vector <JSON>", "--query <FILE>", "--like <ID>"]),
    ];
    for (args, ways) in cases {
        for text in [run(args).ends_with(USAGE).err, run(&[args, &["--help"]].concat()).ends_with(DONE).out] {
            let usage = text.split_once("Usage: ").expect("a usage").1.split("\n\n").next().expect("a paragraph");
            assert!(ways.iter().all(|way| usage.contains(way)), "{usage}");
        }
        let ran = run(&[args, &["-o", "json"]].concat()).ends_with(USAGE);
        assert!(ways.iter().all(|way| ran.err.contains(way)), "{}", ran.err);
    }
    // The address is in the environment, and nobody has to type it.
    for args in [&["import", "docs"][..], &["get", "docs"], &["search", "docs", "--like", "1", "--group-size", "2"]] {
        let refused = run(args).ends_with(USAGE).says("Usage: ");
        assert!(!refused.err.contains("--endpoint"), "{}", refused.err);
    }
    run(&["delete", "docs", "7", "--filter", "a = 1"]).ends_with(USAGE).says("cannot be used with");
    run(&["collection", "create", "docs", "--dim", "3", "--vector", "a=3"])
        .ends_with(USAGE)
        .says("cannot be used with");
}

#[test]
fn help_is_a_command_too_and_shows_what_the_flag_does() {
    for path in [
        &[][..],
        &["import"],
        &["search"],
        &["recall"],
        &["completion"],
        &["collection"],
        &["collection", "create"],
        &["collection", "delete"],
    ] {
        let flag = run(&[path, &["--help"]].concat()).ends_with(DONE).out;
        assert_eq!(run(&[&["help"], path].concat()).ends_with(DONE).out, flag, "{path:?}");
    }
    let flag = run(&["collection", "list", "--help"]).out;
    assert_eq!(run(&["collection", "help", "list"]).ends_with(DONE).out, flag);
    run(&["help", "serach"]).ends_with(USAGE).says("serach");
}

#[test]
fn numbers_that_do_not_fit_are_told_with_what_is_expected() {
    let cases: [(&[&str], &str); 6] = [
        (&["search", "docs", "--like", "-1"], "an unsigned 64-bit number or a UUID"),
        (&["get", "docs", "-1"], "an unsigned 64-bit number or a UUID"),
        (&["search", "docs", "--like", "1", "-k", "-5"], "a whole number of at least 1"),
        (&["search", "docs", "--query", "q.npy", "--row", "-1"], "a whole number from 0"),
        (&["import", "docs", "a.npy", "--limit", "many"], "a whole number from 0"),
        (&["import", "docs", "a.npy", "--id-offset", "18446744073709551616"], "a whole number from 0"),
    ];
    for (args, expected) in cases {
        run(args).ends_with(USAGE).says("invalid value").says(expected);
    }
}

#[test]
fn what_chooses_in_a_file_of_queries_is_refused_without_one() {
    for choice in [["--row", "3"], ["--dataset", "test"], ["--vector-column", "v"]] {
        let args = [&["search", "docs", "--like", "1"], &choice[..]].concat();
        run(&args).ends_with(USAGE).says(choice[0]).says("cannot be used with").says("--like");
    }
}
