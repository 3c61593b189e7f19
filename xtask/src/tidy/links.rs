//! A document's relative links lead somewhere.

use super::Finding;
use super::tree::Tree;
use crate::workspace::root;

pub(super) fn dead(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("md") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in (1..).zip(text.lines()) {
            for link in relative_links(line).filter(|link| !root().join(folder).join(link).exists()) {
                findings.push(Finding::new(format!("{path}:{number}"), format!("`{link}` does not exist")));
            }
        }
    }
    findings
}

/// The targets of `[text](target)` that are files of the tree, without their anchors.
fn relative_links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', ' ']).next()?;
        let file = target.split('#').next()?;
        (!file.is_empty() && !target.contains(':')).then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::relative_links;

    #[test]
    fn only_files_of_the_tree_are_looked_for() {
        let line =
            "[a](A.md), [b](docs/b.md#part), [c](#part), [d](https://example.org/x), [e](mailto:a@b.c)";
        let links: Vec<_> = relative_links(line).collect();
        assert_eq!(links, ["A.md", "docs/b.md"]);
    }
}
