//! The watch of one kind: list, watch, resume, and begin anew where the server cannot resume.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::kube::runtime::{WatchStreamExt, watcher};
use ::kube::{Api, Client, Resource};
use anyhow::Context;
use futures::{FutureExt, Stream, StreamExt};
use portolan_core::object::Kind;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::fold::Fold;
use super::{Health, Item};
use crate::source::parse::Parse;

/// How long the next object of a streaming list may take. A server from before Kubernetes 1.27 takes no notice of
/// being asked for one, and never says that it is complete.
const STREAMING_PAUSE: Duration = Duration::from_secs(10);
/// How long to wait before listing again where the server does not resume.
const AGAIN: Duration = Duration::from_secs(1);
/// How long to wait before asking again for a kind that the server does not have.
const ABSENT: Duration = Duration::from_secs(300);
/// How long the server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Why a watcher was given up.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The server cannot resume from where we are.
    Expired,
    /// The server does not serve streaming lists.
    NotStreaming,
    /// The server does not have the kind.
    Absent,
}

/// Watches a kind for ever.
///
/// # Errors
/// When the receiver of notices is gone.
pub(super) async fn run<K>(client: &Client, config: watcher::Config, health: &Health) -> anyhow::Result<()>
where
    K: Parse + Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    let answered = Arc::new(Notify::new());
    let api: Api<Item<K>> = Api::all(observed(client.clone(), Arc::clone(&answered)));
    let mut fold = Fold::default();
    let mut config = config.streaming_lists();
    let mut warned = false;
    loop {
        let events = watcher(api.clone(), config.clone()).default_backoff();
        let streaming = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
        match follow::<K>(events, streaming, &answered, &mut fold, health).await? {
            End::Expired => tokio::time::sleep(AGAIN).await,
            End::NotStreaming => config.initial_list_strategy = watcher::InitialListStrategy::ListWatch,
            End::Absent => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(kind = %K::KIND, "the API server does not serve this kind; taken as empty");
                }
                health.set(K::KIND, None).await?;
                for notice in fold.absent(K::KIND) {
                    health.send(notice).await?;
                }
                tokio::time::sleep(ABSENT).await;
            }
        }
    }
}

/// Delivers what a watcher says until it is of no use any more.
async fn follow<K: Parse>(
    events: impl Stream<Item = watcher::Result<watcher::Event<Item<K>>>>,
    streaming: bool,
    answered: &Notify,
    fold: &mut Fold,
    health: &Health,
) -> anyhow::Result<End> {
    let mut events = pin!(events);
    let mut failing = false;
    loop {
        let stalled = streaming && fold.is_listing() && !failing;
        let event = tokio::select! {
            biased;
            () = answered.notified() => {
                failing = false;
                health.set(K::KIND, None).await?;
                continue;
            }
            event = events.next() => event.context("A watcher ended")?,
            () = tokio::time::sleep(STREAMING_PAUSE), if stalled => return Ok(End::NotStreaming),
        };
        match event {
            Ok(event) => {
                for notice in fold.said(event) {
                    health.send(notice).await?;
                }
            }
            Err(error) => {
                if let Some(end) = end(K::KIND, &error, streaming) {
                    return Ok(end);
                }
                if !is_expired(&error) {
                    // The answer that brought the error is no sign of health.
                    answered.notified().now_or_never();
                    failing = true;
                    health.set(K::KIND, Some(error.to_string())).await?;
                }
            }
        }
    }
}

/// Whether an error ends a watcher. All others it gets over by itself.
///
/// Only a ServiceCIDR may be absent, as it is from before Kubernetes 1.33: of the other kinds a 404 comes from
/// something that is no API server, and must not look like an empty cluster.
fn end(kind: Kind, error: &watcher::Error, streaming: bool) -> Option<End> {
    let (watcher::Error::InitialListFailed(::kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(::kube::Error::Api(status))) = error
    else {
        return None;
    };
    match status.code {
        404 if kind == Kind::ServiceCidr => Some(End::Absent),
        410 => Some(End::Expired),
        400 | 422 if streaming => Some(End::NotStreaming),
        _ => None,
    }
}

/// Whether a watch failed because it fell behind, which is no fault: the watcher lists again.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// A client that tells of each request which the server answered with success. A watcher cannot tell that it got
/// through to a server that has nothing to say.
fn observed(client: Client, answered: Arc<Notify>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let (client, answered) = (client.clone(), Arc::clone(&answered));
        async move {
            let response = tokio::time::timeout(ANSWER, client.send(request)).await??;
            if response.status().is_success() {
                answered.notify_one();
            }
            Ok::<_, tower::BoxError>(response)
        }
    });
    Client::new(service, namespace)
}
