//! A plugin that is killed after any step: the next DEL, GC or ADD puts everything right.

use std::collections::BTreeSet;

use portolan_cni::crash;
use serde_json::{Value, json};

use crate::lab::{Node, Pod, addresses, ip};

/// With hostPorts, so that every step is taken.
fn config(node: &Node) -> Value {
    node.config_with_ports(&json!([{"hostPort": 8088, "containerPort": 8080}]))
}

/// ADD with hostPorts; must succeed.
fn add(node: &Node, pod: &Pod) -> Value {
    node.call("ADD", &config(node)).pod(pod).run().success()
}

/// Runs a command that is killed after `step`.
fn killed(node: &Node, command: &str, pod: &Pod, step: &str) {
    let answer = node.call(command, &config(node)).pod(pod).env("PORTOLAN_CNI_STOP_AFTER", step).run();
    assert!(answer.killed(), "{command} was not killed after {step}: {answer:?}");
}

/// What a runtime does after a plugin was killed, and its name.
type Cure = (&'static str, fn(&Node, &Pod));

fn cures() -> [Cure; 4] {
    [
        ("DEL", |node, pod| node.del(pod)),
        ("DEL without a namespace", |node, pod| {
            node.call("DEL", &node.config()).pod(pod).env("CNI_NETNS", "").run().success();
        }),
        ("DEL of a namespace that is gone", |node, pod| {
            ip(&format!("netns del {}", pod.name));
            node.del(pod);
        }),
        ("GC", |node, _| {
            let config = node.config_with("cni.dev/valid-attachments", json!([]));
            node.call("GC", &config).run().success();
        }),
    ]
}

#[test]
fn an_add_killed_after_any_step_is_cleaned_up() {
    let node = Node::new();
    for step in crash::ADD {
        for (cure, apply) in cures() {
            let pod = Pod::new();
            killed(&node, "ADD", &pod, step);
            assert_ne!(node.leftovers(), Vec::<String>::new(), "{step} leaves something");
            apply(&node, &pod);
            node.assert_clean(&format!("by ADD killed after {step}, then {cure}"));
        }
    }
}

#[test]
fn an_add_killed_after_any_step_can_be_repeated() {
    let node = Node::new();
    for step in &crash::ADD[..crash::ADD.len() - 2] {
        let pod = Pod::new();
        killed(&node, "ADD", &pod, step);
        let result = add(&node, &pod);
        let ledger = node.ledger();
        assert_eq!(
            ledger.pods().unwrap().len(),
            2,
            "after {step}: only the addresses of the second ADD are taken"
        );
        let given: BTreeSet<_> = addresses(&result).into_iter().collect();
        let taken: BTreeSet<_> = ledger.pods().unwrap().into_keys().map(std::net::IpAddr::from).collect();
        assert_eq!(given, taken);
        assert_eq!(ledger.host_ports().unwrap().len(), 2);
        let mut config = config(&node);
        config["prevResult"] = result;
        node.call("CHECK", &config).pod(&pod).run().success();
        node.del(&pod);
        node.assert_clean(step);
    }
}

#[test]
fn a_del_killed_after_any_step_is_completed() {
    let node = Node::new();
    for step in crash::DEL {
        for (cure, apply) in cures() {
            let pod = Pod::new();
            add(&node, &pod);
            killed(&node, "DEL", &pod, step);
            apply(&node, &pod);
            node.assert_clean(&format!("by DEL killed after {step}, then {cure}"));
        }
    }
}

#[test]
fn an_address_is_free_only_after_its_release_is_noted() {
    let node = Node::new();
    for step in crash::DEL {
        let pod = Pod::new();
        let given = addresses(&add(&node, &pod));
        killed(&node, "DEL", &pod, step);
        let ledger = node.ledger();
        for ip in given {
            let taken = ledger.pod(ip.into()).unwrap().is_some();
            assert!(
                taken || ledger.release(ip.into()).unwrap().is_some(),
                "{ip} is free and rests not, after {step}"
            );
        }
        node.del(&pod);
    }
}
