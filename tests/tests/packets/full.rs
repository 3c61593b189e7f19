use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portolan_lab::{Agent, Family, Lab, Node, tcp, wait};
use serde_json::Value;

use super::scene::{NODE_PORT, TARGET, fails, front};

/// How many flows fit on the node of this test.
const FLOWS: usize = 16;
/// The daemon looks every five seconds, and the machine may be busy.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_full_table_of_flows_refuses_new_ones_by_name_and_is_told() -> Result<()> {
    let mut lab = Lab::new()?;
    let node = lab.node("n1")?;
    node.set_args(&["--max-flows", &FLOWS.to_string()]);
    lab.start()?;
    let server = lab.server(&node, "one", TARGET)?;
    lab.expose(&front(), TARGET, &[&server])?;
    let outside: &Agent = lab.outside().agent();
    let call = tcp(SocketAddr::new(node.ip(Family::V4), NODE_PORT));
    let mut kept = Vec::new();
    for number in 0..FLOWS {
        let socket = outside.open(call.clone()).with_context(|| format!("connection {number}"))?;
        socket.ask()?;
        kept.push(socket);
    }
    assert_eq!(status(&node)?["usage"]["flows"], serde_json::json!({ "used": FLOWS, "max": FLOWS }));
    assert_eq!(fails("outside", outside, &call), "ETIMEDOUT", "there is no room for one more");
    wait::until(TOLD_WITHIN, "the status tells of it", || {
        let status = status(&node)?;
        let degraded = status["degraded"].to_string();
        let told = degraded.contains("map of flows") && degraded.contains("(FlowsFull)");
        Ok((told && status["outcomes"]["flows_full"].as_u64() > Some(0)).then_some(()))
    })?;
    for socket in &kept {
        socket.ask().context("a flow that was there goes on")?;
    }
    drop(kept.pop());
    outside.ask(call).context("whoever ends makes room")?;
    Ok(())
}

/// `portolan status`, which fails where something is degraded.
fn status(node: &Node) -> Result<Value> {
    let out = node.setup().tool(node.place(), &["status", "-o", "json"])?;
    serde_json::from_slice(&out.stdout).context("status should print JSON")
}
