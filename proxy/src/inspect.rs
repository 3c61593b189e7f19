//! The tools that look: they read the pinned maps and links, the routes and the daemon's last report, and need no
//! daemon. Reading, judging and rendering are apart, so that the last two are tested without a kernel.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::dataplane::Pins;

pub mod explain;
pub mod flows;
pub mod maps;
pub mod monitor;
mod names;
pub mod pods;
pub mod routes;
pub mod services;
pub mod status;
mod table;

/// Where to look, and how to show it.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The bpffs that the daemon was given
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// The state directory that the daemon was given
    #[arg(long, value_name = "DIR", default_value = "/run/portolan")]
    pub state_dir: PathBuf,
    /// A table for people, more columns of it, or JSON for programs
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// How to show what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One document; its names are stable.
    Json,
}

impl Place {
    /// The pins, if there are any.
    ///
    /// # Errors
    /// Says what to do when there are none.
    pub fn pins(&self) -> Result<Pins> {
        let pins = Pins::new(&self.bpffs);
        let root = pins.root();
        match fs::metadata(&root) {
            Ok(_) => Ok(pins),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("no Portolan state under {}: is the daemon running with this --bpffs?", root.display())
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!("{} is not readable: run this as root", root.display())
            }
            Err(error) => Err(error).with_context(|| format!("looking for {}", root.display())),
        }
    }

    /// `value` as JSON, or what `table` makes of it.
    fn show<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> Result<String> {
        match self.output {
            Format::Json => {
                let mut text = serde_json::to_string_pretty(value)?;
                text.push('\n');
                Ok(text)
            }
            Format::Table | Format::Wide => Ok(table(value)),
        }
    }

    fn wide(&self) -> bool {
        self.output == Format::Wide
    }
}

/// Emphasis for people: none where nobody would see it.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// No emphasis.
    pub const PLAIN: Self = Self { on: false };

    /// Emphasis when standard output is a terminal and `NO_COLOR` (no-color.org) is not set.
    pub fn of_stdout() -> Self {
        Self { on: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_pinned_one_is_told_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let place =
            Place { bpffs: dir.path().to_owned(), state_dir: "/absent".into(), output: Format::Table };
        let error = place.pins().unwrap_err().to_string();
        let expected = format!("no Portolan state under {}/portolan/v1: is the daemon", dir.path().display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn emphasis_is_only_where_it_is_wanted() {
        assert_eq!(Paint::PLAIN.bad("x"), "x");
        assert_eq!(Paint { on: true }.good("x"), "\x1b[32mx\x1b[0m");
    }
}
