use std::net::SocketAddr;

use anyhow::{Context, Result};
use portolan_lab::wire::Proto::Tcp;
use portolan_lab::{Call, Service, tcp, udp};

use super::story::{Story, TARGET, refused, served, web};

fn calls() -> Vec<Call> {
    let ways = |dst: &str, call: fn(String) -> Call| call(dst.to_owned());
    vec![
        ways("10.96.0.10:80", tcp),
        ways("10.96.0.10:80", tcp).mapped(),
        ways("[fd96::10]:80", tcp),
        ways("10.96.0.10:53", udp),
        ways("10.96.0.10:53", udp).mapped(),
        ways("10.96.0.10:53", udp).connected(),
        ways("10.96.0.10:53", udp).connected().mapped(),
        ways("[fd96::10]:53", udp),
        ways("[fd96::10]:53", udp).connected(),
    ]
}

#[test]
fn a_cluster_ip_answers_and_looks_like_itself_to_its_client() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&web(), TARGET, &story.servers())?;
    for (who, agent) in story.clients() {
        for call in calls() {
            served(who, agent, &call)?;
            let answer = agent.ask(call.clone())?;
            let peer = SocketAddr::new(answer.peer.ip().to_canonical(), answer.peer.port());
            assert_eq!(peer, call.dst, "{who} asks {call}: getpeername or the reply's source");
            assert_eq!(answer.peer.is_ipv6(), call.mapped || call.dst.is_ipv6(), "{who} asks {call}");
        }
    }
    Ok(())
}

#[test]
fn the_server_sees_who_asks_and_nobody_in_between() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&web(), TARGET, &[&story.two])?;
    for call in calls() {
        let family = portolan_lab::Family::of(call.dst.ip());
        let seen = story.client.ask(call.clone()).with_context(|| format!("{call}"))?.client;
        assert_eq!(seen.ip(), story.client.ip(family), "the pod asks {call}");
        let seen = story.node(1).agent().ask(call.clone())?.client;
        assert_eq!(seen.ip(), story.node(1).ip(family), "the node asks {call}");
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&web(), TARGET, &[&story.one])?;
    for call in calls() {
        assert_eq!(served("the only server", story.one.agent(), &call)?, "one");
    }
    Ok(())
}

#[test]
fn connections_are_spread_evenly_over_endpoints() -> Result<()> {
    let story = Story::begin()?;
    let three = story.lab.server(story.node(2), "three", TARGET)?;
    story.lab.expose(&web(), TARGET, &[&story.one, &story.two, &three])?;
    for call in [tcp("10.96.0.10:80"), udp("[fd96::10]:53"), udp("10.96.0.10:53").connected()] {
        let tally = story.client.agent().burst(call.clone(), 1500)?;
        assert_eq!((tally.answered, tally.failed.len()), (1500, 0), "{call}: {tally:?}");
        // Binomial with p = 1/3: the standard deviation is 18; six of them are 1 in 500 million.
        for (server, count) in &tally.by_server {
            assert!((390..=610).contains(count), "{call}: {server} got {count} of 1500");
        }
        assert_eq!(tally.by_server.len(), 3, "{call}");
    }
    Ok(())
}

#[test]
fn endpoints_come_go_and_terminate() -> Result<()> {
    let story = Story::begin()?;
    let mut slices = story.lab.expose(&web(), TARGET, &[&story.one])?;
    let call = tcp("10.96.0.10:80");
    let only = |server: &str| -> Result<()> {
        let tally = story.client.agent().burst(call.clone(), 40)?;
        assert_eq!(tally.by_server.keys().collect::<Vec<_>>(), [server], "{tally:?}");
        assert_eq!(tally.answered, 40, "{tally:?}");
        Ok(())
    };
    only("one")?;
    let v4 = portolan_lab::Family::V4;
    slices[0].set(story.two.endpoint(v4));
    slices[0].set(story.one.endpoint(v4).terminating());
    story.lab.apply_all(&slices)?;
    story.lab.settle()?;
    only("two")?;
    // Nobody is ready any more: those that terminate and still serve take over.
    slices[0].set(story.two.endpoint(v4).unready());
    story.lab.apply_all(&slices)?;
    story.lab.settle()?;
    only("one")?;
    slices[0].remove(story.one.ip(v4));
    story.lab.apply_all(&slices)?;
    story.lab.settle()?;
    refused("the pod", story.client.agent(), &call, "ECONNREFUSED");
    story.lab.delete(&slices[0])?;
    story.lab.delete(&web())?;
    story.lab.settle()?;
    refused("the pod", story.client.agent(), &call, "EHOSTUNREACH");
    Ok(())
}

#[test]
fn a_change_of_endpoints_fails_no_connection() -> Result<()> {
    let story = Story::begin()?;
    let mut slices = story.lab.expose(&web(), TARGET, &story.servers())?;
    let v4 = portolan_lab::Family::V4;
    let lasting = story.client.agent().keep_asking(tcp("10.96.0.10:80"), 200)?;
    let anew = story.client.agent().keep_asking_anew(tcp("10.96.0.10:80"), 200)?;
    let datagrams = story.client.agent().keep_asking_anew(udp("10.96.0.10:53"), 200)?;
    for round in 0..40 {
        let pod = story.servers()[round / 2 % 2];
        let endpoint = pod.endpoint(v4);
        slices[0].set(if round % 2 == 0 { endpoint.terminating() } else { endpoint });
        story.lab.apply(&slices[0])?;
        story.lab.settle()?;
    }
    for load in [lasting, anew, datagrams] {
        let tally = load.stop()?;
        assert!(tally.answered > 40 && tally.failed.is_empty(), "{tally:?}");
    }
    Ok(())
}

#[test]
fn a_named_port_may_have_another_number_in_each_slice() -> Result<()> {
    let story = Story::begin()?;
    let service = Service::new("shop/named").cluster_ip("10.96.0.11").port("http", Tcp, 80);
    story.two.serve(9090)?;
    let v4 = portolan_lab::Family::V4;
    let slice = |name: &str, port: u16, pod: &portolan_lab::Pod| {
        portolan_lab::Slice::of(&service, v4).named(name).port("http", Tcp, port).endpoint(pod.endpoint(v4))
    };
    story.lab.apply(&service)?;
    story.lab.apply_all(&[slice("named-a", TARGET, &story.one), slice("named-b", 9090, &story.two)])?;
    story.lab.settle()?;
    let tally = story.client.agent().burst(tcp("10.96.0.11:80"), 60)?;
    assert_eq!((tally.answered, tally.by_server.len()), (60, 2), "{tally:?}");
    Ok(())
}

#[test]
fn many_questions_on_one_connection_go_to_one_server() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&web(), TARGET, &story.servers())?;
    for call in [tcp("10.96.0.10:80"), udp("10.96.0.10:53").connected()] {
        let kept = story.client.agent().open(call.clone())?;
        let first = kept.ask()?.server;
        for _ in 0..50 {
            assert_eq!(kept.ask()?.server, first, "{call}");
        }
    }
    Ok(())
}
