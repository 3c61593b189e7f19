//! Looks for what is ours.
//!
//! | thing | its mark |
//! |---|---|
//! | CNI configuration | our file name, and in it our plugin with this node's directory of pins |
//! | CNI plugin | our file name, and the same bytes as the one beside this executable |
//! | link of a pod | a veth named `pn` and twelve hex digits |
//! | sink | a veth named `portolan0` |
//! | route | protocol 112, in the main table |
//! | filter | its priority, handle and name |
//! | qdisc | a pin below `<bpffs>/portolan` with its number, made before it; it stays when it has filters of others |
//! | link of a program, program, map, their directories | below `<bpffs>/portolan` |
//! | sysctl | in the journal, and with the value that the journal says we gave it |
//! | state | the known file names in the state directory |

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use portolan_cni::hook::Hook;

use super::{CleanupArgs, Item};
use crate::dataplane;
use crate::dataplane::routes::{self, message};
use crate::dataplane::tc::{self, qdisc};
use crate::node::journal::Journal;
use crate::node::netlink::Netlink;
use crate::node::state_dir::{FILES, StateDir};
use crate::node::sysctl::{Fate, Sysctls};
use crate::node::{conflist, install, links, sink};

/// Where to look.
pub(super) struct Place<'a> {
    pub(super) args: &'a CleanupArgs,
    pub(super) state_dir: &'a StateDir,
    pub(super) netlink: &'a Netlink,
    pub(super) sysctls: &'a Sysctls,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What is ours, in the order of removal.
    pub(super) items: Vec<Item>,
    /// What is not, although it might look so, and why.
    pub(super) left_alone: Vec<String>,
}

/// Looks everywhere.
pub(super) async fn find(place: &Place<'_>) -> Result<Findings> {
    let mut found = Findings::default();
    find_cni(place.args, &mut found)?;
    let links = links::links(place.netlink).await?;
    let pods = links.iter().filter(|link| link.is_pod());
    found.items.extend(pods.map(|link| Item::PodLink(link.name.clone())));
    let routes = routes::marked(place.netlink).await?;
    found.items.extend(routes.iter().filter_map(message::destination).map(Item::Route));
    for (ifindex, name, direction) in tc::filters()? {
        found.items.push(Item::Filter(name, Hook { ifindex, direction }));
    }
    find_pins(&place.args.bpffs.join("portolan"), &mut found.items)?;
    let sink = links.into_iter().filter(sink::is_sink);
    found.items.extend(sink.map(|link| Item::Sink(link.name)));
    find_sysctls(place, &mut found)?;
    find_state(place.state_dir, &mut found)?;
    Ok(found)
}

fn find_cni(args: &CleanupArgs, found: &mut Findings) -> Result<()> {
    let path = args.cni_conf_dir.join(conflist::FILE_NAME);
    if let Some(text) = read(&path)? {
        if conflist::is_ours(&text, &args.bpffs) {
            found.items.push(Item::Conflist(path));
        } else {
            let bpffs = args.bpffs.display();
            found.left_alone.push(format!("{} is not of the node with pins in {bpffs}", path.display()));
        }
    }
    let path = args.cni_bin_dir.join(conflist::PLUGIN);
    if let Some(binary) = read(&path)? {
        let bundled = install::bundled()?;
        if read(&bundled)?.is_some_and(|ours| ours == binary) {
            found.items.push(Item::Plugin(path));
        } else {
            found.left_alone.push(format!("{} is not the same as {}", path.display(), bundled.display()));
        }
    }
    Ok(())
}

/// Pins of links come before those of programs and maps, and a directory after what is in it.
fn find_pins(root: &Path, items: &mut Vec<Item>) -> Result<()> {
    let (mut attached, mut others) = (Vec::new(), Vec::new());
    walk(root, &mut |path, is_dir| {
        let is_in = |directory: &str| path.parent().is_some_and(|parent| parent.ends_with(directory));
        if is_dir {
            others.push(Item::PinDirectory(path));
        } else if is_in("links") {
            let interface = dataplane::links::interface(&path);
            attached.push(Item::Program(path, interface));
        } else if is_in("qdiscs") {
            let interface = qdisc::interface(&path).unwrap_or_else(|| "an interface that is gone".to_owned());
            others.push(Item::Qdisc(interface, path));
        } else if is_in("programs") {
            others.push(Item::ProgramPin(path));
        } else {
            others.push(Item::Map(path));
        }
    })
    .with_context(|| format!("reading {}", root.display()))?;
    items.extend(attached);
    items.extend(others);
    Ok(())
}

/// Visits what is below a directory, and at last the directory. Links are not followed.
fn walk(dir: &Path, visit: &mut impl FnMut(PathBuf, bool)) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), visit)?;
        } else {
            visit(entry.path(), false);
        }
    }
    visit(dir.to_owned(), true);
    Ok(())
}

fn find_sysctls(place: &Place<'_>, found: &mut Findings) -> Result<()> {
    let journal = Journal::load(place.state_dir)?;
    for (name, fate) in place.sysctls.preview(journal.sysctls()) {
        match fate {
            Fate::Ours => found.items.push(Item::Sysctl(name)),
            Fate::Foreign { now } => found.left_alone.push(format!(
                "sysctl {name} is {now}, which Portolan has not set; somebody else changed it"
            )),
            Fate::Back | Fate::Gone => {}
        }
    }
    Ok(())
}

fn find_state(dir: &StateDir, found: &mut Findings) -> Result<()> {
    let path = dir.path();
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("reading {}", path.display()))?,
    };
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    let (ours, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| FILES.iter().any(|known| name == known));
    found.items.extend(ours.into_iter().map(|name| Item::StateFile(path.join(name))));
    if others.is_empty() {
        found.items.push(Item::StateDirectory(path.to_owned()));
    } else {
        let names: Vec<_> = others.iter().map(|name| name.to_string_lossy()).collect();
        found.left_alone.push(format!("{} also holds {}", path.display(), names.join(", ")));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
