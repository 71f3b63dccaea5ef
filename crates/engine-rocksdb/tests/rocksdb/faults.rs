//! What the world around a database does to it: other processes, permissions, full and read-only disks.
//! What needs root is skipped without it, and says so.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{check_rows, engine, folder, open, put_rows, this_test_as_child};
use sagitta_engine::kv::{KvEngine, KvError};
use sagitta_env::Env;

const CHILD_DIR: &str = "SAGITTA_TEST_FAULT_DIR";
/// A user that owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn a_folder_of_another_process_is_refused_by_name() {
    let (_root, root) = folder();
    let dir = root.join("db");
    let mut holder = this_test_as_child("faults::child_that_holds_a_database", CHILD_DIR, &dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept until the end: the child must be able to go on talking.
    let mut said = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line == "holding"), "the child did not open");

    let engine = engine();
    let error = open(&engine, &dir).map(|_| ()).unwrap_err();
    assert_eq!(error, KvError::Locked { dir: dir.clone() });
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    assert_eq!(engine.destroy(&dir), Err(KvError::Locked { dir: dir.clone() }));

    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success(), "the holder's database was damaged");
    check_rows(&*open(&engine, &dir).unwrap(), 0..10).unwrap();
}

/// Not a test of its own: the other process.
#[test]
fn child_that_holds_a_database() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let engine = engine();
    let kv = open(&engine, Path::new(&dir)).unwrap();
    put_rows(&*kv, 0..10).unwrap();
    // On a line of its own: the test runner has printed a part of one.
    println!("\nholding");
    std::io::stdin().lines().for_each(drop);
    kv.flush().unwrap();
    check_rows(&*kv, 0..10).unwrap();
}

#[test]
fn a_folder_without_write_permission_is_refused() {
    let (_root, root) = folder();
    let dir = root.join("db");
    let engine = engine();
    let kv = open(&engine, &dir).unwrap();
    put_rows(&*kv, 0..10).unwrap();
    kv.flush().unwrap();
    drop(kv);

    // Permissions do not bind root, so another user tries; it has to be able to reach this program and the folder.
    let program = root.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for path in [&root, &dir, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    }
    for entry in fs::read_dir(&dir).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o444)).unwrap();
    }
    let mut child = Command::new(&program);
    child.args(["faults::child_that_may_not_write", "--exact", "--nocapture"]).env(CHILD_DIR, &dir);
    if is_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.output().unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("refused"), "{said}{:?}", output);
    check_rows(&*open(&engine, &dir).unwrap(), 0..10).unwrap();
}

/// Not a test of its own: the other user.
#[test]
fn child_that_may_not_write() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = PathBuf::from(dir);
    for dir in [dir.clone(), dir.with_file_name("new")] {
        let error = open(&engine(), &dir).map(|_| ()).unwrap_err();
        println!("refused: {error}");
        assert!(matches!(error, KvError::ReadOnly { .. }), "{error:?}");
    }
}

#[test]
fn a_read_only_file_system_is_refused() {
    let (_root, root) = folder();
    let Some(disk) = SmallDisk::mount(&root, 32) else {
        return;
    };
    let dir = disk.path.join("db");
    let engine = engine();
    let kv = open(&engine, &dir).unwrap();
    put_rows(&*kv, 0..10).unwrap();
    kv.flush().unwrap();
    drop(kv);
    disk.remount("ro");
    for dir in [dir.clone(), disk.path.join("new")] {
        let error = open(&engine, &dir).map(|_| ()).unwrap_err();
        println!("{error}");
        assert!(matches!(error, KvError::ReadOnly { .. }), "{error:?}");
    }
    disk.remount("rw");
    check_rows(&*open(&engine, &dir).unwrap(), 0..10).unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_goes_away_by_itself() {
    let (_root, root) = folder();
    let Some(disk) = SmallDisk::mount(&root, 24) else {
        return;
    };
    let dir = disk.path.join("db");
    let engine = engine();
    let kv = open(&engine, &dir).unwrap();
    put_rows(&*kv, 0..100).unwrap();
    kv.flush().unwrap();

    // Fill the disk, then write until it shows.
    let ballast = disk.path.join("ballast");
    fill(&ballast);
    let mut rows = 100;
    let error = loop {
        match put_rows(&*kv, rows..rows + 1).and_then(|()| kv.flush()) {
            Ok(()) => rows += 1,
            Err(error) => break error,
        }
        assert!(rows < 100_000, "the disk does not get full");
    };
    println!("after {rows} rows: {error}");
    assert!(matches!(error, KvError::Full { .. }), "{error:?}");
    let health = kv.health();
    println!("{health:?}");
    assert!(matches!(health.write_error, Some(KvError::Full { .. }) | None), "{health:?}");
    assert!(matches!(kv.checkpoint(&disk.path.join("copy")), Err(KvError::Full { .. })));
    // The row whose flush failed was applied if its write went well; what is readable stays so.
    let readable = if kv.get(crate::common::META, b"last").unwrap() == Some(rows.to_be_bytes().to_vec()) {
        rows + 1
    } else {
        rows
    };
    check_rows(&*kv, 0..readable).unwrap();

    fs::remove_file(&ballast).unwrap();
    let env = Env::real();
    let begun = env.now();
    let mut next = readable;
    loop {
        match put_rows(&*kv, next..next + 1) {
            Ok(()) => {
                next += 1;
                match kv.flush() {
                    Ok(()) => break,
                    Err(error) => assert!(matches!(error, KvError::Full { .. }), "{error:?}"),
                }
            }
            Err(error) => assert!(matches!(error, KvError::Full { .. }), "{error:?}"),
        }
        assert!(env.now() - begun < Duration::from_secs(60), "it does not resume");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    println!("resumed after {:?}", env.now() - begun);
    check_rows(&*kv, 0..next).unwrap();
    assert_eq!(kv.health().write_error, None);
    drop(kv);
    check_rows(&*open(&engine, &dir).unwrap(), 0..next).unwrap();
}

#[test]
fn a_file_in_place_of_the_folder_is_reported() {
    let (_root, root) = folder();
    let path = root.join("db");
    fs::write(&path, "not a folder").unwrap();
    let error = open(&engine(), &path).map(|_| ()).unwrap_err();
    assert!(matches!(&error, KvError::Io { what, .. } if what.contains("file")), "{error}");
}

/// Writes zeros until nothing more fits.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    for piece in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

/// A file system of a few megabytes in memory.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None`, and a word about it, where mounting is not allowed.
    fn mount(root: &Path, mebibytes: u64) -> Option<Self> {
        let path = root.join("disk");
        fs::create_dir(&path).unwrap();
        let options = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        if mount.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self { path });
        }
        eprintln!("SKIPPED: mounting a small tmpfs needs root: {mount:?}");
        None
    }

    fn remount(&self, mode: &str) {
        let options = format!("remount,{mode}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.path).status().unwrap();
        assert!(status.success(), "remount {mode}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, should a failed test still have it open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}
