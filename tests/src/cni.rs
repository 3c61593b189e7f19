//! What a container runtime does with a CNI configuration (specification 1.1.0, sections 3 and 4).

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::node::Node;
use crate::wait::until;

/// A network configuration list.
#[derive(Clone, Debug)]
pub struct Conflist {
    version: String,
    name: String,
    plugins: Vec<Map<String, Value>>,
}

/// What identifies an attachment and where it goes.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; empty when the runtime has lost it.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// What the runtime offers, by capability: a plugin gets what it declares (`runtimeConfig`).
    pub offers: Map<String, Value>,
}

impl Conflist {
    /// The first configuration list of a node's directory, as containerd chooses it; waits for the daemon to write one.
    ///
    /// # Errors
    /// When none comes within ten seconds or it is not JSON.
    pub fn of(node: &Node) -> Result<Self> {
        let dir = &node.setup().cni_conf_dir;
        let found = until(Duration::from_secs(10), "a conflist", || first_conflist(dir));
        let (path, _) =
            found.with_context(|| format!("The daemon of {} says:\n{}", node.name(), node.log()))?;
        let text = fs::read(&path).with_context(|| format!("Failed to read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("Failed to read {}", path.display()))
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(text)?;
        let string =
            |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("It has no {key}"));
        let plugins = value["plugins"].as_array().context("It has no plugins")?.iter();
        let plugins = plugins.map(|plugin| plugin.as_object().cloned().context("A plugin is an object"));
        Ok(Self {
            version: string("cniVersion")?,
            name: string("name")?,
            plugins: plugins.collect::<Result<_>>()?,
        })
    }

    /// Runs ADD of every plugin in order; the last result.
    ///
    /// # Errors
    /// When a plugin fails, with what it says.
    pub fn add(&self, node: &Node, to: &Attachment) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in &self.plugins {
            result = self.run(node, plugin, "ADD", to, &result)?;
        }
        Ok(result)
    }

    /// Runs DEL of every plugin in reverse.
    ///
    /// # Errors
    /// When a plugin fails, with what it says.
    pub fn del(&self, node: &Node, from: &Attachment, result: &Value) -> Result<()> {
        for plugin in self.plugins.iter().rev() {
            self.run(node, plugin, "DEL", from, result)?;
        }
        Ok(())
    }

    fn run(
        &self,
        node: &Node,
        plugin: &Map<String, Value>,
        command: &str,
        attachment: &Attachment,
        previous: &Value,
    ) -> Result<Value> {
        let kind = plugin.get("type").and_then(Value::as_str).context("The plugin has no type")?;
        let mut config = plugin.clone();
        let declared = config.remove("capabilities").unwrap_or_default();
        let mut offers = attachment.offers.clone();
        offers.retain(|capability, _| declared[capability.as_str()] == true);
        if !offers.is_empty() {
            config.insert("runtimeConfig".to_owned(), offers.into());
        }
        config.insert("cniVersion".to_owned(), self.version.clone().into());
        config.insert("name".to_owned(), self.name.clone().into());
        if !previous.is_null() {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        let bin_dir = &node.setup().cni_bin_dir;
        let mut child = node
            .place()
            .command(bin_dir.join(kind))?
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &attachment.container_id)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", &attachment.ifname)
            .env("CNI_ARGS", &attachment.args)
            .env("CNI_PATH", bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("Failed to run {}", bin_dir.join(kind).display()))?;
        let mut stdin = child.stdin.take().context("The plugin has an input")?;
        stdin.write_all(&serde_json::to_vec(&config)?).context("Failed to write to the plugin")?;
        drop(stdin);
        let out = child.wait_with_output().context("Failed to wait for the plugin")?;
        let said = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() {
            bail!("{kind} {command}: {said}{}", String::from_utf8_lossy(&out.stderr));
        }
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).with_context(|| format!("{kind} {command} should print JSON: {said}"))
    }
}

/// The addresses of an ADD result.
///
/// # Errors
/// When one is not `address/length`.
pub fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().context("The result has no ips")?.iter();
    ips.map(|ip| {
        let cidr = ip["address"].as_str().context("An entry of ips has no address")?;
        let (addr, _) = cidr.split_once('/').with_context(|| format!("{cidr:?} has no prefix length"))?;
        addr.parse().with_context(|| format!("{cidr:?} is no address"))
    })
    .collect()
}

/// The path of the first configuration list of a directory, if there is one.
///
/// # Errors
/// When the directory cannot be read.
pub fn first_conflist(dir: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("Failed to read {}", dir.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|ext| ext == "conflist")).min())
}
