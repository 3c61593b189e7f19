//! The command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cleanup::{self, CleanupArgs};
use crate::config::{Config, Machine, RunArgs};
use crate::inspect::{self, Paint, Place};

mod log;

/// The exit code of `portolan status` on a degraded node.
const DEGRADED: u8 = 1;
/// The exit code of everything that fails, as of a wrong command line.
pub const FAILED: u8 = 2;

/// Kubernetes Services and a routed pod network for a node, in eBPF
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    max_term_width = 110,
    after_help = "\
`portolan run` is the daemon. All others look at this node, or clean it up, and
need no daemon: what it has set up is in the kernel and outlives it.

Examples:
  portolan run --manifests ./cluster   serve Services without Kubernetes
  portolan status                      what is wrong here, and what to do
  portolan services shop/cart          where a connection to a Service goes
"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: bring Services, and with a CNI directory the pod network, into the kernel and keep them there
    #[command(after_help = "\
What it has set up stays when it ends, so that it can be restarted and replaced
while traffic goes on; `portolan cleanup` takes it away.

Examples:
  As a pod with a ServiceAccount, for Services only:
  portolan run
  As a pod with a ServiceAccount, for Services and the pod network:
  portolan run --cni-conf-dir /etc/cni/net.d --cni-bin-dir /opt/cni/bin
  In place of kube-proxy:
  portolan run --config /var/lib/kube-proxy/config.conf
  Without Kubernetes:
  portolan run --manifests ./cluster --node-name node-a
")]
    Run(Box<RunArgs>),

    /// Show what is degraded on this node and why, then the daemon, programs, maps, traffic and other nodes
    #[command(after_help = "\
Exit code: 0 when nothing is degraded, 1 when something is, 2 when there is
nothing to look at.

Examples:
  portolan status
  portolan status -o json | jq .degraded
")]
    Status(Place),

    /// Show the Services that this node serves: each address, its backends, and what happens to a connection
    #[command(after_help = "\
VERDICT says what happens to a connection from this node and, where it differs,
from outside: `ok`; `refused` when the Service has no endpoint anywhere;
`unreachable` when the policy is Local and no endpoint is here. CONNECTIONS and
REFUSED are counts of the Service port.

Examples:
  portolan services                      all of them
  portolan services shop/cart            one, with its backends
  portolan services 10.96.0.10           those with this in a name or an address
  portolan services --backends -o json   everything, for programs
  portolan services --dump               the maps as text, to be compared
")]
    Services {
        /// NAMESPACE/NAME for one Service; otherwise a part of a name or an address
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
        /// List the backends as well
        #[arg(long)]
        backends: bool,
        /// Print the state of all maps as sorted text, the form in which tests compare it
        #[arg(long, conflicts_with_all = ["filter", "backends", "output"])]
        dump: bool,
        #[command(flatten)]
        place: Place,
    },

    /// Show the pods attached to this node's network: addresses, interface, container, state
    #[command(after_help = "\
Examples:
  portolan pods
  portolan pods -o wide   with the interface in the pod and its namespace
")]
    Pods(Place),

    /// Show the routes to the pods of each node, and how that node is reached
    #[command(after_help = "\
PEER says `direct` when the node is on a network of this one, so that a route is
enough. Run it in the node's network namespace.

Examples:
  portolan routes
  portolan routes -o json
")]
    Routes(Place),

    /// Show what is translated packet by packet: who sends, to whom it goes, and as whom
    #[command(after_help = "\
SOURCE is whom the receiver sees. SERVICE is `-` where a pod talks to the world
and is masqueraded, and where a pod's hostPort is asked for. A flow that is over
(closed, or expired after silence) stays until its place is needed, and is shown
with --closed only.

Examples:
  portolan flows                       all that go on
  portolan flows --service shop/cart   who talks to a Service from outside
  portolan flows --pod 10.244.1.7      what a pod is part of
")]
    Flows {
        #[command(flatten)]
        question: inspect::flows::Question,
        #[command(flatten)]
        place: Place,
    },

    /// Explain what becomes of a new connection: each question that the programs ask, its answer, and the verdict
    #[command(after_help = "\
It asks the maps what the programs ask them, in the same order, and changes
nothing. The verdict begins with the outcomes that `portolan status` counts, or
with `stack` where the host's own stack takes the packet as it is. A socket gets
a backend at random; for a packet from outside a hash chooses, which is told
exactly when SRC has a port.

Examples:
  A pod and a Service; a client outside and a nodePort; a pod and the world:
  portolan explain tcp pod/shop/web-1 shop/cart:80
  portolan explain tcp 198.51.100.7:40000 192.0.2.1:30080
  portolan explain udp 10.244.1.7 1.1.1.1:53
  Would a pod be believed that it is somebody else:
  portolan explain icmp 10.244.1.9 10.244.2.4 --from pod/shop/web-1
")]
    Explain {
        #[command(flatten)]
        asked: inspect::explain::Asked,
        #[command(flatten)]
        place: Place,
    },

    /// Show drops, refusals and what begins to be translated, as it happens
    #[command(after_help = "\
EVENT is `flow` for packets that begin to be translated, `drop` for one that was
dropped or refused, `socket` for a socket that was given a backend, `refusal`
for a system call that failed. OUTCOME is what `portolan status` counts. AT is
where it was seen: an interface, the pod behind one, or `socket`. Times are UTC.
What pods send each other by their own addresses is not told: nothing is done to
it.

The programs tell of it only while this runs, and a few seconds longer if it is
killed. One at a time can listen. --service and --pod choose among what is
told, and --sample before that: with it, what is chosen is a sample as well.

Examples:
  portolan monitor                            everything
  portolan monitor --drops                    what goes wrong
  portolan monitor --service shop/cart        who comes to a Service
  portolan monitor --pod shop/web-1 -o json   a pod, an object a line
  portolan monitor --sample 100 --count 50    fifty lines of a busy node
")]
    Monitor {
        #[command(flatten)]
        question: inspect::monitor::Question,
        #[command(flatten)]
        place: Place,
    },

    /// Remove everything of Portolan's from this node; pods that run lose their network
    #[command(after_help = "\
Examples:
  portolan cleanup --dry-run   only say what would be removed
  portolan cleanup             after the daemon has ended
")]
    Cleanup(CleanupArgs),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// Says what failed and what to do.
    pub fn execute(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => run(*args),
            Command::Status(place) => {
                let (text, healthy) = inspect::status::show(&place, Paint::of_stdout())?;
                print(&text)?;
                Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
            }
            Command::Services { dump: true, place, .. } => print(&inspect::services::dump(&place)?),
            Command::Services { filter, backends, place, .. } => {
                print(&inspect::services::show(&place, &inspect::services::Question { filter, backends })?)
            }
            Command::Pods(place) => print(&inspect::pods::show(&place)?),
            Command::Routes(place) => print(&inspect::routes::show(&place)?),
            Command::Flows { question, place } => print(&inspect::flows::show(&place, &question)?),
            Command::Explain { asked, place } => print(&inspect::explain::show(&place, &asked)?),
            Command::Monitor { question, place } => {
                runtime()?.block_on(inspect::monitor::run(&place, &question, Paint::of_stdout()))?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Cleanup(args) => {
                runtime()?.block_on(cleanup::run(args))?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn run(args: RunArgs) -> Result<ExitCode> {
    let config = Config::resolve(args, &Machine::observe()?)?;
    log::init(config.log_format)?;
    runtime()?.block_on(crate::app::run(config))?;
    Ok(ExitCode::SUCCESS)
}

/// One thread: the daemon waits nearly always, and what it decides must be decided in one place anyway.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Prints; that the reader (`| head`) has gone is no failure.
fn print(text: &str) -> Result<ExitCode> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests;
