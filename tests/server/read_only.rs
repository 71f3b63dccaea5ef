//! A folder that cannot be written to is refused with the way out.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{Server, data};

/// The server without the right of the superuser to write what is protected, so that the test is the same for everybody.
fn unprivileged(data: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_sagittad");
    let id = Command::new("id").arg("-u").output().expect("id runs").stdout;
    let mut command = if id.trim_ascii() == b"0" {
        let mut command = Command::new("setpriv");
        let without = "-dac_override,-dac_read_search";
        command.args(["--bounding-set", without, "--inh-caps", without, binary]);
        command
    } else {
        Command::new(binary)
    };
    command.arg("dev").arg("--data").arg(data).args(["--listen", "127.0.0.1:0", "--log", "error"]);
    command
}

/// Forbids to write to a folder and to everything in it, or allows it again.
fn set_writable(path: &Path, writable: bool) {
    let mode = match (path.is_dir(), writable) {
        (true, true) => 0o755,
        (true, false) => 0o555,
        (false, true) => 0o644,
        (false, false) => 0o444,
    };
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    if path.is_dir() {
        fs::read_dir(path)
            .expect("readable")
            .for_each(|entry| set_writable(&entry.expect("readable").path(), writable));
    }
}

#[test]
fn a_read_only_folder_is_named_once_with_the_way_out_and_left_as_it_is() {
    let temp = tempfile::tempdir().expect("temporary");
    let folder = data(&temp);
    assert!(Server::start(&folder).terminate());
    set_writable(temp.path(), false);
    for refused in [folder.clone(), temp.path().join("new")] {
        let said = Server::refusal_of(unprivileged(&refused));
        let name = refused.display().to_string();
        assert!(said.contains(&format!("{name} cannot be written to")) && said.contains("--data"), "{said}");
        assert_eq!(said.matches("Permission denied").count(), 1, "the cause is told once: {said}");
    }
    set_writable(temp.path(), true);
    assert!(!temp.path().join("new").exists());
    assert!(Server::start(&folder).terminate(), "it is as it was");
}
