//! `cargo xtask bench cni`: the plugin run as a container runtime runs it, one process for each ADD and DEL, alone and
//! many at a time.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::manifests;
use super::sandbox::{self, Sandbox};
use super::statistics::{median, percentile};
use crate::process::{capture, run as run_command};
use crate::{setup, workspace};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: super::Options,
    #[arg(long, default_value_t = 60)]
    pods: usize,
    /// How many at a time in the second part.
    #[arg(long, default_value_t = 30)]
    parallel: usize,
}

/// Times of a verb, in milliseconds.
#[derive(Debug, Serialize)]
struct Results {
    verb: &'static str,
    parallel: usize,
    pods: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// A pod's result of ADD, and how long it took.
type Timed = (f64, Value);

pub(super) fn run(args: &Args) -> Result<()> {
    workspace::require_root("the benchmark")?;
    ensure!(args.pods > 0 && args.parallel > 0, "at least one pod, at least one at a time");
    setup::toolchain()?;
    setup::require(&setup::LAB)?;
    args.options.build()?;
    let results = measure(args)?;
    println!("verb  at a time      p50 ms      p99 ms    pods");
    for Results { verb, parallel, pods, p50_ms, p99_ms } in &results {
        println!("{verb:<6}{parallel:>9}{p50_ms:>12.2}{p99_ms:>12.2}{pods:>8}");
    }
    args.options.write(&results)?;
    args.options.judge(&broken_bounds(&results))
}

fn broken_bounds(results: &[Results]) -> Vec<String> {
    let mut broken = Vec::new();
    for one in results.iter().filter(|one| one.verb == "ADD") {
        let (p50, p99) = if one.parallel == 1 { (5.0, f64::INFINITY) } else { (40.0, 100.0) };
        for (what, value, most) in [("p50", one.p50_ms, p50), ("p99", one.p99_ms, p99)] {
            if value > most {
                broken.push(format!(
                    "ADD, {} at a time, {what}: {value:.2} ms, at most {most} ms",
                    one.parallel
                ));
            }
        }
    }
    broken
}

fn measure(args: &Args) -> Result<Vec<Results>> {
    let mut sandbox = Sandbox::open()?;
    let folder = Sandbox::path("manifests");
    let fixed = manifests::node(sandbox::NAME, sandbox::ADDRESS.parse()?, "10.244.0.0/20");
    manifests::write_all(&folder, &fixed, std::iter::empty())?;
    let (conf, bin) = (Sandbox::path("cni/conf"), Sandbox::path("cni/bin"));
    let texts = [conf.to_string_lossy(), bin.to_string_lossy()];
    sandbox.start(&["--cni-conf-dir", &texts[0], "--cni-bin-dir", &texts[1]])?;
    let network = Network::read(&conf, &bin)?;
    let _pods = Pods::make(args.pods)?;

    let mut results = Vec::new();
    for parallel in [1, args.parallel] {
        let added = network.all("ADD", parallel, args.pods, &[])?;
        results.push(summary("ADD", parallel, &added));
        let deleted = network.all("DEL", parallel, args.pods, &added)?;
        results.push(summary("DEL", parallel, &deleted));
    }
    Ok(results)
}

fn summary(verb: &'static str, parallel: usize, timed: &[Timed]) -> Results {
    let times: Vec<f64> = timed.iter().map(|(time, _)| *time).collect();
    Results { verb, parallel, pods: times.len(), p50_ms: median(&times), p99_ms: percentile(&times, 0.99) }
}

/// The network that the daemon configured, as a runtime reads it.
struct Network {
    list: Value,
    bin: String,
}

impl Network {
    fn read(conf: &Path, bin: &Path) -> Result<Self> {
        let files = fs::read_dir(conf).with_context(|| format!("cannot read {}", conf.display()))?;
        let mut files = files.flatten().map(|file| file.path());
        let file = files
            .find(|path| path.extension().is_some_and(|extension| extension == "conflist"))
            .with_context(|| format!("the daemon wrote no conflist into {}", conf.display()))?;
        let list = serde_json::from_str(&workspace::read(&file)?)?;
        Ok(Self { list, bin: bin.to_string_lossy().into_owned() })
    }

    /// The verb for every pod, by so many threads in the node's namespace; in order of the pods.
    fn all(&self, verb: &str, parallel: usize, pods: usize, added: &[Timed]) -> Result<Vec<Timed>> {
        let next = Mutex::new(0..pods);
        let worker = || -> Result<Vec<(usize, Timed)>> {
            sandbox::enter()?;
            let mut done = Vec::new();
            loop {
                let pod = next.lock().expect("no worker panics").next();
                let Some(pod) = pod else { return Ok(done) };
                let result = added.get(pod).map(|(_, result)| result);
                done.push((pod, self.one(verb, pod, result)?));
            }
        };
        let mut done = thread::scope(|scope| {
            let workers: Vec<_> = (0..parallel).map(|_| scope.spawn(worker)).collect();
            let results = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic"));
            results.collect::<Result<Vec<_>>>()
        })?
        .concat();
        done.sort_by_key(|(pod, _)| *pod);
        Ok(done.into_iter().map(|(_, timed)| timed).collect())
    }

    /// Runs the plugins of the list in order, backwards for DEL, handing on the result.
    fn one(&self, verb: &str, pod: usize, result: Option<&Value>) -> Result<Timed> {
        let mut plugins: Vec<&Value> =
            self.list["plugins"].as_array().context("no plugins")?.iter().collect();
        if verb == "DEL" {
            plugins.reverse();
        }
        let mut result = result.cloned();
        let start = Instant::now();
        for plugin in plugins {
            let mut config = plugin.clone();
            let fields = config.as_object_mut().context("a plugin is an object")?;
            fields.remove("capabilities");
            for name in ["name", "cniVersion"] {
                fields.insert(name.to_owned(), self.list[name].clone());
            }
            if let Some(result) = &result {
                fields.insert("prevResult".to_owned(), result.clone());
            }
            let output = self.call(verb, pod, &config)?;
            if verb == "ADD" {
                result = Some(serde_json::from_slice(&output).context("ADD printed no JSON")?);
            }
        }
        Ok((start.elapsed().as_secs_f64() * 1e3, result.unwrap_or_default()))
    }

    fn call(&self, verb: &str, pod: usize, config: &Value) -> Result<Vec<u8>> {
        let plugin = config["type"].as_str().context("a plugin has a type")?;
        let mut child = Command::new(format!("{}/{plugin}", self.bin))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", format!("bench{pod:06}"))
            .env("CNI_NETNS", format!("/run/netns/{}", Pods::name(pod)))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.bin)
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=pod-{pod}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {plugin}"))?;
        let mut stdin = child.stdin.take().context("the plugin has no input")?;
        stdin.write_all(&serde_json::to_vec(config)?)?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{verb} of pod {pod} by {plugin}: {}", String::from_utf8_lossy(&said));
        }
        Ok(output.stdout)
    }
}

/// Namespaces of pods, removed at the end.
struct Pods {
    count: usize,
}

impl Pods {
    fn make(count: usize) -> Result<Self> {
        let pods = Self { count };
        pods.remove();
        for pod in 0..count {
            run_command(Command::new("ip").args(["netns", "add", &Self::name(pod)]))?;
        }
        Ok(pods)
    }

    fn name(pod: usize) -> String {
        format!("portolan-bench-{pod}")
    }

    fn remove(&self) {
        for pod in 0..self.count {
            // A killed run may have left some of them.
            let _ = capture(Command::new("ip").args(["netns", "del", &Self::name(pod)]));
        }
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.remove();
    }
}
