//! Licences and duplicate dependencies, as `deny.toml` has them. The file is cargo-deny's, of which this checks two
//! sections: that takes a second, where installing the tool itself takes minutes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::licence;
use super::metadata::{Metadata, Package};
use crate::workspace::{read, root};

#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    /// SPDX identifiers, or `ID WITH EXCEPTION`.
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    /// Versions that may exist beside another one of the same crate.
    skip: Vec<Skip>,
}

#[derive(Debug, Deserialize)]
struct Skip {
    /// `name@version`, where the version is a prefix of the full one.
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

pub(super) fn run() -> Result<()> {
    let path = root().join("deny.toml");
    let policy: Policy =
        toml::from_str(&read(&path)?).with_context(|| format!("{} is not as expected", path.display()))?;
    let metadata = Metadata::of_everything()?;
    let packages: Vec<_> = metadata.foreign().collect();
    let mut problems = licences(&policy.licenses, &packages);
    problems.extend(duplicates(&policy.bans, &packages));
    if !problems.is_empty() {
        bail!("{} packages checked\n{}", packages.len(), problems.join("\n"));
    }
    Ok(())
}

fn licences(policy: &Licences, packages: &[&Package]) -> Vec<String> {
    let allowed: BTreeSet<_> = policy.allow.iter().map(String::as_str).collect();
    let judge = |package: &&Package| {
        let Package { name, version, license, .. } = package;
        let Some(expression) = license else {
            return Some(format!("{name} {version} names no licence"));
        };
        match licence::satisfied(expression, &allowed) {
            Ok(true) => None,
            Ok(false) => Some(format!("{name} {version}: deny.toml does not allow {expression}")),
            Err(error) => Some(format!("{name} {version}: {error}")),
        }
    };
    packages.iter().filter_map(judge).collect()
}

/// Crates with several versions beyond those that are skipped with a reason, and skips that nothing needs any more.
fn duplicates(policy: &Bans, packages: &[&Package]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    let mut stale: BTreeSet<&str> = policy.skip.iter().map(|skip| skip.spec.as_str()).collect();
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        let skip_of = |version: &&str| policy.skip.iter().find(|skip| skips(&skip.spec, name, version));
        let (skipped, kept): (Vec<&str>, Vec<&str>) =
            versions.iter().partition(|version| skip_of(version).is_some());
        for skip in skipped.iter().filter_map(skip_of) {
            stale.remove(skip.spec.as_str());
            if skip.reason.trim().is_empty() {
                problems.push(format!("deny.toml: {} is skipped without a reason", skip.spec));
            }
        }
        if kept.len() > 1 {
            problems.push(format!("{name} is there in versions {}", kept.join(", ")));
        }
    }
    problems.extend(
        stale.into_iter().map(|spec| format!("deny.toml: nothing needs the skip of {spec} any more")),
    );
    problems
}

fn skips(spec: &str, name: &str, version: &str) -> bool {
    let Some((skipped, prefix)) = spec.split_once('@') else {
        return spec == name;
    };
    let rest = version.strip_prefix(prefix);
    skipped == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, version: &str, license: Option<&str>) -> Package {
        let value = json!({
            "id": format!("{name}@{version}"), "name": name, "version": version, "license": license,
            "dependencies": [], "targets": [],
        });
        serde_json::from_value(value).unwrap()
    }

    fn bans(skips: &[(&str, &str)]) -> Bans {
        let skip = |&(spec, reason): &(&str, &str)| Skip { spec: spec.into(), reason: reason.into() };
        Bans { skip: skips.iter().map(skip).collect() }
    }

    /// Skips, packages, and how many problems there are.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a Package], usize);

    #[test]
    fn a_second_version_needs_a_skip_and_a_skip_needs_a_second_version() {
        let (old, new) = (package("nix", "0.30.1", None), package("nix", "0.31.3", None));
        let both = [&old, &new];
        let rows: [Row<'_>; 6] = [
            (&[], &[&new], 0),
            (&[], &both, 1),
            (&[("nix@0.30", "used by x")], &both, 0),
            (&[("nix@0.3", "a prefix is of whole numbers")], &both, 2),
            (&[("nix@0.30", " ")], &both, 1),
            (&[("nix@0.30", "used by x")], &[&new], 1),
        ];
        for (skips, packages, expected) in rows {
            let problems = duplicates(&bans(skips), packages);
            assert_eq!(problems.len(), expected, "{skips:?}: {problems:?}");
        }
    }

    #[test]
    fn a_package_needs_a_licence_that_is_allowed() {
        let policy = Licences { allow: vec!["MIT".into()] };
        let rows = [(Some("MIT OR Apache-2.0"), 0), (Some("GPL-3.0-only"), 1), (None, 1)];
        for (license, expected) in rows {
            assert_eq!(licences(&policy, &[&package("a", "1.0.0", license)]).len(), expected, "{license:?}");
        }
    }
}
