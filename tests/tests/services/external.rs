use anyhow::{Context, Result};
use portolan_lab::wire::Proto::Tcp;
use portolan_lab::{Service, tcp};

use super::story::{Story, TARGET, refused, served};

fn service() -> Service {
    Service::new("shop/front").cluster_ip("10.96.0.30").cluster_ip("fd96::30").port("http", Tcp, 80)
}

#[test]
fn external_ips_and_load_balancer_vips_are_served_here() -> Result<()> {
    let story = Story::begin()?;
    let front = service()
        .external_ip("198.51.100.7")
        .external_ip("2001:db8::7")
        .load_balancer("203.0.113.5", "VIP")
        .load_balancer("2001:db8::5", "VIP");
    story.lab.expose(&front, TARGET, &story.servers())?;
    for (who, agent) in story.clients() {
        for ip in ["198.51.100.7", "[2001:db8::7]", "203.0.113.5", "[2001:db8::5]"] {
            let call = tcp(format!("{ip}:80"));
            served(who, agent, &call)?;
            assert_eq!(agent.ask(call.clone())?.peer, call.dst, "{who} asks {call}");
        }
    }
    Ok(())
}

#[test]
fn an_address_of_a_proxying_load_balancer_is_left_to_it() -> Result<()> {
    let story = Story::begin()?;
    story.lab.announce_pods()?;
    story.lab.outside().add_address("203.0.113.9".parse()?)?;
    story.lab.outside().agent().serve("the load balancer", Tcp, "203.0.113.9:80".parse()?)?;
    story.lab.expose(&service().load_balancer("203.0.113.9", "Proxy"), TARGET, &story.servers())?;
    for (who, agent) in story.clients() {
        let answer = agent.ask(tcp("203.0.113.9:80")).with_context(|| who.to_owned())?;
        assert_eq!(answer.server, "the load balancer", "{who}");
    }
    Ok(())
}

#[test]
fn source_ranges_hold_for_the_load_balancer_and_for_nothing_else() -> Result<()> {
    let story = Story::begin()?;
    let front = service().external_ip("198.51.100.7").load_balancer("203.0.113.5", "VIP");
    let vip = tcp("203.0.113.5:80");
    let open = [tcp("10.96.0.30:80"), tcp("198.51.100.7:80")];
    // Ranges, whether the pod may, whether the node may.
    let rows: [(&[&str], bool, bool); 4] = [
        (&["192.0.2.0/24"], false, false),
        (&["10.244.0.0/16"], true, false),
        (&["172.20.0.0/24"], false, true),
        (&["0.0.0.0/0"], true, true),
    ];
    for (ranges, pod_may, node_may) in rows {
        story.lab.expose(&front.clone().source_ranges(ranges), TARGET, &story.servers())?;
        for ((who, agent), may) in story.clients().into_iter().zip([pod_may, node_may]) {
            if may {
                served(who, agent, &vip).with_context(|| format!("from {ranges:?}"))?;
            } else {
                refused(&format!("{who}, not in {ranges:?},"), agent, &vip, "EHOSTUNREACH");
            }
            open.iter().try_for_each(|call| served(who, agent, call).map(drop))?;
        }
    }
    Ok(())
}

#[test]
fn what_another_proxy_or_dns_serves_is_left_alone() -> Result<()> {
    let story = Story::begin()?;
    // An address outside of all Service ranges, so that nothing but a frontend could capture it.
    story.lab.announce_pods()?;
    story.lab.outside().add_address("10.97.0.5".parse()?)?;
    story.lab.outside().agent().serve("outside", Tcp, "10.97.0.5:80".parse()?)?;
    let untouched = [
        Service::new("shop/theirs")
            .cluster_ip("10.97.0.5")
            .port("http", Tcp, 80)
            .label("service.kubernetes.io/service-proxy-name", "theirs"),
        Service::new("shop/alias").cluster_ip("10.97.0.5").port("http", Tcp, 80).external_name("example.org"),
        Service::new("shop/headless").port("http", Tcp, 80).headless(),
    ];
    for service in untouched {
        story.lab.expose(&service, TARGET, &story.servers())?;
        for (who, agent) in story.clients() {
            let answer = agent.ask(tcp("10.97.0.5:80")).with_context(|| who.to_owned())?;
            assert_eq!(answer.server, "outside", "{who}");
        }
        story.lab.delete(&service)?;
    }
    Ok(())
}

#[test]
fn a_service_leaves_the_proxy_when_it_gets_the_label() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&service(), TARGET, &story.servers())?;
    served("the pod", story.client.agent(), &tcp("10.96.0.30:80"))?;
    story.lab.apply(&service().label("service.kubernetes.io/service-proxy-name", ""))?;
    story.lab.settle()?;
    refused("the pod", story.client.agent(), &tcp("10.96.0.30:80"), "EHOSTUNREACH");
    story.lab.apply(&service())?;
    story.lab.settle()?;
    served("the pod", story.client.agent(), &tcp("10.96.0.30:80"))?;
    Ok(())
}
