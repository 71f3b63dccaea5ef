//! Imports that are cut off, whichever side ends, and go on when the same command is run again.

use std::fs::read;
use std::process::{Child, Command};

use crate::files::{floats, matrix, npy};
use crate::harness::{DONE, INTERRUPTED, Ran, UNAVAILABLE, World};
use crate::server::Server;

/// Enough for many chunks, so that there is a middle.
const ROWS: usize = 60_000;
/// An import that ended before it could be cut off proves nothing; the next one is tried.
const TRIES: usize = 10;

fn big_file(world: &World) -> String {
    world.write("big.npy", npy(&floats(&matrix(ROWS, 8))))
}

/// Starts an import and returns it when some of it, and not all, has been acknowledged.
fn in_the_middle(world: &World, collection: &str, file: &str) -> Child {
    for _ in 0..TRIES {
        let mut import = world.command(["import", collection, file]).spawn().expect("the program runs");
        // Each look is a run of the program, so this does not spin.
        while remembered_rows(world) == 0 || world.count(collection) == 0 {
            if import.try_wait().expect("waited").is_some() {
                break;
            }
        }
        if import.try_wait().expect("waited").is_none() {
            return import;
        }
        world.run(["delete", collection, "--filter", "{}", "--yes"]).ends_with(DONE);
    }
    panic!("every import of {ROWS} rows ended before it could be cut off");
}

/// Rows that the import under way remembers as acknowledged. What it has sent since may be in the collection already.
fn remembered_rows(world: &World) -> u64 {
    let files = world.state().join("imports").read_dir().into_iter().flatten();
    let files = files.filter_map(|file| Some(file.ok()?.path()));
    // One of another name is being written, and is not remembered before it is renamed.
    let saved =
        files.filter(|file| file.extension().is_some_and(|end| end == "json")).filter_map(|file| read(file).ok());
    let rows = saved.filter_map(|saved| serde_json::from_slice::<serde_json::Value>(&saved).ok()?["next_row"].as_u64());
    rows.max().unwrap_or_default()
}

fn collection(world: &World) {
    world.run(["collection", "create", "docs", "--dim", "8", "--metric", "l2"]).ends_with(DONE);
}

fn end(import: Child) -> Ran {
    import.wait_with_output().expect("waited").into()
}

/// Asserts that running the import again goes on in the middle and makes the collection complete.
fn check_goes_on(world: &World, file: &str) {
    let before = world.count("docs");
    assert!(before < ROWS as u64, "it was cut off");
    let again = world.run(["import", "docs", file, "-o", "json"]).ends_with(DONE);
    let again = again.says("going on at row ").says("--restart");
    let first = again.json()["first_row"].as_u64().expect("a number");
    assert!(0 < first && first <= before, "it went on at {first} of {before}");
    assert_eq!(again.json()["rows"], ROWS as u64 - first, "each row once more at most");
    assert_eq!(world.count("docs"), ROWS as u64, "exactly all of them");
    for row in [0, first as usize - 1, first as usize, ROWS - 1] {
        let point = &world.json(["get", "docs", &row.to_string(), "--vectors"])["points"][0];
        assert_eq!(point["vectors"]["default"], serde_json::json!(floats(&matrix(row + 1, 8))[row]), "row {row}");
    }
    // Once complete, nothing is remembered: the same command imports the file from its beginning.
    let afresh = world.run(["import", "docs", file, "-o", "json"]).ends_with(DONE);
    assert!(!afresh.err.contains("going on"), "{}", afresh.err);
    assert_eq!(afresh.json()["first_row"], 0);
    assert_eq!(world.count("docs"), ROWS as u64, "nothing is doubled");
}

#[test]
fn a_killed_import_goes_on_where_it_stopped() {
    let world = World::new();
    let file = big_file(&world);
    collection(&world);
    let mut import = in_the_middle(&world, "docs", &file);
    import.kill().expect("running");
    assert_eq!(end(import).code, -1);
    check_goes_on(&world, &file);
}

#[test]
fn an_import_that_is_interrupted_says_how_far_it_got_and_goes_on_from_there() {
    let world = World::new();
    let file = big_file(&world);
    collection(&world);
    let import = in_the_middle(&world, "docs", &file);
    assert!(Command::new("kill").args(["-INT", &import.id().to_string()]).status().expect("kill runs").success());
    let ran = end(import).ends_with(INTERRUPTED).says("interrupted (the first ");
    ran.says("rows are imported)").says("the same command goes on from there");
    check_goes_on(&world, &file);
}

#[test]
fn an_import_whose_server_is_killed_goes_on_when_it_is_back() {
    let world = World::new();
    let file = big_file(&world);
    collection(&world);
    let import = in_the_middle(&world, "docs", &file);
    let world = world.with_server_killed(|| {
        let ran = end(import).ends_with(UNAVAILABLE).says("cannot reach http://127.0.0.1:");
        ran.says("sagittad dev").says("the same command goes on from there");
    });
    check_goes_on(&world, &file);
}

#[test]
fn a_restart_is_by_choice_and_a_changed_file_begins_anew() {
    let world = World::new();
    let file = big_file(&world);
    collection(&world);
    let mut import = in_the_middle(&world, "docs", &file);
    import.kill().expect("running");
    end(import);
    let small = ["import", "docs", &file, "--restart", "-o", "json"];
    let ran = world.run(small).ends_with(DONE);
    assert_eq!((&ran.json()["first_row"], &ran.json()["rows"]), (&0.into(), &ROWS.into()));
    assert_eq!(world.count("docs"), ROWS as u64);

    world.run(["delete", "docs", "--filter", "{}", "--yes"]).ends_with(DONE);
    let mut import = in_the_middle(&world, "docs", &file);
    import.kill().expect("running");
    end(import);
    world.write("big.npy", npy(&floats(&matrix(10, 8))));
    let ran = world.run(["import", "docs", &file, "-o", "json"]).ends_with(DONE).says("the file changed");
    assert_eq!((&ran.json()["first_row"], &ran.json()["rows"]), (&0.into(), &10.into()));
}

#[test]
fn progress_that_cannot_be_remembered_is_a_warning_and_no_failure() {
    let world = World::new();
    let file = world.write("small.npy", npy(&floats(&matrix(5_000, 8))));
    collection(&world);
    world.write("state", "a file where the folder would be");
    let ran = world.run(["import", "docs", &file]).ends_with(DONE).says("warning: progress cannot be remembered");
    ran.shows("5,000 rows");
    assert_eq!(world.count("docs"), 5_000);
}

#[test]
fn a_server_that_is_not_there_is_told_from_one_that_is() {
    let address = {
        let temp = tempfile::tempdir().expect("temporary");
        let server = Server::start(&temp.path().join("data"));
        server.endpoint.clone()
    };
    let world = World::new();
    let ran = world.run(["count", "docs", "--endpoint", &address, "--timeout", "2s"]).ends_with(UNAVAILABLE);
    ran.says(&format!("cannot reach {address}")).says("sagittad dev").says("SAGITTA_ENDPOINT");
    world.run(["status", "--endpoint", &address, "--timeout", "2s"]).ends_with(UNAVAILABLE);
    world.run(["status"]).ends_with(DONE).shows("answered in").shows("0 collections, 0 points");
}
