//! The CNI configuration: what tells the container runtime that the node can take pods, and the plugin how.
//!
//! It is written last, when everything a pod needs is there, and only when its bytes change, since containerd reloads
//! under a lock that a running ADD holds (containerd/cri#1078). It is never removed on a restart: without it pods
//! could not even be deleted.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnetwork::IpNetwork;
use portolan_core::state::Problem;
use serde::{Deserialize, Serialize};

use super::replace::replace;

/// The name of the file. containerd takes the lexically first configuration and no other. `05-` is before what an
/// earlier network may have left, which is commonly `10-` (flannel, Calico, kindnet, kube-router, AWS,
/// containerd's template), `11-` and `87-`, and after `00-`, as which Multus is meant to wrap ours.
pub const FILE_NAME: &str = "05-portolan.conflist";

/// `name` of the network, a part of the key of every attachment: it must never change.
pub const NETWORK: &str = "portolan";

/// The file name of the plugin, in the directory of plugins.
pub const PLUGIN: &str = "portolan-cni";

/// What the plugin has to know about the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The mount point of bpffs, or the directory in it that is this node's.
    pub bpffs: PathBuf,
    /// Where addresses of pods come from: one range per family.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Bytes of an IP packet.
    pub mtu: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conflist<'a> {
    cni_version: &'a str,
    cni_versions: &'a [&'a str],
    name: &'a str,
    load_only_inlined_plugins: bool,
    plugins: [Plugin<'a>; 1],
}

#[derive(Serialize)]
struct Plugin<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    bpffs: &'a Path,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    mtu: u32,
    capabilities: Capabilities,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    ips: bool,
    mac: bool,
    port_mappings: bool,
}

/// The content of the file.
///
/// A runtime takes the highest version it knows of `cniVersion` and `cniVersions` (specification 1.1.0,
/// § "Configuration format"): 1.1.0 with STATUS and GC from containerd 2.0.1 and CRI-O 1.31 on. Older ones, which
/// cannot read a result of 1.1.0, know only the first key and get 1.0.0.
pub fn render(settings: &Settings) -> String {
    let conflist = Conflist {
        cni_version: "1.0.0",
        cni_versions: &["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        name: NETWORK,
        // Otherwise whoever drops a file into a directory of our network's name adds a plugin to it.
        load_only_inlined_plugins: true,
        plugins: [Plugin {
            kind: PLUGIN,
            bpffs: &settings.bpffs,
            pod_cidrs: settings.pod_cidrs.iter().map(ToString::to_string).collect(),
            mtu: settings.mtu,
            capabilities: Capabilities { ips: true, mac: true, port_mappings: true },
        }],
    };
    let mut text = serde_json::to_string_pretty(&conflist).expect("strings and numbers always serialise");
    text.push('\n');
    text
}

/// Writes the configuration into `dir` unless it is there already; returns whether it was written.
///
/// # Errors
/// When the file system refuses.
pub fn install(dir: &Path, settings: &Settings) -> io::Result<bool> {
    let path = dir.join(FILE_NAME);
    let content = render(settings);
    match fs::read(&path) {
        Ok(present) if present == content.as_bytes() => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    replace(&path, content.as_bytes(), 0o644)?;
    Ok(true)
}

/// The other configurations in `dir` that the runtime prefers to ours.
///
/// # Errors
/// When the directory cannot be read; that it does not exist is an answer.
pub fn conflicts(dir: &Path) -> io::Result<Vec<Problem>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    Ok(preferred(names).into_iter().map(|name| problem(dir, &name)).collect())
}

/// Whether the text is a configuration of ours for the node with this directory of pins.
pub fn is_ours(text: &[u8], bpffs: &Path) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        name: String,
        plugins: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "type")]
        kind: String,
        bpffs: Option<PathBuf>,
    }
    serde_json::from_slice(text).is_ok_and(|Shape { name, plugins }| {
        name == NETWORK && plugins.iter().any(|it| it.kind == PLUGIN && it.bpffs.as_deref() == Some(bpffs))
    })
}

/// What of these names a runtime takes for a configuration and finds before ours.
fn preferred(mut names: Vec<String>) -> Vec<String> {
    let taken = |name: &String| {
        let extension = Path::new(name).extension().and_then(|it| it.to_str());
        matches!(extension, Some("conf" | "conflist" | "json")) && name.as_str() < FILE_NAME
    };
    names.retain(taken);
    names.sort();
    names
}

fn problem(dir: &Path, name: &str) -> Problem {
    let path = dir.join(name);
    Problem {
        subject: format!("CNI configuration {}", path.display()),
        reason: "CniConfigShadowed",
        message: format!(
            "sorts before {FILE_NAME}, so that the container runtime uses it instead. Remove it unless it is meant \
             to wrap Portolan's, as that of Multus is"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            bpffs: "/sys/fs/bpf".into(),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            mtu: 1450,
        }
    }

    #[test]
    fn the_text_is_what_runtimes_and_the_plugin_expect() {
        let expected = r#"{
  "cniVersion": "1.0.0",
  "cniVersions": [
    "0.3.1",
    "0.4.0",
    "1.0.0",
    "1.1.0"
  ],
  "name": "portolan",
  "loadOnlyInlinedPlugins": true,
  "plugins": [
    {
      "type": "portolan-cni",
      "bpffs": "/sys/fs/bpf",
      "podCIDRs": [
        "10.244.1.0/24",
        "fd00:1::/64"
      ],
      "mtu": 1450,
      "capabilities": {
        "ips": true,
        "mac": true,
        "portMappings": true
      }
    }
  ]
}
"#;
        assert_eq!(render(&settings()), expected);
    }

    #[test]
    fn it_is_written_when_it_differs_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("net.d");
        assert!(install(&dir, &settings()).unwrap());
        assert!(!install(&dir, &settings()).unwrap());
        assert!(install(&dir, &Settings { mtu: 1400, ..settings() }).unwrap());
        assert!(fs::read_to_string(dir.join(FILE_NAME)).unwrap().contains("\"mtu\": 1400"));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn the_scratch_file_is_no_configuration() {
        let scratch = super::super::replace::scratch(Path::new(FILE_NAME));
        assert!(preferred(vec![scratch.to_str().unwrap().to_owned()]).is_empty());
    }

    #[test]
    fn what_sorts_before_ours_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(conflicts(&dir.path().join("absent")).unwrap(), []);
        for name in [
            "05-cilium.conf",
            "00-multus.conf",
            "10-flannel.conflist",
            "00-notes.txt",
            FILE_NAME,
            "00-x.json.bak",
        ] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        let subjects: Vec<_> = conflicts(dir.path()).unwrap().into_iter().map(|it| it.subject).collect();
        assert_eq!(subjects.len(), 2, "{subjects:?}");
        assert!(subjects[0].ends_with("00-multus.conf") && subjects[1].ends_with("05-cilium.conf"));
    }

    #[test]
    fn ours_is_told_from_that_of_others_and_of_other_nodes() {
        let text = render(&settings());
        assert!(is_ours(text.as_bytes(), Path::new("/sys/fs/bpf")));
        assert!(!is_ours(text.as_bytes(), Path::new("/sys/fs/bpf/node2")));
        assert!(!is_ours(br#"{"name":"cbr0","plugins":[{"type":"flannel"}]}"#, Path::new("/sys/fs/bpf")));
        assert!(!is_ours(b"garbage", Path::new("/sys/fs/bpf")));
    }
}
