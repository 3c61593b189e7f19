//! The daemon dies, again and again, while traffic goes on.

use std::time::Duration;

use anyhow::{Context, Result};
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Family, Lab, Service, slices, tcp, udp};

/// How often it is killed, unless `PORTOLAN_RESTARTS` says otherwise.
const RESTARTS: u32 = 100;

#[test]
fn a_daemon_killed_under_traffic_costs_nobody_a_connection() -> Result<()> {
    let restarts = match std::env::var("PORTOLAN_RESTARTS") {
        Ok(count) => {
            count.parse().with_context(|| format!("PORTOLAN_RESTARTS={count} should be a number"))?
        }
        Err(_) => RESTARTS,
    };
    let lab = Lab::with_nodes(2)?;
    let (n1, n2) = (&lab.nodes()[0], &lab.nodes()[1]);
    let client = lab.pod(n1, "client")?;
    let servers = [lab.server(n1, "one", 8080)?, lab.server(n2, "two", 8080)?];
    let web = Service::new("shop/web")
        .cluster_ip("10.96.0.10")
        .cluster_ip("fd96::10")
        .port("http", Tcp, 80)
        .node_port(30080)
        .port("dns", Udp, 53);
    lab.expose(&web, 8080, &[&servers[0], &servers[1]])?;

    let node_port = tcp(format!("{}:30080", n2.ip(Family::V4)));
    let agent = client.agent();
    let loads = [
        ("a lasting connection", agent.keep_asking(tcp("10.96.0.10:80"), 500)?),
        ("new connections", agent.keep_asking_anew(tcp("10.96.0.10:80"), 500)?),
        ("new connections over IPv6", agent.keep_asking_anew(tcp("[fd96::10]:80"), 1000)?),
        ("new connections to a nodePort", n1.agent().keep_asking_anew(node_port, 1000)?),
        ("a lasting connected UDP socket", agent.keep_asking(udp("10.96.0.10:53").connected(), 500)?),
        ("a lasting unconnected UDP socket", agent.keep_asking(udp("10.96.0.10:53"), 500)?),
        ("new UDP sockets", agent.keep_asking_anew(udp("10.96.0.10:53"), 1000)?),
    ];
    for round in 0..restarts {
        n1.kill()?;
        // Something to do for the next one: a Service that was not there.
        let other =
            Service::new("shop/other").cluster_ip(format!("10.96.3.{}", round % 250)).port("", Tcp, 80);
        n1.apply(&other)?;
        slices(&other, 8080, &[&servers[0]]).iter().try_for_each(|slice| n1.apply(slice))?;
        n1.spawn()?;
        if round % 4 == 3 {
            // Killed anywhere in its start.
            std::thread::sleep(Duration::from_millis(u64::from(round % 40)));
        } else {
            n1.wait_ready()?;
        }
    }
    n1.wait_ready()?;
    for (what, load) in loads {
        let tally = load.stop()?;
        assert!(tally.failed.is_empty(), "{what}: {tally:?}");
        assert!(tally.answered > u64::from(restarts), "{what}: {tally:?}");
    }
    lab.settle()?;
    Ok(())
}

#[test]
fn what_was_changed_while_no_daemon_ran_is_done_at_its_start() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let (one, two) = (lab.server(n1, "one", 8080)?, lab.server(n1, "two", 8080)?);
    let web = Service::new("shop/web").cluster_ip("10.96.0.10").port("http", Tcp, 80);
    let gone = Service::new("shop/gone").cluster_ip("10.96.0.11").port("http", Tcp, 80);
    let gone_slices = lab.expose(&gone, 8080, &[&one])?;
    lab.expose(&web, 8080, &[&one])?;
    n1.stop()?;
    assert_eq!(n1.agent().ask(tcp("10.96.0.10:80"))?.server, "one", "Services live on without a daemon");
    lab.delete(&gone)?;
    lab.delete(&gone_slices[0])?;
    lab.apply_all(&slices(&web, 8080, &[&two]))?;
    assert_eq!(
        n1.agent().ask(tcp("10.96.0.11:80"))?.server,
        "one",
        "nothing is deleted before a daemon decides it"
    );
    n1.start()?;
    lab.settle()?;
    assert_eq!(n1.agent().ask(tcp("10.96.0.10:80"))?.server, "two");
    assert_eq!(n1.agent().ask(tcp("10.96.0.11:80")).unwrap_err().errno, "EHOSTUNREACH");
    Ok(())
}
