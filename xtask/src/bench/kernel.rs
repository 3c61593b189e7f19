//! Debian's cloud kernels: unpacked beside the build, with the few modules that a guest needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::run;
use crate::setup::Suite;
use crate::workspace::target;

/// A kernel of Debian's, by its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Series {
    /// Debian 12.
    #[value(name = "6.1")]
    Linux61,
    /// Debian 13.
    #[value(name = "6.12")]
    Linux612,
}

impl Series {
    fn suite(self) -> &'static str {
        match self {
            Self::Linux61 => "bookworm",
            Self::Linux612 => "trixie",
        }
    }
}

/// An unpacked kernel package.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The image to boot.
    pub(super) image: PathBuf,
    /// `6.12.48+deb13-cloud-amd64`.
    pub(super) version: String,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel of a series, fetched once.
    pub(super) fn of(series: Series) -> Result<Self> {
        let folder = target().join("bench/kernel").join(series.suite());
        if let Ok(kernel) = Self::unpacked(&folder) {
            return Ok(kernel);
        }
        eprintln!("bench: fetching the kernel of Debian's {}", series.suite());
        let suite = Suite::open(series.suite())?;
        let package = suite.first_dependency("linux-image-cloud-amd64")?;
        let file = suite.download(&package, None)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        run(Command::new("dpkg-deb").arg("-x").args([&file, &folder]))?;
        Self::unpacked(&folder)
    }

    fn unpacked(folder: &Path) -> Result<Self> {
        let boot = folder.join("boot");
        let entries = fs::read_dir(&boot).with_context(|| format!("no kernel in {}", boot.display()))?;
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix("vmlinuz-") {
                let root = ["usr/lib/modules", "lib/modules"].map(|path| folder.join(path).join(version));
                let modules =
                    root.into_iter().find(|path| path.is_dir()).context("a kernel without modules")?;
                return Ok(Self { image: boot.join(&name), version: version.to_owned(), modules });
            }
        }
        bail!("no vmlinuz in {}", boot.display())
    }

    /// The modules that are needed for these, in the order of loading, without what is built into the kernel.
    pub(super) fn modules_for(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        if order.iter().any(|module| module.name == name) || self.is_builtin(name)? {
            return Ok(());
        }
        let path = find_module(&self.modules, name)?
            .with_context(|| format!("the kernel {} has no module {name}", self.version))?;
        let object = decompressed(&path)?;
        for dependency in dependencies(&object) {
            self.add(&dependency, order)?;
        }
        order.push(Module { name: name.to_owned(), object });
        Ok(())
    }

    fn is_builtin(&self, name: &str) -> Result<bool> {
        let list = crate::workspace::read(&self.modules.join("modules.builtin"))?;
        Ok(list.lines().any(|line| line.rsplit('/').next().is_some_and(|file| is_module(file, name))))
    }
}

/// A kernel module, uncompressed.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) object: Vec<u8>,
}

/// Whether a file such as `nf_nat.ko.xz` is the module of this name, in which dashes and underscores are one.
fn is_module(file: &str, name: &str) -> bool {
    file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name.replace('-', "_"))
}

fn find_module(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find_module(&path, name)? {
                return Ok(Some(found));
            }
        } else if is_module(&entry.file_name().to_string_lossy(), name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output()?;
    if !output.status.success() {
        bail!("xz cannot read {}", path.display());
    }
    Ok(output.stdout)
}

/// The names in the module's own `depends=a,b`, among the strings of its `.modinfo` section.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = object[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=nf_nat,llc\0intree=Y\0"), ["nf_nat", "llc"]);
        assert!(dependencies(b"\0license=GPL\0depends=\0intree=Y\0").is_empty());
        assert!(dependencies(b"no module at all").is_empty());
    }

    #[test]
    fn names_of_modules_ignore_compression_and_dashes() {
        assert!(is_module("nf-nat.ko.xz", "nf_nat"));
        assert!(is_module("veth.ko", "veth"));
        assert!(!is_module("vethx.ko", "veth"));
    }
}
