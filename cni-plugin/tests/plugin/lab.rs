//! Nodes and pods, and the plugin called on them.

use std::{
    fs::{self, File},
    io::Write as _,
    net::IpAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns},
};
use portolan_cni::ledger::Ledger;
use serde_json::{Value, json};

/// All that the tests make begins with this and the process id of the test.
const PREFIX: &str = "pcni-";

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs `ip` and wants it to succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip -batch` on these lines.
fn ip_batch(lines: &str) {
    let mut child = Command::new("ip").args(["-force", "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip -batch: {lines}");
}

/// Calls `job` on a thread that is in the network namespace `name`.
pub(crate) fn inside<T: Send>(name: &str, job: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                job()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Removes what runs left that were killed: everything with the prefix and the id of a process that is no more.
fn remove_leftovers() {
    let names = |directory: &str| {
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let is_left = |name: &String| {
        let Some(rest) = name.strip_prefix(PREFIX) else { return false };
        let pid = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    for name in names("/run/netns").filter(is_left) {
        // Another run may be removing it as well.
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
    }
    for name in names("/run").filter(is_left) {
        remove_directory(&Path::new("/run").join(name));
    }
}

fn remove_directory(directory: &Path) {
    // There is nothing to unmount where the plugin has mounted nothing.
    while umount2(&directory.join("bpf"), MntFlags::MNT_DETACH).is_ok() {}
    let _ = fs::remove_dir_all(directory);
}

/// A node: a network namespace that forwards, and a directory for a BPF file system.
pub(crate) struct Node {
    pub(crate) name: String,
    directory: PathBuf,
}

impl Node {
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them as root");
        static LEFTOVERS: Once = Once::new();
        LEFTOVERS.call_once(remove_leftovers);
        let name = unique();
        let directory = Path::new("/run").join(&name);
        fs::create_dir(&directory).unwrap();
        ip(&format!("netns add {name}"));
        let node = Self { name, directory };
        node.ip("link set lo up");
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            node.sysctl(setting, "1");
        }
        node
    }

    /// Runs `ip` on the node.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        inside(&self.name, || fs::write(format!("/proc/sys/net/{name}"), value).unwrap());
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// A file for a test's own use.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::open(&self.bpffs()).unwrap().expect("an ADD has made the ledger")
    }

    /// A configuration of the newest version for both families.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "portolan",
            "type": "portolan-cni",
            "bpffs": self.bpffs(),
            "podCIDRs": ["10.244.1.0/24", "fd44:0:0:1::/64"],
            "capabilities": {"ips": true, "mac": true, "portMappings": true},
        })
    }

    /// A configuration with one key replaced.
    pub(crate) fn config_with(&self, key: &str, value: Value) -> Value {
        let mut config = self.config();
        config[key] = value;
        config
    }

    /// A configuration with hostPorts, as a container runtime passes them.
    pub(crate) fn config_with_ports(&self, mappings: &Value) -> Value {
        self.config_with("runtimeConfig", json!({"portMappings": mappings}))
    }

    pub(crate) fn call<'a>(&'a self, command: &'a str, config: &'a Value) -> Call<'a> {
        Call { node: self, config, environment: vec![("CNI_COMMAND".to_owned(), command.to_owned())] }
    }

    /// ADD of a pod with the node's configuration; must succeed.
    pub(crate) fn add(&self, pod: &Pod) -> Value {
        self.call("ADD", &self.config()).pod(pod).run().success()
    }

    /// DEL of a pod with the node's configuration; must succeed.
    pub(crate) fn del(&self, pod: &Pod) {
        self.call("DEL", &self.config()).pod(pod).run().success();
    }

    /// What the node still has of any pod: addresses, hostPorts, attachments, links, routes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(ledger) = Ledger::open(&self.bpffs()).unwrap() {
            left.extend(ledger.pods().unwrap().keys().map(|addr| format!("address {addr}")));
            left.extend(ledger.host_ports().unwrap().keys().map(|key| format!("hostPort {key:?}")));
            left.extend(ledger.attachments().unwrap().keys().map(|owner| format!("attachment {owner:?}")));
        }
        let links = self.ip("-o link");
        left.extend(links.lines().filter(|line| line.contains(" pn")).map(str::to_owned));
        for family in ["-4", "-6"] {
            left.extend(
                self.ip(&format!("{family} route show table all proto 112")).lines().map(str::to_owned),
            );
        }
        left
    }

    pub(crate) fn assert_clean(&self, when: &str) {
        assert_eq!(self.leftovers(), Vec::<String>::new(), "left {when}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
        remove_directory(&self.directory);
    }
}

/// A pod: a network namespace and the id of its container.
pub(crate) struct Pod {
    pub(crate) name: String,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let pod = Self { name: unique() };
        ip(&format!("netns add {}", pod.name));
        pod
    }

    /// Many pods, made together.
    pub(crate) fn many(count: usize) -> Vec<Self> {
        let pods: Vec<Self> = (0..count).map(|_| Self { name: unique() }).collect();
        ip_batch(&pods.iter().map(|pod| format!("netns add {}\n", pod.name)).collect::<String>());
        pods
    }

    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `ip` in the pod.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A call of the plugin, about to be made.
pub(crate) struct Call<'a> {
    node: &'a Node,
    config: &'a Value,
    environment: Vec<(String, String)>,
}

impl Call<'_> {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// For this pod, as containerd calls it.
    pub(crate) fn pod(self, pod: &Pod) -> Self {
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={0};K8S_POD_INFRA_CONTAINER_ID={0};K8S_POD_UID=0",
            pod.name
        );
        self.env("CNI_CONTAINERID", &pod.name)
            .env("CNI_NETNS", &pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", &arguments)
    }

    pub(crate) fn run(self) -> Answer {
        let Self { node, config, environment } = self;
        let input = config.to_string();
        let output = inside(&node.name, || {
            let mut child = Command::new(env!("CARGO_BIN_EXE_portolan-cni"))
                .env_clear()
                .envs(environment.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // The plugin may refuse a request, and end, without reading its input.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        });
        let stdout = String::from_utf8(output.stdout).unwrap();
        Answer { status: output.status, stdout, stderr: String::from_utf8(output.stderr).unwrap() }
    }
}

/// What the plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// The result; `null` where a command has none.
    pub(crate) fn success(self) -> Value {
        assert!(self.status.success(), "{self:?}");
        if self.stdout.is_empty() { Value::Null } else { serde_json::from_str(&self.stdout).unwrap() }
    }

    /// The error's code and text; its form is checked on the way.
    pub(crate) fn failure(self) -> (u64, String) {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(error["cniVersion"].is_string(), "{error}");
        let text = |key: &str| error[key].as_str().unwrap().to_owned();
        (error["code"].as_u64().unwrap(), format!("{}; {}", text("msg"), text("details")))
    }

    /// A failure with this code, whose text says `words`.
    #[track_caller]
    pub(crate) fn fails(self, code: u64, words: &str) {
        let (found, text) = self.failure();
        assert_eq!(found, code, "{text}");
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }

    pub(crate) fn killed(&self) -> bool {
        self.status.signal() == Some(9)
    }
}

/// The addresses in a result.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()).collect()
}
