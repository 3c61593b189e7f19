//! A thing that is ours.

use std::fmt;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use portolan_cni::hook::Hook;
use serde::ser::{SerializeStruct, Serializer};

/// A thing on the machine that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The CNI configuration.
    Conflist(PathBuf),
    /// The CNI plugin.
    Plugin(PathBuf),
    /// The host side of a pod's veth.
    PodLink(String),
    /// The interface to which routes lead what is for no pod.
    Sink(String),
    /// A route with our protocol.
    Route(IpNetwork),
    /// A filter that keeps a program attached, on the interface of this name.
    Filter(String, Hook),
    /// A qdisc that we made, as its pin says, for such filters; the interface of this name.
    Qdisc(String, PathBuf),
    /// A pin that keeps a program attached, and the interface of this name if it is one's.
    Program(PathBuf, Option<String>),
    /// A pinned program, for the plugin to attach.
    ProgramPin(PathBuf),
    /// A pinned map.
    Map(PathBuf),
    /// A directory of pins.
    PinDirectory(PathBuf),
    /// A sysctl that has the value we gave it; as sysctl(8) writes it.
    Sysctl(String),
    /// A file of the state directory.
    StateFile(PathBuf),
    /// The state directory itself.
    StateDirectory(PathBuf),
}

impl Item {
    /// What sort of thing it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conflist(_) => "cni-configuration",
            Self::Plugin(_) => "cni-plugin",
            Self::PodLink(_) => "pod-link",
            Self::Sink(_) => "sink",
            Self::Route(_) => "route",
            Self::Filter(..) => "filter",
            Self::Qdisc(..) => "qdisc",
            Self::Program(..) => "program",
            Self::ProgramPin(_) => "program-pin",
            Self::Map(_) => "map",
            Self::PinDirectory(_) => "pin-directory",
            Self::Sysctl(_) => "sysctl",
            Self::StateFile(_) => "state-file",
            Self::StateDirectory(_) => "state-directory",
        }
    }

    /// Which one it is.
    pub fn name(&self) -> String {
        match self {
            Self::Conflist(path)
            | Self::Plugin(path)
            | Self::Program(path, None)
            | Self::ProgramPin(path)
            | Self::Map(path)
            | Self::PinDirectory(path)
            | Self::StateFile(path)
            | Self::StateDirectory(path) => path.display().to_string(),
            Self::Program(path, Some(interface)) => format!("{} of {interface}", path.display()),
            Self::Filter(interface, hook) => format!("{interface} {}", hook.direction),
            Self::Qdisc(interface, _) => format!("{interface} clsact"),
            Self::PodLink(name) | Self::Sink(name) | Self::Sysctl(name) => name.clone(),
            Self::Route(destination) => destination.to_string(),
        }
    }

    /// What has become of it when it is gone.
    pub(super) fn done(&self) -> &'static str {
        match self {
            Self::Program(..) | Self::Filter(..) => "detached",
            Self::Sysctl(_) => "put back",
            Self::Conflist(_)
            | Self::Plugin(_)
            | Self::PodLink(_)
            | Self::Sink(_)
            | Self::Route(_)
            | Self::Qdisc(..)
            | Self::ProgramPin(_)
            | Self::Map(_)
            | Self::PinDirectory(_)
            | Self::StateFile(_)
            | Self::StateDirectory(_) => "removed",
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl serde::Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Item", 2)?;
        fields.serialize_field("kind", self.kind())?;
        fields.serialize_field("name", &self.name())?;
        fields.end()
    }
}
