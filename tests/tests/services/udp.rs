use anyhow::Result;
use portolan_lab::{Family, udp};

use super::story::{Story, TARGET, served, web};

#[test]
fn an_unconnected_sender_goes_on_with_a_live_server_when_its_own_leaves() -> Result<()> {
    let story = Story::begin()?;
    for (family, vip) in [(Family::V4, "10.96.0.10:53"), (Family::V6, "[fd96::10]:53")] {
        let mut slices = story.lab.expose(&web(), TARGET, &story.servers())?;
        let socket = story.client.agent().open(udp(vip))?;
        let first = socket.ask()?.server;
        let (leaves, stays) =
            if first == "one" { (&story.one, &story.two) } else { (&story.two, &story.one) };
        let slice = slices.iter_mut().find(|slice| slice.family() == family).expect("both families");
        slice.remove(leaves.ip(family));
        story.lab.apply_all(&slices)?;
        story.lab.settle()?;
        let answer = socket.ask()?;
        assert_eq!(answer.server, stays.name(), "the next datagram goes to a live server");
        assert_eq!(answer.peer, vip.parse()?, "and its answer comes from the Service");
    }
    Ok(())
}

#[test]
fn a_new_connected_sender_gets_a_live_server_when_another_left() -> Result<()> {
    let story = Story::begin()?;
    let mut slices = story.lab.expose(&web(), TARGET, &story.servers())?;
    let old = story.client.agent().open(udp("10.96.0.10:53").connected())?;
    old.ask()?;
    slices[0].remove(story.one.ip(Family::V4));
    story.lab.apply_all(&slices)?;
    story.lab.settle()?;
    for _ in 0..20 {
        assert_eq!(served("the pod", story.client.agent(), &udp("10.96.0.10:53").connected())?, "two");
    }
    Ok(())
}

#[test]
fn one_socket_talks_to_a_service_and_to_others_and_knows_who_answers() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&web(), TARGET, &[&story.two])?;
    let direct = story.client.ask(udp(story.two.at(Family::V4, TARGET)))?;
    assert_eq!(direct.peer, story.two.at(Family::V4, TARGET), "an answer of no Service keeps its source");
    let through = story.client.ask(udp("10.96.0.10:53"))?;
    assert_eq!(through.peer, "10.96.0.10:53".parse()?);
    Ok(())
}
