//! The examples of every help text do what they say, as they are printed.

use std::process::{Command, Stdio};

use crate::files::{Element, floats, matrix, npy, vecs};
use crate::harness::{DONE, Ran, World, foreign, sagitta, sample};

/// Every command, in an order in which each leaves behind what the next ones need.
const COMMANDS: [&[&str]; 14] = [
    &["collection", "create"],
    &["collection", "list"],
    &["collection", "describe"],
    &["import"],
    &["search"],
    &["get"],
    &["count"],
    &["recall"],
    &["export"],
    &["status"],
    &["completion"],
    &["delete"],
    &["collection", "delete"],
    &[],
];

/// The narrowest terminal on which examples can be copied.
const COLUMNS: &str = "80";

/// A point that examples name.
const POINT: &str = "0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11";

/// The examples in the help of a command, as it is printed.
fn examples(world: &World, command: &[&str]) -> Vec<String> {
    let mut asked = world.command(command.iter().copied().chain(["--help"]));
    let help: Ran = asked.env("COLUMNS", COLUMNS).output().expect("the program runs").into();
    let help = help.ends_with(DONE).out;
    assert!(help.lines().all(|line| line.chars().count() <= 110), "{help}");
    let text = help.split_once("Examples:\n").unwrap_or_else(|| panic!("no examples of {command:?}")).1;
    let text = text.split("\n\n").next().expect("a first part");
    let lines = text.replace("\\\n", "");
    let examples: Vec<_> =
        lines.lines().filter(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect();
    assert!(!examples.is_empty(), "no examples of {command:?}");
    examples
}

/// Runs a line in a shell in the folder of files, as a reader would.
fn shell(world: &World, line: &str) {
    let line = line.replace("http://127.0.0.1:6380", &world.server.endpoint);
    // Where there is no jq its part of a pipe is left out.
    let has_jq =
        Command::new("jq").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    let line = if has_jq { line.as_str() } else { line.split(" | jq").next().expect("a first part") };
    let program = sagitta();
    let path = std::env::join_paths(
        std::iter::once(program.parent().expect("a folder").to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", line]).current_dir(world.path(""));
    command.env("PATH", path.expect("a path")).env("HOME", world.path("home")).stdin(Stdio::null());
    command.env("SAGITTA_ENDPOINT", &world.server.endpoint).env("SAGITTA_STATE_DIR", world.state());
    let ran: Ran = command.output().expect("bash runs").into();
    println!("$ {line}\n{}{}", ran.out, ran.err);
    ran.ends_with(DONE);
}

/// The files that examples name: of the sample, and small ones in the formats of well-known data sets.
fn files(world: &World) {
    let copy = |from: String, to: &str| {
        std::fs::copy(from, world.path(to)).expect("copied");
    };
    copy(sample("text384-4k.base.f16.npy"), "base.npy");
    copy(sample("text384-4k.payload.jsonl.gz"), "payload.jsonl.gz");
    copy(sample("text384-4k.query.f32.npy"), "queries.npy");
    copy(sample("text384-4k.gt.ids.npy"), "gt.ids.npy");
    copy(foreign("annbench_deep.hdf5"), "glove-100-angular.hdf5");
    for folder in ["home/.zfunc", "home/.config/fish/completions"] {
        std::fs::create_dir_all(world.path(folder)).expect("made");
    }
    let photos = matrix(40, 128);
    world.write("sift_base.bvecs", vecs(&photos, Element::U8));
    world.write("sift_query.bvecs", vecs(&photos[..3], Element::U8));
    world.write("sift_groundtruth.ivecs", vecs(&matrix(3, 10), Element::I32));
    world.write("sift_distances.fvecs", vecs(&matrix(3, 10), Element::F32));
    let vector = &floats(&matrix(1, 384))[0];
    world.write("vector.json", serde_json::json!(vector).to_string());

    // What others would have written: JSON lines with keys of their own, Parquet with two columns of vectors.
    let line =
        |id: usize| serde_json::json!({ "_id": id, "embedding": vector, "source": "x", "words": 50 }).to_string();
    world.write("docs.jsonl", (0..20).map(|id| line(id) + "\n").collect::<String>());
    let packed = Command::new("gzip").arg(world.path("docs.jsonl")).status().expect("gzip runs");
    assert!(packed.success());
    let line =
        |id: usize| serde_json::json!({ "id": id, "vectors": { "title_emb": vector, "cover_emb": vec![1.0; 512] } });
    let rows = world.write("rows.jsonl", (0..20).map(|id| line(id).to_string() + "\n").collect::<String>());
    world.run(["import", "rows", &rows, "--create"]).ends_with(DONE);
    world.run(["export", "rows", &world.path("books.parquet")]).ends_with(DONE);
    let mut wide = floats(&matrix(20, 384));
    wide.truncate(5);
    let wide = world.write("wide.npy", npy(&wide));
    world.run(["import", "wide", &wide, "--create"]).ends_with(DONE);
    world.run(["export", "wide", &world.path("docs.parquet")]).ends_with(DONE);
}

#[test]
fn examples_in_help_texts_work_as_printed() {
    let world = World::new();
    files(&world);
    let mut ran = 0;
    for command in COMMANDS {
        match command {
            // What follows needs the collection with the fields of the sample, which this makes.
            ["import"] => {
                world.run(["collection", "delete", "docs", "--yes"]).ends_with(DONE);
                world.run(["collection", "delete", "photos", "--yes"]).ends_with(DONE);
            }
            ["get"] => {
                let line = serde_json::json!({ "id": POINT, "vector": floats(&matrix(1, 384))[0], "source": "x" });
                let file = world.write("point.jsonl", line.to_string());
                world.run(["import", "docs", &file]).ends_with(DONE);
            }
            // An export replaces nothing, and its file of ids holds numbers.
            ["export"] => {
                world.run(["delete", "docs", POINT, "--yes"]).ends_with(DONE);
                for name in ["docs.jsonl.gz", "base.npy", "payload.jsonl.gz"] {
                    std::fs::remove_file(world.path(name)).expect("removed");
                }
            }
            _ => {}
        }
        for line in examples(&world, command) {
            shell(&world, &confirmed(&line));
            ran += 1;
        }
    }
    println!("{ran} examples");
    assert!(ran >= 40, "only {ran} examples were found");
}

/// A command that asks for confirmation, with the answer: a test has no terminal.
fn confirmed(line: &str) -> String {
    let asks = line.starts_with("sagitta delete") || line.starts_with("sagitta collection delete");
    if asks && !line.contains("--yes") { line.replacen(" docs", " docs --yes", 1) } else { line.to_owned() }
}
