//! Problems of objects, told where the people who own the objects look: as Events of the API server. Telling is a
//! courtesy; nothing waits for it and nothing fails when it is refused.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use portolan_core::state::Problem;
use tokio::sync::watch;
use tracing::warn;

/// The problems of the moment.
pub(super) type Problems = watch::Sender<BTreeSet<Problem>>;

/// `Event.note` must be shorter than 1 kB (events.k8s.io/v1).
const NOTE: usize = 1000;

/// Tells each problem once, when it appears, until the sender is dropped.
pub(super) async fn tell(client: Client, node: String, mut problems: watch::Receiver<BTreeSet<Problem>>) {
    let reporter = Reporter { controller: "portolan".to_owned(), instance: Some(node) };
    let recorder = Recorder::new(client, reporter);
    let mut told = BTreeSet::new();
    let mut refused = false;
    while problems.changed().await.is_ok() {
        let current = problems.borrow_and_update().clone();
        for problem in current.difference(&told) {
            let Some(object) = reference(&problem.subject) else { continue };
            let result = recorder.publish(&event(problem), &object).await;
            if let (Err(error), false) = (&result, refused) {
                warn!("cannot write Events ({}); problems are in `portolan status` only", in_short(error));
            }
            refused = result.is_err();
        }
        told = current;
    }
}

/// The API server's words, without the whole object that they came in.
fn in_short(error: &kube::Error) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others say what they are in a line")]
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn event(problem: &Problem) -> Event {
    let mut note = problem.message.clone();
    note.truncate((0..=NOTE).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default());
    Event {
        type_: EventType::Warning,
        reason: problem.reason.to_owned(),
        note: Some(note),
        action: "Program".to_owned(),
        secondary: None,
    }
}

/// The object that a problem is about; `None`: it is about this machine.
fn reference(subject: &str) -> Option<ObjectReference> {
    let (kind, name) = subject.split_once(' ')?;
    let api_version = match kind {
        "Service" | "Node" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "ServiceCIDR" => "networking.k8s.io/v1",
        _ => return None,
    };
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, name),
    };
    Some(ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace,
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_that_are_objects_and_others() {
        let service = reference("Service shop/cart").unwrap();
        assert_eq!(service.kind.as_deref(), Some("Service"));
        assert_eq!((service.namespace.as_deref(), service.name.as_deref()), (Some("shop"), Some("cart")));
        let node = reference("Node n1").unwrap();
        assert_eq!((node.namespace, node.name.as_deref()), (None, Some("n1")));
        assert!(reference("Route 10.244.2.0/24").is_none());
        assert!(reference("Kernel").is_none());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let problem = Problem { subject: "Node n".into(), reason: "Reason", message: "ü".repeat(NOTE) };
        let note = event(&problem).note.unwrap();
        assert_eq!(note.chars().count(), NOTE / 2);
    }
}
