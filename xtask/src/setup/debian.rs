//! Debian packages: programs installed when root, and packages of other suites fetched beside the system's own state.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Program, say};
use crate::process::{capture, find, run};
use crate::workspace::{target, write};

/// Where the system's own sources name no mirror of Debian.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether packages can be had from apt here.
pub(super) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && find("apt-get").is_some()
}

/// Makes sure that the programs are there, installing their packages where this is Debian and we are root.
pub(crate) fn require(programs: &[Program]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|program| find(program.name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    let packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    let packages_text = packages.join(" ");
    if !is_debian() {
        bail!("missing: {names}. Install what Debian calls `{packages_text}`, by your system's means.");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("missing: {names}. Run `apt-get install {packages_text}` as root.");
    }
    say(&format!("missing: {names}; apt-get install {packages_text}"));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        run(apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&packages))
    };
    // The lists may be absent (a fresh container) or older than the mirror.
    install()
        .or_else(|_| run(Command::new("apt-get").args(["update", "-qq"])).and_then(|()| install()))
        .with_context(|| format!("cannot install {packages_text}; install it by hand"))
}

/// Another suite of Debian, with apt's lists of it kept in the target directory: the system's own are not touched.
#[derive(Debug)]
pub(crate) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches the package lists of `suite`, such as `trixie`.
    pub(crate) fn open(suite: &str) -> Result<Self> {
        if !is_debian() {
            bail!("packages of Debian's suite {suite} are fetched with apt-get, which is not here");
        }
        let folder = target().join("setup/apt").join(suite);
        for state in ["lists/partial", "archives/partial"] {
            let state = folder.join(state);
            fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror());
        write(&folder.join("sources.list"), source)?;
        let suite = Self { folder };
        run(&mut suite.apt("apt-get", &["update", "-qq"]))?;
        Ok(suite)
    }

    /// The package that a metapackage depends on first.
    pub(crate) fn first_dependency(&self, metapackage: &str) -> Result<String> {
        let depends = capture(&mut self.apt("apt-cache", &["depends", metapackage]))?;
        depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .with_context(|| format!("{metapackage} depends on nothing in this suite"))
    }

    /// Downloads a package, of the given upstream version where one is asked for, and returns the file.
    pub(crate) fn download(&self, package: &str, upstream: Option<&str>) -> Result<PathBuf> {
        let versions = capture(&mut self.apt("apt-cache", &["madison", package]))?;
        let version = versions
            .lines()
            .filter_map(|line| line.split('|').nth(1).map(str::trim))
            .find(|version| upstream.is_none_or(|wanted| is_version(version, wanted)))
            .with_context(|| format!("this suite has no {package} {}", upstream.unwrap_or("at all")))?;
        let wanted = format!("{package}={version}");
        let prefix = format!("{package}_");
        let downloaded = || {
            let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
            files.map(|file| file.path()).find(|path| is_package(path, &prefix))
        };
        if let Some(old) = downloaded() {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        run(self.apt("apt-get", &["download", "-qq", &wanted]).current_dir(&self.folder))?;
        downloaded().with_context(|| format!("apt-get download {wanted} left no file"))
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let at = |option: &str, path: &str| format!("{option}={}", self.folder.join(path).display());
        let mut command = Command::new(program);
        for option in [
            at("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            at("Dir::State::Lists", "lists"),
            at("Dir::Cache", ""),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.args(arguments);
        command
    }
}

/// The mirror that the system uses itself, so that a local one stays in use.
fn mirror() -> String {
    let targets = capture(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]));
    targets
        .iter()
        .flat_map(|text| text.lines())
        .map(|uri| uri.trim_end_matches('/'))
        .find(|uri| uri.ends_with("/debian"))
        .unwrap_or(MIRROR)
        .to_owned()
}

fn is_package(path: &Path, prefix: &str) -> bool {
    path.extension().is_some_and(|extension| extension == "deb")
        && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// Whether a Debian version such as `1.95.0+dfsg1-2~bpo13+1` packages the upstream version `1.95.0`.
fn is_version(debian: &str, upstream: &str) -> bool {
    debian.strip_prefix(upstream).is_some_and(|rest| rest.starts_with(['+', '-', '~']) || rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn a_debian_version_is_matched_by_its_upstream_part_only() {
        assert!(is_version("1.95.0+dfsg1-2~bpo13+1", "1.95.0"));
        assert!(is_version("1.95.0-1", "1.95.0"));
        assert!(!is_version("1.95.01-1", "1.95.0"));
        assert!(!is_version("1.96.0+dfsg1-1", "1.95.0"));
    }
}
