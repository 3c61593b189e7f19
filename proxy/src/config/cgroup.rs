//! Finds the root of the cgroup v2 hierarchy.

use std::path::PathBuf;

/// The mount of cgroup v2 nearest to the root of the hierarchy, in a `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
///
/// A mount's root is given as seen from the reader's cgroup namespace: in a container it begins with `/..` for the
/// host's hierarchy, and is `/` for the container's own, in which no pod is.
pub(super) fn find(mountinfo: &str) -> Option<PathBuf> {
    let mut best: Option<(i32, PathBuf)> = None;
    for (root, mount_point) in mountinfo.lines().filter_map(cgroup2) {
        let depth = depth(root);
        if best.as_ref().is_none_or(|(least, _)| depth < *least) {
            best = Some((depth, unescape(mount_point)));
        }
    }
    best.map(|(_, path)| path)
}

/// Root and mount point, if the line is a cgroup2 mount.
fn cgroup2(line: &str) -> Option<(&str, &str)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, mount_point) = (fields.next()?, fields.next()?);
    (filesystem.split(' ').next() == Some("cgroup2")).then_some((root, mount_point))
}

fn depth(root: &str) -> i32 {
    root.split('/').filter(|part| !part.is_empty()).map(|part| if part == ".." { -1 } else { 1 }).sum()
}

/// Space, tab, newline and backslash are written in octal.
fn unescape(path: &str) -> PathBuf {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "24 23 0:22 / /proc rw - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    const CONTAINER: &str = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n\
        40 23 0:28 /../../.. /host/cgroup rw - cgroup2 cgroup rw\n\
        41 23 0:28 /.. /host/part rw - cgroup2 cgroup rw";
    const PART_FIRST: &str = "30 23 0:28 /lab/a /lab\\040a rw - cgroup2 none rw\n\
        31 23 0:28 / /sys/fs/cgroup rw - cgroup2 none rw";

    #[test]
    fn the_mount_nearest_to_the_root_is_taken() {
        let rows = [
            ("one hierarchy", UNIFIED, Some("/sys/fs/cgroup")),
            ("both versions", HYBRID, Some("/sys/fs/cgroup/unified")),
            ("a container with the host's hierarchy", CONTAINER, Some("/host/cgroup")),
            ("a part of it mounted first", PART_FIRST, Some("/sys/fs/cgroup")),
            ("only a part of it", PART_FIRST.lines().next().unwrap(), Some("/lab a")),
            ("none", "24 23 0:22 / /proc rw - proc proc rw", None),
        ];
        for (name, mountinfo, expected) in rows {
            assert_eq!(find(mountinfo), expected.map(PathBuf::from), "{name}");
        }
    }
}
