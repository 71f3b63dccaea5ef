//! `sagittad inspect` over the folder of a server that has stopped.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{DATA, DEGRADED, DONE, FAILED, NOT_FOUND, UNAVAILABLE, USAGE, World, inspect, picture, sample};
use crate::server::{Server, copy_folder, files_below};

/// The folder of a server with a collection that is partly sealed, whose server was stopped, and where.
fn specimen(world: World) -> (tempfile::TempDir, PathBuf) {
    let base = sample("text384-4k.base.f16.npy");
    world.run(["collection", "create", "docs", "--dim", "384", "--shards", "2", "--index", "graph"]).ends_with(DONE);
    world.run(["import", "docs", &base]).ends_with(DONE);
    world.run(["delete", "docs", "0", "1", "2", "--yes"]).ends_with(DONE);
    let (temp, server) = world.into_parts();
    assert!(server.terminate());
    let data = temp.path().join("data");
    (temp, data)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 4;
    fs::write(path, bytes).expect("written");
}

/// Looks at a folder, which must not change by it.
#[track_caller]
fn look(data: &Path, code: i32) -> Value {
    let before = picture(data);
    let report = inspect(data, &["--output", "json"]).ends_with(code).json();
    let after = picture(data);
    let changed: Vec<_> = after.iter().filter(|(path, state)| before.get(*path) != Some(state)).collect();
    assert!(
        changed.is_empty() && before.len() == after.len(),
        "looking has changed {:?}",
        changed.iter().map(|(path, _)| path)
    );
    report
}

/// What is said to be wrong, with how serious it is.
fn problems(report: &Value) -> Vec<(String, String)> {
    let problems = report["problems"].as_array().expect("a list").iter();
    let text = |problem: &Value, key: &str| problem[key].as_str().expect("text").to_owned();
    problems.map(|problem| (text(problem, "seriousness"), text(problem, "what"))).collect()
}

#[test]
fn a_stopped_server_is_shown_and_not_a_byte_of_its_folder_changes() {
    let (_temp, data) = specimen(World::new());
    let report = look(&data, DONE);
    assert_eq!((problems(&report), &report["verified"]), (Vec::new(), &json!(true)));
    let node = &report["node"];
    assert_eq!((&node["founder"], &node["known_as"]["status"]), (&json!(true), &json!("up")));
    assert_eq!((&node["known_as"]["coordinator"], &node["known_as"]["shard"]), (&json!(true), &json!(true)));
    assert_eq!(report["control"]["applied"]["collections"][0]["name"], "docs");
    let shards = report["shards"].as_array().expect("a list");
    let sum = |key: &str| shards.iter().map(|shard| shard[key].as_u64().expect(key)).sum::<u64>();
    assert_eq!((shards.len(), sum("points"), sum("unsealed")), (2, 3_997, 3_997));
    for shard in shards {
        assert_eq!(
            (&shard["collection"], &shard["condition"], &shard["wanted"]),
            (&json!("docs"), &json!("sound"), &json!(true))
        );
    }
    let groups = report["log"]["groups"].as_array().expect("a list");
    assert_eq!(groups.iter().map(|group| group["group"].clone()).collect::<Vec<_>>(), [json!(1), json!(16), json!(17)]);
    for group in groups {
        assert_eq!((&group["continues"], &group["voters"]), (&json!(true), &json!([node["id"]])), "{group:#}");
        assert_eq!(group["applied_index"], group["last_index"], "all was applied: {group:#}");
    }
    let people = inspect(&data, &[]).ends_with(DONE).shows("which it founded").shows("Replicas").shows("Raft log");
    people.shows("0000000000000000-7fffffffffffffff").shows("All is well: every byte was read.");
    inspect(&data, &["--quick"]).ends_with(DONE).shows("All is well: only what a start reads was read.");
    // And it starts as if nobody had looked.
    let server = Server::start(&data);
    inspect(&data, &[]).ends_with(UNAVAILABLE).says("in use by a running process").says("stop it first");
    let refused = inspect(&data, &["-o", "json"]).ends_with(UNAVAILABLE);
    let document: Value = serde_json::from_str(&refused.err).expect("errors are JSON, too");
    assert_eq!((&document["error"]["kind"], &*refused.out), (&json!("unavailable"), ""));
    assert!(server.terminate());
}

#[test]
fn a_flipped_bit_is_told_with_its_file_and_everything_else_is_shown() {
    let (temp, sound) = specimen(World::new());
    let copy = temp.path().join("copy");
    let (mut truths, mut harmless) = (0, Vec::new());
    for file in files_below(&sound) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        // What RocksDB and we lock and log with, and what the library keeps for itself.
        if ["LOG", "LOCK", "lock", "IDENTITY"].contains(&&*name)
            || name.starts_with("OPTIONS")
            || name.ends_with(".log")
        {
            continue;
        }
        let path = copy.join(&file);
        let _ = fs::remove_dir_all(&copy);
        copy_folder(&sound, &copy);
        let bytes = fs::metadata(&path).expect("a file").len() as usize;
        flip(&path, bytes / 2);
        let ran = inspect(&copy, &["-o", "json"]);
        if ran.code == DONE {
            harmless.push(file);
            continue;
        }
        truths += 1;
        let report = ran.ends_with(DATA).json();
        let told = problems(&report);
        let is_blob = name.ends_with(".blob");
        let place = if is_blob { path.parent().expect("a folder") } else { &path };
        let place = place.to_str().expect("UTF-8");
        // A folder says enough where the database has one file of that name.
        let named = |(_, what): &&(String, String)| what.contains(place) || what.contains(&name);
        assert!(told.iter().any(|problem| named(&problem)), "{name}: {told:?}");
        let shards = report["shards"].as_array().expect("a list");
        let other = if file.starts_with("shards/16") { 17 } else { 16 };
        let other = shards.iter().find(|shard| shard["shard"] == other).expect("the other replica");
        assert!(other["points"].as_u64().is_some_and(|points| points > 1_900), "{name}: {report:#}");
        if !file.starts_with("log") {
            assert_eq!(report["log"]["groups"].as_array().map(Vec::len), Some(3), "{name}");
        }
        let people = inspect(&copy, &[]).ends_with(DATA).shows("damage: ").shows("does not mend by itself");
        assert!(people.err.is_empty(), "{people:?}");
    }
    // One of two copies of the mark, and an end of the log that was made ready for what never came.
    assert!(truths >= 15 && harmless.len() <= 3, "{truths} found, {harmless:?} not");
}

#[test]
fn a_damaged_segment_is_no_loss_and_is_said_to_be_built_again() {
    let world = World::new();
    let base = sample("text384-4k.base.f16.npy");
    world.run(["collection", "create", "docs", "--dim", "384", "--index", "flat"]).ends_with(DONE);
    for offset in ["0", "4000", "8000", "12000", "16000"] {
        world.run(["import", "docs", &base, "--id-offset", offset]).ends_with(DONE);
    }
    let sealed = || world.json(["collection", "describe", "docs"])["statistics"]["sealed_segments"].as_u64();
    while sealed().is_none_or(|segments| segments == 0) {
        crate::server::pause();
    }
    let (temp, server) = world.into_parts();
    assert!(server.terminate());
    let data = temp.path().join("data");
    let report = look(&data, DONE);
    let segment = &report["shards"][0]["segments"][0];
    assert_eq!(segment["indexes"], json!({ "default": "flat" }), "{segment:#}");
    assert!(segment["points"].as_u64().is_some_and(|points| points >= 16_384), "{segment:#}");
    let folder = format!("shards/{}/segments/{}", report["shards"][0]["shard"], segment["segment"]);
    let files = files_below(&data.join(&folder));
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let path = data.join(&folder).join(&file);
        let sound = fs::read(&path).expect("a file");
        flip(&path, sound.len() / 2);
        let report = look(&data, DEGRADED);
        let told = problems(&report);
        let name = path.to_str().expect("UTF-8");
        assert!(told.iter().all(|(how, what)| how == "mends" && what.contains(name)), "{file:?}: {told:?}");
        assert_eq!(report["shards"][0]["condition"], "rebuilds");
        fs::write(&path, sound).expect("written");
    }
    flip(&data.join(&folder).join("ids"), 40);
    let people = inspect(&data, &[]).ends_with(DEGRADED).shows("mends: ").shows("rebuilds");
    people.shows(&format!("sagittad dev --data {}", data.display())).shows("built again when the node starts");
}

#[test]
fn what_is_no_data_folder_is_refused_with_what_is_one() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let absent = temp.path().join("absent");
    inspect(&absent, &[]).ends_with(NOT_FOUND).says("no such folder").says("--data");
    assert!(!absent.exists());
    inspect(temp.path(), &[]).ends_with(NOT_FOUND).says("holds no sagitta.json");
    let file = temp.path().join("file");
    fs::write(&file, "x").expect("written");
    inspect(&file, &[]).ends_with(NOT_FOUND).says("it is a file");
    inspect(temp.path(), &["--output", "yaml"]).ends_with(USAGE).says("table, json");
    fs::write(temp.path().join("sagitta.json"), r#"{"format":9}"#).expect("written");
    inspect(temp.path(), &[]).ends_with(DATA).shows("format 9").shows("run the newer version");
    fs::remove_file(temp.path().join("sagitta.json")).expect("removed");
    fs::create_dir(temp.path().join("sagitta.json")).expect("made");
    let strange = inspect(temp.path(), &[]);
    assert!(strange.code == DATA || strange.code == FAILED, "{strange:?}");
}
