use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn each_command_is_described_with_examples() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(
            command.get_about().is_some_and(|about| about.to_string().len() > 30),
            "{name} is not described"
        );
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Examples:\n") && after.contains("\n  portolan "), "{name} has no examples");
        assert!(
            after.lines().all(|line| line.len() <= 80),
            "{name}: a line is longer than a terminal is wide"
        );
        for example in after.lines().filter_map(|line| line.strip_prefix("  portolan ")) {
            let words = example.split("  ").next().unwrap_or_default();
            let words = words.split(" | ").next().unwrap_or_default();
            let parsed = Cli::try_parse_from(["portolan"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_ok(), "the example {words:?} of {name} is not understood: {:?}", parsed.err());
        }
    }
}

#[test]
fn every_command_that_looks_takes_the_same_flags() {
    for name in ["status", "services", "pods", "routes", "flows", "monitor"] {
        let line = ["portolan", name, "--bpffs", "/b", "--state-dir", "/s", "-o", "json"];
        assert!(Cli::try_parse_from(line).is_ok(), "{name}");
    }
}

#[test]
fn where_nothing_is_pinned_every_command_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let explain = ["explain", "tcp", "10.244.1.7", "10.96.0.10:80"];
    let lines = [
        &["status"][..],
        &["services"],
        &["services", "a/b"],
        &["services", "--dump"],
        &["pods"],
        &["flows"],
        &["monitor"],
    ];
    for line in lines.into_iter().chain([&explain[..]]) {
        let line = [&["portolan"][..], line, &["--bpffs", dir, "--state-dir", dir]].concat();
        let error = Cli::try_parse_from(line).unwrap().execute().unwrap_err().to_string();
        assert!(error.contains("is the daemon running with this --bpffs?"), "{error}");
    }
}
