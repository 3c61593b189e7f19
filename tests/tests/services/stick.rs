use std::time::Duration;

use anyhow::Result;
use portolan_lab::wire::Proto::Tcp;
use portolan_lab::{Agent, Service, slices, tcp};

use super::story::{Story, TARGET};

/// So many Services with the same three endpoints, that a pattern in the choices is none of chance: 3⁻¹² is 1 in
/// half a million.
const SERVICES: u8 = 12;

fn service(number: u8, seconds: u32) -> Service {
    Service::new(&format!("shop/sticky-{number}"))
        .cluster_ip(format!("10.96.1.{number}"))
        .port("http", Tcp, 80)
        .affinity(seconds)
}

/// Whom each of the Services sends this client to.
fn choices(agent: &Agent) -> Result<Vec<String>> {
    (0..SERVICES).map(|number| Ok(agent.ask(tcp(format!("10.96.1.{number}:80")))?.server)).collect()
}

#[test]
fn a_client_sticks_to_its_server_until_the_timeout() -> Result<()> {
    let story = Story::begin()?;
    let three = story.lab.server(story.node(2), "three", TARGET)?;
    let other = story.lab.pod(story.node(1), "other")?;
    let expose = |seconds: u32| -> Result<()> {
        for number in 0..SERVICES {
            let service = service(number, seconds);
            story.lab.apply(&service)?;
            story.lab.apply_all(&slices(&service, TARGET, &[&story.one, &story.two, &three]))?;
        }
        story.lab.settle()
    };
    expose(600)?;
    let first = choices(story.client.agent())?;
    for _ in 0..10 {
        assert_eq!(choices(story.client.agent())?, first, "the same client, the same server");
    }
    assert_ne!(choices(other.agent())?, first, "another pod is another client");
    assert_ne!(choices(story.node(1).agent())?, first, "the node is another client");
    assert_eq!(choices(story.client.agent())?, first, "and others change nothing");

    expose(1)?;
    let before = choices(story.client.agent())?;
    // Time itself is what is tested here.
    std::thread::sleep(Duration::from_millis(1500));
    assert_ne!(choices(story.client.agent())?, before, "the timeout ends it");
    Ok(())
}

#[test]
fn a_client_leaves_a_server_that_leaves() -> Result<()> {
    let story = Story::begin()?;
    let sticky = service(0, 600);
    let mut slices = story.lab.expose(&sticky, TARGET, &story.servers())?;
    let first = story.client.ask(tcp("10.96.1.0:80"))?.server;
    let (leaves, stays) = if first == "one" { (&story.one, &story.two) } else { (&story.two, &story.one) };
    slices[0].remove(leaves.ip(portolan_lab::Family::V4));
    story.lab.apply_all(&slices)?;
    story.lab.settle()?;
    for _ in 0..10 {
        assert_eq!(story.client.ask(tcp("10.96.1.0:80"))?.server, stays.name());
    }
    Ok(())
}
