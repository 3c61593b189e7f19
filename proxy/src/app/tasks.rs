//! The tasks beside the run loop. A panic in one is a restart of that one and a metric, not a daemon half dead.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::kube::Client;
use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use portolan_core::state::Problem;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::events;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::node::gc::Collector;
use crate::source::{Notice, Notices, dir, kube};

/// How long to wait before a task that ended is started again.
const RESTART: Duration = Duration::from_secs(1);

/// The source of objects, ready to run.
pub(super) enum Source {
    Manifests(PathBuf, Notices),
    Api(kube::Connection, Notices),
}

impl Source {
    /// Prepares the source; fails when it can never work as configured.
    pub(super) async fn new(config: &Config, notices: Notices) -> Result<Self> {
        match &config.source {
            config::Source::Manifests(dir) => Ok(Self::Manifests(dir.clone(), notices)),
            config::Source::Api { kubeconfig, server } => {
                let connection = kube::connect(kubeconfig.as_deref(), server.as_deref())
                    .await
                    .context("preparing the connection to the API server")?;
                if let Some(text) = &connection.warning {
                    warn!("{text}");
                }
                Ok(Self::Api(connection, notices))
            }
        }
    }

    /// What tells problems as Events, where there is an API server to tell them to.
    pub(super) fn client(&self) -> Option<Client> {
        match self {
            Self::Manifests(..) => None,
            Self::Api(connection, _) => Some(connection.client.clone()),
        }
    }

    /// Addresses that no Service may take over.
    pub(super) fn api_server_addresses(&self) -> BTreeSet<IpAddr> {
        match self {
            Self::Manifests(..) => BTreeSet::new(),
            Self::Api(connection, _) => connection.addresses.clone(),
        }
    }

    fn run(&self) -> BoxFuture<'static, Result<()>> {
        let (Self::Manifests(_, notices) | Self::Api(_, notices)) = self;
        let notices = notices.clone();
        let run: BoxFuture<'static, Result<()>> = match self {
            Self::Manifests(dir, _) => Box::pin(dir::run(dir.clone(), notices.clone())),
            Self::Api(connection, _) => Box::pin(kube::run(connection.client.clone(), notices.clone())),
        };
        Box::pin(async move {
            notices.send(Notice::Started).await?;
            run.await
        })
    }
}

/// Starts the tasks; they end when the set is dropped.
pub(super) fn spawn(
    source: Source,
    node: &str,
    problems: watch::Receiver<BTreeSet<Problem>>,
    pods: Option<PathBuf>,
    metrics: &Arc<Metrics>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(client) = source.client() {
        let node = node.to_owned();
        let tell = move || endless(events::tell(client.clone(), node.clone(), problems.clone()));
        tasks.spawn(supervise("events", tell, Arc::clone(metrics)));
    }
    tasks.spawn(supervise("source", move || source.run(), Arc::clone(metrics)));
    if let Some(bpffs) = pods {
        let collector = Arc::new(Collector::new(bpffs));
        tasks.spawn(supervise("pods", move || endless(Arc::clone(&collector).run()), Arc::clone(metrics)));
    }
    tasks
}

async fn endless(task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Ok(())
}

async fn supervise<F>(name: &'static str, start: impl Fn() -> F + Send, metrics: Arc<Metrics>)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        match tokio::spawn(start()).await {
            Ok(Ok(())) => warn!(task = name, "ended; starting it again"),
            Ok(Err(failure)) => error!(task = name, "failed, starting it again: {failure:#}"),
            Err(_) => error!(task = name, "panicked; starting it again"),
        }
        metrics.task_restarted(name);
        tokio::time::sleep(RESTART).await;
    }
}
