use anyhow::Result;
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Call, Service, tcp, udp};

use super::story::{Story, TARGET, refused, served};

fn ways(v4: &str, v6: &str, port: u16) -> Vec<Call> {
    let mut calls = Vec::new();
    for call in [tcp, udp] as [fn(String) -> Call; 2] {
        calls.extend([call(format!("{v4}:{port}")), call(format!("{v4}:{port}")).mapped()]);
        calls.push(call(format!("[{v6}]:{port}")));
    }
    let connected: Vec<_> = calls.iter().cloned().map(Call::connected).collect();
    calls.extend(connected);
    calls
}

#[test]
fn nobody_there_is_told_at_once() -> Result<()> {
    let story = Story::begin()?;
    let empty = Service::new("shop/empty")
        .cluster_ip("10.96.0.40")
        .cluster_ip("fd96::40")
        .external_ip("198.51.100.40")
        .external_ip("2001:db8::40")
        .port("t", Tcp, 80)
        .node_port(30040)
        .port("u", Udp, 80)
        .node_port(30040);
    story.lab.apply(&empty)?;
    story.lab.settle()?;
    for (who, agent) in story.clients() {
        let mut calls = ways("10.96.0.40", "fd96::40", 80);
        calls.extend(ways("198.51.100.40", "2001:db8::40", 80));
        calls.extend(ways("172.20.0.12", "fd20::12", 30040));
        for call in calls {
            refused(who, agent, &call, "ECONNREFUSED");
        }
    }
    Ok(())
}

#[test]
fn a_local_policy_with_nobody_here_is_unreachable() -> Result<()> {
    let story = Story::begin()?;
    let local = Service::new("shop/local")
        .cluster_ip("10.96.0.41")
        .cluster_ip("fd96::41")
        .internal_local()
        .port("t", Tcp, 80)
        .port("u", Udp, 80);
    story.lab.expose(&local, TARGET, &[&story.two])?;
    for (who, agent) in story.clients() {
        for call in ways("10.96.0.41", "fd96::41", 80) {
            refused(who, agent, &call, "EHOSTUNREACH");
        }
    }
    let there = story.lab.pod(story.node(2), "there")?;
    assert_eq!(served("a pod beside the server", there.agent(), &tcp("10.96.0.41:80"))?, "two");
    Ok(())
}

#[test]
fn a_port_that_the_service_does_not_have_is_refused() -> Result<()> {
    let story = Story::begin()?;
    let web = Service::new("shop/web").cluster_ip("10.96.0.42").cluster_ip("fd96::42").port("t", Tcp, 80);
    story.lab.expose(&web, TARGET, &story.servers())?;
    for (who, agent) in story.clients() {
        served(who, agent, &tcp("10.96.0.42:80"))?;
        for call in ways("10.96.0.42", "fd96::42", 81) {
            refused(who, agent, &call, "ECONNREFUSED");
        }
        // The number exists, but for the other protocol.
        refused(who, agent, &udp("10.96.0.42:80"), "ECONNREFUSED");
    }
    Ok(())
}

#[test]
fn an_address_that_no_service_has_is_unreachable() -> Result<()> {
    let story = Story::begin()?;
    for (who, agent) in story.clients() {
        for call in ways("10.96.7.7", "fd96::7777", 80) {
            refused(who, agent, &call, "EHOSTUNREACH");
        }
    }
    Ok(())
}
