//! Every Rust file is compiled: reached from a crate's root by `mod` lines.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::Tree;

pub(super) fn orphans(tree: &Tree) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<String> = tree.roots.iter().cloned().collect();
    while let Some(path) = open.pop() {
        if let Some(text) = tree.files.get(&path) {
            open.extend(modules(&path, tree.roots.contains(&path), text));
            reached.insert(path);
        }
    }
    tree.rust()
        .filter(|(path, _)| !reached.contains(*path))
        .map(|(path, _)| {
            Finding::new(path, "no `mod` line leads here: it is not compiled, its tests do not run")
        })
        .collect()
}

/// Where the modules that a file declares are, with a slash at the end.
fn folder_of_modules(path: &str, is_root: bool) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    if is_root { folder } else { format!("{folder}{}/", file.trim_end_matches(".rs")) }
}

/// The files that lines such as `pub(crate) mod name;` lead to, with a line `#[path = "file.rs"]` before them or not.
fn modules(path: &str, is_root: bool, text: &str) -> impl Iterator<Item = String> {
    let folder = folder_of_modules(path, is_root);
    let own_folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut named = None;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(file) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            named = Some(format!("{own_folder}{file}"));
            return None;
        }
        let (before, name) = line.strip_suffix(';')?.rsplit_once(' ')?;
        let is_module = before == "mod" || before.starts_with("pub") && before.ends_with(" mod");
        is_module.then(|| named.take().unwrap_or_else(|| format!("{folder}{name}.rs")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_mod_line_names_is_found() {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let tree = Tree {
            files: [
                file(
                    "a/src/lib.rs",
                    "#[path = \"odd/place.rs\"]\nmod three;\nmod one;\n#[cfg(test)]\nmod tests {\n}\n",
                ),
                file("a/src/one.rs", "pub(crate) mod two;\n"),
                file("a/src/one/two.rs", ""),
                file("a/src/two.rs", ""),
                file("a/src/odd/place.rs", ""),
                file("a/build.rs", ""),
            ]
            .into(),
            roots: ["a/src/lib.rs".to_owned(), "a/build.rs".to_owned()].into(),
            ..Tree::default()
        };
        let found: Vec<_> = orphans(&tree).into_iter().map(|finding| finding.place).collect();
        assert_eq!(found, ["a/src/two.rs"]);
    }
}
