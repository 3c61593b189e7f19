//! A guest of QEMU: its first file system and its run.
//!
//! `-icount shift=0,sleep=off` advances the guest's clock by one nanosecond per instruction and by nothing else. Inside,
//! time is instructions: a run repeats, whatever the machine around it does.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::kernel::Kernel;
use crate::process::find;

/// The first file system, in the kernel's `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    path: PathBuf,
    folders: BTreeSet<PathBuf>,
    libraries: BTreeSet<PathBuf>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;

impl Image {
    pub(super) fn create(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let (folders, libraries) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { file, path: path.to_owned(), folders, libraries, entries: 0 })
    }

    /// An image with what every guest has: our own first process, `ip`, empty folders and these kernel modules.
    pub(super) fn of_guest(path: &Path, kernel: &Kernel, modules: &[&str], init: &Path) -> Result<Self> {
        let mut image = Self::create(path)?;
        for empty in ["/proc", "/sys", "/dev", "/run", "/modules"] {
            image.folder(empty.as_ref())?;
        }
        image.copy(init, "/init")?;
        image.copy_with_libraries(&find("ip").context("ip is not installed")?, "/bin/ip")?;
        for (number, module) in kernel.modules_for(modules)?.iter().enumerate() {
            image.write(&format!("/modules/{number:02}-{}", module.name), &module.object)?;
        }
        Ok(image)
    }

    /// Adds a file of this machine under the given absolute path.
    pub(super) fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let executable = fs::metadata(from)?.permissions().mode() & 0o111 != 0;
        self.add(to, if executable { PROGRAM } else { PLAIN }, &content)
    }

    /// Adds a program of this machine with the shared libraries that it loads, which are none for a static one.
    pub(super) fn copy_with_libraries(&mut self, from: &Path, to: &str) -> Result<()> {
        self.copy(from, to)?;
        // It fails for a static program, and then lists nothing.
        let listed = Command::new("ldd").arg(from).output().context("cannot run ldd")?.stdout;
        for library in
            String::from_utf8_lossy(&listed).split_whitespace().filter(|word| word.starts_with('/'))
        {
            if self.libraries.insert(library.into()) {
                self.copy(Path::new(library), library)?;
            }
        }
        Ok(())
    }

    /// Adds a file with this content.
    pub(super) fn write(&mut self, to: &str, content: &[u8]) -> Result<()> {
        self.add(to, PLAIN, content)
    }

    /// Adds a folder and those above it.
    pub(super) fn folder(&mut self, path: &Path) -> Result<()> {
        if path.parent().is_none() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.folder(path.parent().unwrap_or(path))?;
        self.entry(&path.to_string_lossy(), FOLDER, &[])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<PathBuf> {
        self.entry("/TRAILER!!!", 0, &[])?;
        Ok(self.path)
    }

    fn add(&mut self, to: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.folder(Path::new(to).parent().context("a file needs a folder")?)?;
        self.entry(to, mode, content)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is larger than 4 GiB"))?;
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
        let length = u32::try_from(name.len() + 1)?;
        let mut header = String::from("070701");
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0] {
            header.push_str(&format!("{field:08X}"));
        }
        let mut write = |bytes: &[u8], before: usize| -> Result<()> {
            self.file.write_all(bytes)?;
            // Everything begins at a multiple of four.
            let padding = (4 - (before + bytes.len()) % 4) % 4;
            Ok(self.file.write_all(&[0; 3][..padding])?)
        };
        let named = [name.as_bytes(), b"\0"].concat();
        write(&[header.as_bytes(), named.as_slice()].concat(), 0)?;
        write(content, 0)
    }
}

/// Boots the guest, hands each line of its console to `line`, and fails unless its work ended well.
pub(super) fn run(
    kernel: &Kernel,
    image: &Path,
    arguments: &[&str],
    mut line: impl FnMut(&str),
) -> Result<()> {
    let append = format!("console=ttyS0 quiet mitigations=off tsc=reliable -- {}", arguments.join(" "));
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max,-x2apic"])
        .args(["-nographic", "-no-reboot", "-nic", "none", "-smp", "1", "-m", "2048"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", &append])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let console = BufReader::new(child.stdout.take().context("QEMU has no output")?);
    let (mut done, mut last) = (false, Vec::new());
    for read in console.split(b'\n') {
        let text = String::from_utf8_lossy(&read?).trim_end().to_owned();
        done |= text == "guest done";
        line(&text);
        last.push(text);
    }
    let status = child.wait()?;
    ensure!(status.success(), "QEMU ended with {status}");
    if !done {
        bail!("the guest's work failed:\n{}", last[last.len().saturating_sub(30)..].join("\n"));
    }
    Ok(())
}

/// `sample SCENARIO WORKLOAD NANOSECONDS`.
pub(super) fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let mut words = line.strip_prefix("sample ")?.split(' ');
    Some((words.next()?, words.next()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_samples_are_taken_from_the_console() {
        assert_eq!(sample("sample direct crr 133000.5"), Some(("direct", "crr", 133_000.5)));
        assert_eq!(sample("[    0.1] random kernel line"), None);
        assert_eq!(sample("sample direct crr"), None);
    }

    #[test]
    fn an_archive_has_aligned_entries_and_each_folder_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut image = Image::create(&folder.path().join("image")).unwrap();
        image.write("/etc/a/one", b"12345").unwrap();
        image.write("/etc/a/two", b"").unwrap();
        let bytes = fs::read(image.finish().unwrap()).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            let field = |index: usize| {
                let start = at + 6 + 8 * index;
                usize::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (size, length) = (field(6), field(11));
            names.push(String::from_utf8_lossy(&bytes[at + 110..at + 109 + length]).into_owned());
            at += (110 + length).next_multiple_of(4) + size.next_multiple_of(4);
        }
        assert_eq!(names, ["etc", "etc/a", "etc/a/one", "etc/a/two", "TRAILER!!!"]);
    }
}
