//! The Kubernetes API: a watch for each kind.
//!
//! ```text
//! connection: whom to ask ─> client ─> watch (one per kind): list, watch, resume ─> fold: Init … InitDone ─> Notices
//!                                        └ answer: K8s JSON straight into our types, one bad object alone
//! ```
//! No object is kept here. So an object that is refused keeps its last good version while its watch lasts, but is
//! absent, and reported, after the next complete list.

mod connection;
mod fold;
mod item;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ::kube::Client;
use ::kube::runtime::watcher;
use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use portolan_core::object::Kind;

pub use self::connection::{Connection, connect};
use self::item::Item;
use super::{Notice, Notices};

/// How long the API server serves a watch, in seconds; a client that got nothing for longer knows that the server is
/// stuck. A connection that is dead is noticed earlier, by TCP: see [`connect`].
const WATCH_SECONDS: u32 = 240;

/// Delivers the objects of a cluster: a Reset of every kind after each complete list, then the changes, until the
/// receiver is dropped. The API is asked for what kube-proxy asks for, and all nodes.
///
/// # Errors
/// None: what fails is told by [`Notice::Health`] and tried again.
pub async fn run(client: Client, notices: Notices) -> anyhow::Result<()> {
    let health = Health { failing: Mutex::default(), notices: notices.clone() };
    let config = || watcher::Config::default().timeout(WATCH_SECONDS);
    let services =
        config().labels("!service.kubernetes.io/service-proxy-name").fields("spec.clusterIP!=None");
    let slices = config().labels("!service.kubernetes.io/headless");
    let watches = async {
        tokio::try_join!(
            watch::run::<Service>(&client, services, &health),
            watch::run::<EndpointSlice>(&client, slices, &health),
            watch::run::<Node>(&client, config(), &health),
            watch::run::<ServiceCIDR>(&client, config(), &health),
        )
    };
    tokio::select! {
        result = watches => if notices.is_closed() { Ok(()) } else { result.map(|_| ()) },
        () = notices.closed() => Ok(()),
    }
}

/// The health of all watches as one: the connection works when every watch does.
#[derive(Debug)]
struct Health {
    failing: Mutex<BTreeMap<Kind, String>>,
    notices: Notices,
}

impl Health {
    /// Takes a watch as working, or as failing, and tells when that changes anything.
    async fn set(&self, kind: Kind, why: Option<String>) -> anyhow::Result<()> {
        let change = {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            let before = failing.clone();
            match why {
                Some(why) => failing.insert(kind, why),
                None => failing.remove(&kind),
            };
            (*failing != before).then(|| describe(&failing))
        };
        match change {
            Some(health) => self.send(Notice::Health(health)).await,
            None => Ok(()),
        }
    }

    async fn send(&self, notice: Notice) -> anyhow::Result<()> {
        self.notices.send(notice).await.context("Failed to deliver what the API server says")
    }
}

fn describe(failing: &BTreeMap<Kind, String>) -> Option<String> {
    let texts: Vec<String> = failing.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
    (!texts.is_empty()).then(|| format!("Kubernetes API: {}", texts.join("; ")))
}

#[cfg(test)]
mod tests;
