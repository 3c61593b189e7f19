//! `deploy/portolan.yaml` against the program it runs: flags, paths, ports.

use std::collections::BTreeMap;

use std::process::Command;

use crate::process::capture;
use crate::workspace::{dev_program, read, root};

/// What `portolan run --help` says of the program that `cargo xtask test` has built before it runs this.
fn help() -> String {
    let program = dev_program("portolan");
    assert!(program.is_file(), "{} is not built: run `cargo xtask build`", program.display());
    capture(Command::new(program).args(["run", "--help"])).unwrap()
}

/// The manifest's documents.
fn documents() -> Vec<String> {
    let text = read(&root().join("deploy/portolan.yaml")).unwrap();
    text.split("\n---\n").map(str::to_owned).collect()
}

/// The document of a kind; there is one of each.
fn document(kind: &str) -> String {
    let line = format!("kind: {kind}");
    let mut found: Vec<_> =
        documents().into_iter().filter(|text| text.lines().any(|own| own == line)).collect();
    assert_eq!(found.len(), 1, "one {kind}");
    found.remove(0)
}

/// `--name=value` arguments of the main container.
fn flags() -> BTreeMap<String, String> {
    let daemon_set = document("DaemonSet");
    let flags = daemon_set.lines().filter_map(|line| line.trim().strip_prefix("- --"));
    flags
        .map(|flag| {
            let (name, value) = flag.split_once('=').unwrap_or_else(|| panic!("--{flag}: write it with `=`"));
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn every_flag_exists() {
    let help = help();
    let flags = flags();
    assert!(flags.len() >= 5, "{flags:?}");
    for name in flags.keys() {
        let known = help.lines().any(|line| line.trim_start().starts_with(&format!("--{name} ")));
        assert!(known, "portolan run has no --{name}");
    }
}

#[test]
fn every_folder_that_a_flag_names_is_mounted_at_the_same_path_from_the_host() {
    let daemon_set = document("DaemonSet");
    let containers = daemon_set.split_once("      containers:").unwrap().1;
    let folders: Vec<_> = flags().into_values().filter(|value| value.starts_with('/')).collect();
    assert!(folders.len() >= 4, "{folders:?}");
    for folder in folders {
        assert!(containers.contains(&format!("mountPath: {folder}\n")), "{folder} is not mounted");
        assert!(containers.contains(&format!("path: {folder}\n")), "{folder} is not the host's");
    }
}

#[test]
fn defaults_of_the_program_and_the_manifest_agree() {
    let help = help();
    for (flag, default) in [("bpffs", "/sys/fs/bpf"), ("state-dir", "/run/portolan")] {
        assert_eq!(flags().get(flag).map(String::as_str), Some(default));
        assert!(help.contains(&format!("[default: {default}]")), "--{flag} has the default {default}");
    }
    assert!(help.contains("[default: 0.0.0.0:10256]"));
    assert_eq!(document("DaemonSet").matches("port: 10256").count(), 2, "both probes ask the health port");
}

#[test]
fn the_role_reads_what_the_daemon_follows_and_no_more() {
    let role = document("ClusterRole");
    let resources: Vec<_> = role.lines().filter_map(|line| line.trim().strip_prefix("resources: ")).collect();
    assert_eq!(
        resources,
        [r#"["services", "nodes"]"#, r#"["endpointslices"]"#, r#"["servicecidrs"]"#, r#"["events"]"#]
    );
    assert_eq!(role.matches(r#"verbs: ["get", "list", "watch"]"#).count(), 3);
    assert_eq!(role.matches(r#"verbs: ["create", "patch"]"#).count(), 1);
}

#[test]
fn the_long_running_container_is_not_privileged() {
    let daemon_set = document("DaemonSet");
    let (before, main) = daemon_set.split_once("      containers:").unwrap();
    assert!(before.contains("privileged: true"), "the init container mounts");
    assert!(!main.contains("privileged: true"));
    assert!(main.contains(r#"drop: ["ALL"]"#));
    assert!(!main.contains("SYS_ADMIN"));
}
