//! What the system says of memory and disks. Linux; elsewhere nothing is known, and nothing refused.

use std::fs;
use std::io;
use std::path::{Component, Path};

use super::gate::DiskSpace;

/// Memory of this process that the system cannot take back: `RssAnon` of `proc_pid_status(5)`.
///
/// Not the whole resident set: most of that are pages of mapped index files, which the system drops when memory is
/// wanted; counting them would refuse writes for being fast. Not what the allocator says is in use either: the budget is
/// about what the machine lacks. The system updates the figure in batches of a few dozen pages for each
/// thread, which is near enough.
pub(crate) fn process_memory_bytes() -> Option<u64> {
    kib_of("RssAnon:", &fs::read_to_string("/proc/self/status").ok()?)
}

/// Memory that this process could use at most: the machine's, or less where a control group limits it.
pub(crate) fn available_memory_bytes() -> Option<u64> {
    let machine = kib_of("MemTotal:", &fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(control_group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |limit| limit.min(machine)))
}

/// The file system that holds a folder.
pub(crate) fn disk_space(folder: &Path) -> io::Result<DiskSpace> {
    let found = rustix::fs::statvfs(folder)?;
    if found.f_blocks == 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the file system does not say how large it is"));
    }
    // What is reserved for root counts as used: we may not run as root.
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(DiskSpace { total_bytes: bytes(found.f_blocks), free_bytes: bytes(found.f_bavail) })
}

/// The value of a line `Name:   123 kB`.
fn kib_of(name: &str, text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib << 10)
}

/// The smallest limit of a process's control group and of the groups around it. `groups` is the content of
/// `/proc/self/cgroup`, `root` where the hierarchies are mounted.
///
/// Both versions of control groups may be there at once; the controller of memory is in one of them, and the other has no
/// limit to offer.
fn control_group_limit(groups: &str, root: &Path) -> Option<u64> {
    // A line is `hierarchy:controllers:path`; version 2 has one hierarchy, of all controllers, whose list is empty.
    let limit = |line: &str| {
        let (_, line) = line.split_once(':')?;
        match line.split_once(':')? {
            ("", group) => tightest_limit(root, group, "memory.max"),
            (controllers, group) if controllers.split(',').any(|name| name == "memory") => {
                tightest_limit(&root.join("memory"), group, "memory.limit_in_bytes")
            }
            _ => None,
        }
    };
    groups.lines().filter_map(limit).min()
}

/// The smallest number in files of this name, from a group's folder up to the root of its hierarchy.
fn tightest_limit(root: &Path, group: &str, file: &str) -> Option<u64> {
    let group = Path::new(group.strip_prefix('/')?);
    // A process that was moved out of its container's view has a path that leads upwards.
    let inner = group.components().all(|part| matches!(part, Component::Normal(_)));
    let group = if inner { root.join(group) } else { root.to_owned() };
    // A container may see its own group as the root, and know it by a path that exists only outside: then the root counts.
    let around = group.ancestors().take_while(|group| group.starts_with(root));
    let limit = |group: &Path| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    // No limit is "max", which is no number, in version 2, and in version 1 a number above what any machine has.
    around.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_name() {
        let text = "MemTotal:       24689216 kB\nMemFree:         1 kB\nHugePages_Total:       0\n";
        assert_eq!(kib_of("MemTotal:", text), Some(24_689_216 << 10));
        assert_eq!(kib_of("MemFree:", text), Some(1_024));
        assert_eq!((kib_of("HugePages_Total:", text), kib_of("Total:", text)), (None, None));
    }

    #[test]
    fn the_tightest_control_group_around_the_process_counts() {
        let temp = tempfile::tempdir().unwrap();
        let inner = temp.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let limit = |groups| control_group_limit(groups, temp.path());
        assert_eq!(limit("0::/outer/inner\n"), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit("0::/outer/inner\n"), None);
        fs::write(temp.path().join("outer/memory.max"), "4096\n").unwrap();
        assert_eq!(limit("1:name=systemd:/x\n0::/outer/inner\n"), Some(4_096));
        fs::write(inner.join("memory.max"), "1024\n").unwrap();
        assert_eq!(limit("0::/outer/inner\n"), Some(1_024));
        assert_eq!(
            (limit("0::/outer\n"), limit("0::/\n"), limit("0::/../x\n"), limit("")),
            (Some(4_096), None, None, None)
        );
    }

    #[test]
    fn the_first_version_of_control_groups_limits_as_well() {
        const DOCKER: &str =
            "12:cpu,cpuacct:/docker/5a61\n4:hugetlb,memory:/docker/5a61\n1:name=systemd:/docker/5a61\n";
        let temp = tempfile::tempdir().unwrap();
        let limit = |groups| control_group_limit(groups, temp.path());
        let write = |group: &str, file: &str, text: &str| {
            let group = temp.path().join(group);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join(file), text).unwrap();
        };
        assert_eq!(limit(DOCKER), None);
        // Inside a container: its group is the root of what it sees.
        write("memory", "memory.limit_in_bytes", "8192\n");
        assert_eq!(limit(DOCKER), Some(8_192));
        // Outside: without a limit of the whole, which is written as the largest number of whole pages.
        write("memory", "memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/docker", "memory.limit_in_bytes", "4096\n");
        write("memory/docker/5a61", "memory.limit_in_bytes", "1024\n");
        assert_eq!(limit(DOCKER), Some(1_024));
        assert_eq!(limit("4:memory:/docker\n"), Some(4_096));
        assert_eq!(limit("4:memory:/\n"), Some(9_223_372_036_854_771_712));
        // Both versions side by side: memory belongs to the first, or to the second.
        assert_eq!(limit("4:memory:/docker/5a61\n0::/docker/5a61\n"), Some(1_024));
        write("docker/5a61", "memory.max", "512\n");
        assert_eq!(limit("4:memory:/docker\n0::/docker/5a61\n"), Some(512));
        // Other controllers, and files of the other version, say nothing.
        assert_eq!((limit("3:cpu:/docker/5a61\n"), limit("3:memory_x:/docker/5a61\n")), (None, None));
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let (process, machine) = (process_memory_bytes().unwrap(), available_memory_bytes().unwrap());
        assert!(0 < process && process < machine, "{process} of {machine}");
        let disk = disk_space(Path::new("/")).unwrap();
        assert!(disk.free_bytes <= disk.total_bytes && disk.total_bytes > 0, "{disk:?}");
        assert!(disk_space(Path::new("/there/is/no/such/folder")).is_err());
    }
}
