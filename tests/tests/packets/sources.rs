use std::net::SocketAddr;

use anyhow::Result;
use portolan_lab::{Service, tcp};

use super::scene::{NODE_PORT, Scene, TARGET, all_answer, fails, front};

/// kube-proxy's TestLoadBalancer: the ranges hold for load balancer addresses and for nothing else.
#[test]
fn source_ranges_hold_for_the_load_balancer_and_for_nothing_else() -> Result<()> {
    let scene = Scene::begin()?;
    let addrs = ["203.0.113.5", "2001:db8::5", "198.51.100.7"];
    scene.route(&addrs, 1)?;
    let service: Service = front()
        .load_balancer("203.0.113.5", "VIP")
        .load_balancer("2001:db8::5", "VIP")
        .external_ip("198.51.100.7");
    let open = [tcp("198.51.100.7:80"), tcp(SocketAddr::new("172.20.0.11".parse()?, NODE_PORT))];
    let rows: [(&[&str], bool, bool); 4] = [
        (&["192.0.2.0/24", "2001:db8:1::/48"], false, false),
        (&["172.20.0.0/24", "2001:db8:1::/48"], true, false),
        (&["192.0.2.0/24", "fd20::/64"], false, true),
        (&["0.0.0.0/0", "::/0"], true, true),
    ];
    for (ranges, v4_may, v6_may) in rows {
        scene.lab.expose(&service.clone().source_ranges(ranges), TARGET, &scene.servers())?;
        for (vip, may) in [("203.0.113.5:80", v4_may), ("[2001:db8::5]:80", v6_may)] {
            let call = tcp(vip);
            if may {
                all_answer("outside", scene.outside(), &call, &["one", "two"])?;
            } else {
                assert_eq!(fails("outside", scene.outside(), &call), "ETIMEDOUT", "{call} from {ranges:?}");
            }
        }
        for call in &open {
            all_answer("outside", scene.outside(), call, &["one", "two"])?;
        }
    }
    Ok(())
}
