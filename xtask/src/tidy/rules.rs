//! The rules, each a function of the whole tree.

use super::tree::Tree;
use super::{Finding, links, reach};

pub(super) type Rule = fn(&Tree) -> Vec<Finding>;

/// Every rule.
pub(super) const ALL: [Rule; 9] = [
    reach::orphans,
    links::dead,
    too_long,
    misplaced_unsafe,
    forbidden_words,
    nameless_modules,
    missing_licence,
    sleeping,
    impure_core,
];

/// Lines of a Rust file: more is an error, and a warning beyond the second.
const MOST_LINES: usize = 600;
const MANY_LINES: usize = 400;

/// Where `unsafe` may be, by a part of the path, and for what.
const UNSAFE: [(&str, &str); 13] = [
    ("ebpf/", "kernel memory, and the layouts shared with it"),
    ("proxy/src/dataplane", "bpf(2)"),
    ("cni-plugin/src/ledger", "bpf(2)"),
    ("cni-plugin/src/bpf.rs", "bpf(2)"),
    ("cni-plugin/src/hook", "bpf(2)"),
    ("cni-plugin/tests/plugin/hook.rs", "bpf(2), to see what is attached"),
    ("cni-plugin/src/carrier.rs", "an ioctl that netlink has no equivalent of"),
    ("netns", "setns(2) and its kin"),
    ("tests/src/offload.rs", "an ioctl that netlink has no equivalent of"),
    ("xtask/guest/src/forward/cable.rs", "the same ioctl, in a guest"),
    ("xtask/guest/src/forward/clock.rs", "bpf(2)"),
    ("tests/src/place.rs", "entering namespace and cgroup between fork and exec"),
    ("tests/src/programs.rs", "bpf(2), to see what is attached"),
];

/// Words that say "not finished". Put together here, so that this file does not break its own rule.
const FORBIDDEN: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("unimple", "mented!"),
    concat!("to", "do!("),
    concat!("#[", "ignore"),
];

/// Names that say nothing about what is inside.
const NAMELESS: [&str; 6] = ["common.rs", "helper.rs", "helpers.rs", "mod.rs", "util.rs", "utils.rs"];

/// Where a thread may sleep, and why there is no event to wait for.
const SLEEPS: [(&str, &str); 8] = [
    (
        "xtask/guest/src/daemon.rs",
        "the daemon's status file is polled, in a guest whose waiting costs nothing",
    ),
    ("xtask/src/bench/sandbox.rs", "the daemon's status file is polled to time its appearance from outside"),
    ("tests/src/wait.rs", "the one place where tests poll what the kernel announces to nobody"),
    ("tests/src/cgroup.rs", "a cgroup can be removed some time after its last process has ended"),
    ("tests/src/daemon.rs", "that a health port answers is seen by asking, as a kubelet does"),
    ("tests/src/traffic/load.rs", "the pace of a load is time"),
    ("tests/tests/restart.rs", "a kill at a random moment is a matter of time"),
    ("tests/tests/services/stick.rs", "the end of an affinity is a matter of time"),
];

/// What the deciding half may depend on: nothing that does I/O.
const PURE: [&str; 2] = ["ipnetwork", "portolan-abi"];

/// Files on their way to being too long; not an error yet.
pub(super) fn growing(tree: &Tree) -> Vec<Finding> {
    longer_than(tree, MANY_LINES)
}

fn too_long(tree: &Tree) -> Vec<Finding> {
    longer_than(tree, MOST_LINES)
}

fn longer_than(tree: &Tree, limit: usize) -> Vec<Finding> {
    tree.rust()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > limit)
        .map(|(path, lines)| {
            Finding::new(path, format!("{lines} lines, more than {limit}: it has several subjects"))
        })
        .collect()
}

fn misplaced_unsafe(tree: &Tree) -> Vec<Finding> {
    let allowed = |path: &str| UNSAFE.iter().any(|(part, _)| path.contains(part));
    let is_unsafe =
        |code: &str| ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|form| code.contains(form));
    lines_where(tree, |path, line| !allowed(path) && is_unsafe(code(line)))
        .map(|place| {
            Finding::new(place, "unsafe code belongs where system calls are made: tidy/rules.rs has the list")
        })
        .collect()
}

fn forbidden_words(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| !path.ends_with(".lock")) {
        for (number, line) in (1..).zip(text.lines()) {
            for word in FORBIDDEN.into_iter().filter(|word| line.contains(word)) {
                findings.push(Finding::new(
                    format!("{path}:{number}"),
                    format!("`{word}`: finish it or drop it"),
                ));
            }
        }
    }
    findings
}

fn nameless_modules(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|(path, _)| NAMELESS.contains(&path.rsplit('/').next().unwrap_or(path)))
        .map(|(path, _)| Finding::new(path, "name the module after what it is about (and not `mod.rs`)"))
        .collect()
}

fn missing_licence(tree: &Tree) -> Vec<Finding> {
    const LINE: &str = "// SPDX-License-Identifier: ";
    let has_line = |path: &&String| tree.files.get(*path).is_none_or(|text| text.starts_with(LINE));
    let missing = tree.crates.iter().filter(|path| !has_line(path));
    missing.map(|path| Finding::new(path, format!("the first line of a crate is `{LINE}…`"))).collect()
}

fn sleeping(tree: &Tree) -> Vec<Finding> {
    let allowed = |path: &str| SLEEPS.iter().any(|(part, _)| path.starts_with(part));
    let sleeps = |code: &str| code.contains("thread::sleep(") || code.trim_start().starts_with("sleep(");
    lines_where(tree, |path, line| !allowed(path) && sleeps(code(line)))
        .map(|place| Finding::new(place, "wait for an event instead of sleeping"))
        .collect()
}

fn impure_core(tree: &Tree) -> Vec<Finding> {
    let core = tree.packages.iter().filter(|package| package.name == "portolan-core");
    core.flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.kind.is_none() && !PURE.contains(&dependency.name.as_str()))
        .map(|dependency| {
            let what = format!("the core decides and does no I/O: it cannot depend on {}", dependency.name);
            Finding::new("proxy/core/Cargo.toml", what)
        })
        .collect()
}

/// The places of the lines of Rust files that `is` says yes to.
fn lines_where<'a>(
    tree: &'a Tree,
    is: impl Fn(&str, &str) -> bool + 'a,
) -> impl Iterator<Item = String> + 'a {
    let numbered = |(path, text): (&'a str, &'a str)| {
        (1..).zip(text.lines()).map(move |(number, line): (usize, _)| (path, number, line))
    };
    tree.rust()
        .flat_map(numbered)
        .filter(move |(path, _, line)| is(path, line))
        .map(|(path, number, _)| format!("{path}:{number}"))
}

/// The line without its comment and its string literals, roughly.
fn code(line: &str) -> &str {
    let line = line.split("//").next().unwrap_or(line);
    line.split('"').next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree {
            files: [(path.to_owned(), text.to_owned())].into(),
            crates: [path.to_owned()].into(),
            ..Tree::default()
        }
    }

    #[test]
    fn every_rule_finds_what_it_forbids() {
        let rows: [(Rule, &str, String, bool); 13] = [
            (too_long, "a/src/b.rs", "\n".repeat(601), true),
            (too_long, "a/src/b.rs", "\n".repeat(600), false),
            (misplaced_unsafe, "proxy/src/app.rs", "let a = unsafe { b() };".into(), true),
            (misplaced_unsafe, "proxy/src/dataplane/sys.rs", "let a = unsafe { b() };".into(), false),
            (misplaced_unsafe, "proxy/src/app.rs", "// an unsafe { block }".into(), false),
            (forbidden_words, "README.md", format!("{}: later", FORBIDDEN[0]), true),
            (forbidden_words, "a.rs", format!("{}]", FORBIDDEN[5]), true),
            (nameless_modules, "a/src/utils.rs", String::new(), true),
            (nameless_modules, "a/src/utilisation.rs", String::new(), false),
            (missing_licence, "a/src/lib.rs", "//! A crate.".into(), true),
            (missing_licence, "a/src/lib.rs", "// SPDX-License-Identifier: Apache-2.0\n".into(), false),
            (sleeping, "a/src/b.rs", "    std::thread::sleep(a);".into(), true),
            (sleeping, "tests/src/wait.rs", "    thread::sleep(a);".into(), false),
        ];
        for (number, (rule, path, text, expected)) in rows.into_iter().enumerate() {
            let found = rule(&tree(path, &text));
            assert_eq!(!found.is_empty(), expected, "row {number}: {found:?}");
        }
    }
}
