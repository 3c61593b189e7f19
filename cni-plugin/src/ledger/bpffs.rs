//! Directories and pins of the ledger, made by whoever comes first.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

use aya::maps::{Map, MapData, MapError};
use aya_obj::Map as MapObject;
use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{Definition, LedgerError, errno, map_error};

/// Makes the directory of the pins of maps: mounts a BPF file system at `bpffs` unless it is on one.
pub(super) fn prepare(bpffs: &Path, maps: &Path) -> Result<(), LedgerError> {
    if !is_bpffs(bpffs) {
        mount_at(bpffs)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(maps).map_err(failed("create the directory", maps))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Each mount of a BPF file system is an empty one of its own and hides the one before. So only who holds the lock on
/// the directory below mounts, and looks again first.
fn mount_at(bpffs: &Path) -> Result<(), LedgerError> {
    fs::create_dir_all(bpffs).map_err(failed("create the directory", bpffs))?;
    let below = File::open(bpffs).map_err(failed("open", bpffs))?;
    below.lock().map_err(failed("lock", bpffs))?;
    if is_bpffs(bpffs) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    mount(Some("bpf"), bpffs, Some("bpf"), flags, Some("mode=0700"))
        .map_err(io::Error::from)
        .map_err(failed("mount a BPF file system at", bpffs))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    move |source| LedgerError::Directory { action, path: path.to_owned(), source }
}

/// Opens a pinned map; `None` if the pin does not exist.
pub(super) fn open<M>(maps: &Path, definition: Definition) -> Result<Option<M>, LedgerError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let path = maps.join(definition.name.as_str());
    let data = match MapData::from_pin(&path) {
        Ok(data) => data,
        Err(error) if matches!(errno(&error), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        Err(error) => return Err(map_error("open", definition.name)(error)),
    };
    Map::from_map_data(data)
        .and_then(M::try_from)
        .map(Some)
        .map_err(|source| LedgerError::Foreign { path, source: Box::new(source) })
}

/// Opens a pinned map, or creates and pins it. Of several at once, the first to pin wins, and the others open that.
pub(super) fn open_or_create<M>(maps: &Path, definition: Definition) -> Result<M, LedgerError>
where
    M: TryFrom<Map, Error = MapError>,
{
    if let Some(map) = open(maps, definition)? {
        return Ok(map);
    }
    let Definition { name, kind, key, value, entries, flags } = definition;
    let object = MapObject::new_from_params(kind, key, value, entries, flags);
    let data = MapData::create(object, name.as_str(), None).map_err(map_error("create", name))?;
    if let Err(error) = data.pin(maps.join(name.as_str())) {
        let pinned_by_another = open(maps, definition)?;
        let failure = MapError::PinError { name: Some(name.as_str().to_owned()), error };
        return pinned_by_another.ok_or(failure).map_err(map_error("pin", name));
    }
    Map::from_map_data(data).and_then(M::try_from).map_err(map_error("use", name))
}
