use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use portolan_abi::Outcome;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn name() -> ObjectName {
    ObjectName::new("shop", "cart")
}

/// A port of its own for each who asks, below those that the kernel gives to clients: who connects to one of those until somebody
/// listens may in the end be connected to itself.
async fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((LOCALHOST, port)).await.is_ok() {
            return port;
        }
    }
}

fn servers() -> Servers {
    Servers {
        healthz: None,
        metrics: None,
        services: LOCALHOST,
        configz: Value::Null,
        retry: Duration::from_millis(10),
    }
}

struct Reply {
    head: String,
    body: String,
}

/// One request; waits until the server listens, which it does soon after it was spawned.
async fn ask(port: u16, request: &str) -> Reply {
    let mut stream = loop {
        match TcpStream::connect((LOCALHOST, port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let request = format!("{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply { head: head.to_lowercase(), body: body.to_owned() }
}

fn assert_reply(reply: &Reply, code: u16, body: &str) {
    assert!(reply.head.starts_with(&format!("http/1.1 {code} ")), "{}", reply.head);
    assert!(reply.body.contains(body), "{:?} does not contain {body:?}", reply.body);
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(|| [0; Outcome::COUNT as usize]))
}

fn synced_at(timestamp: Timestamp) -> HealthState {
    let mut state = HealthState::default();
    Family::ALL.into_iter().for_each(|family| state.updated(family, timestamp));
    state
}

fn late() -> HealthState {
    let mut state = synced_at(Timestamp::UNIX_EPOCH);
    state.queued_update(Family::V4, Timestamp::UNIX_EPOCH);
    state
}

#[tokio::test]
async fn a_node_being_drained_is_alive_and_not_to_be_used() {
    let port = free_port().await;
    let (sender, snapshots) = watch::channel(Snapshot::default());
    let metrics = metrics();
    let servers = Servers { healthz: Some(SocketAddr::new(LOCALHOST, port)), ..servers() };
    let (_tasks, _) = spawn(servers, snapshots, Arc::clone(&metrics));

    let rows = [
        ("the node is not known", HealthState::default(), false, 503, 200),
        ("all is well", synced_at(Timestamp::now()), true, 200, 200),
        ("the node is being deleted", synced_at(Timestamp::now()), false, 503, 200),
        ("changes do not reach the kernel", late(), true, 503, 503),
    ];
    for (name, state, node_eligible, healthz, livez) in rows {
        sender.send_replace(Snapshot { state, node_eligible, services: BTreeMap::new() });
        let reply = ask(port, "GET /healthz").await;
        assert!(reply.head.starts_with(&format!("http/1.1 {healthz} ")), "{name}: {}", reply.head);
        assert!(reply.body.contains(&format!("\"nodeEligible\":{node_eligible}")), "{name}: {}", reply.body);
        assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
        assert!(reply.head.contains("x-content-type-options: nosniff"), "{}", reply.head);
        let reply = ask(port, "GET /livez").await;
        assert!(reply.head.starts_with(&format!("http/1.1 {livez} ")), "{name}: {}", reply.head);
        assert!(!reply.body.contains("nodeEligible"), "{name}: {}", reply.body);
    }
    assert_reply(&ask(port, "GET /other").await, 404, "");
    let text = metrics.encode().unwrap();
    assert!(text.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 3"), "{text}");
    assert!(text.contains("kubeproxy_proxy_livez_total{code=\"200\"} 3"), "{text}");
}

#[tokio::test]
async fn a_service_is_healthy_where_it_has_ready_endpoints() {
    let port = free_port().await;
    let (sender, snapshots) = watch::channel(Snapshot::default());
    let (_tasks, _) = spawn(servers(), snapshots, metrics());

    let rows = [
        (synced_at(Timestamp::now()), 2, 200, true),
        (synced_at(Timestamp::now()), 0, 503, true),
        (late(), 2, 503, false),
    ];
    for (state, local_endpoints, code, healthy) in rows {
        let services = BTreeMap::from([(name(), ServiceHealth { port, local_endpoints })]);
        // Whether the node is eligible makes no difference here.
        sender.send_replace(Snapshot { state, node_eligible: false, services });
        let body = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"cart\"\n\t}},\n\t\
             \"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
        );
        for request in ["GET /", "POST /any/path"] {
            let reply = ask(port, request).await;
            assert_reply(&reply, code, &body);
            let weight = format!("x-load-balancing-endpoint-weight: {local_endpoints}");
            assert!(reply.head.contains(&weight), "{}", reply.head);
        }
    }
}

#[tokio::test]
async fn servers_follow_the_services() {
    let (first, second) = (free_port().await, free_port().await);
    let (sender, snapshots) = watch::channel(Snapshot::default());
    let (_tasks, _) = spawn(servers(), snapshots, metrics());
    let with = |ports: &[u16]| Snapshot {
        services: ports
            .iter()
            .map(|port| (name(), ServiceHealth { port: *port, local_endpoints: 1 }))
            .collect(),
        ..Snapshot::default()
    };
    sender.send_replace(with(&[first]));
    assert_reply(&ask(first, "GET /").await, 200, "cart");
    sender.send_replace(with(&[second]));
    assert_reply(&ask(second, "GET /").await, 200, "cart");
    closed(first).await;
    sender.send_replace(with(&[]));
    closed(second).await;
}

async fn closed(port: u16) {
    while TcpStream::connect((LOCALHOST, port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_in_use_is_a_problem_until_it_is_free() {
    let taken = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let services = BTreeMap::from([(name(), ServiceHealth { port, local_endpoints: 1 })]);
    let (sender, snapshots) = watch::channel(Snapshot { services, ..Snapshot::default() });
    let servers = Servers { metrics: taken.local_addr().ok(), ..servers() };
    let (_tasks, mut problems) = spawn(servers, snapshots, metrics());

    let found = problems.wait_for(|problems| problems.len() == 2).await.unwrap().clone();
    assert_eq!(found["Service shop/cart"].reason, "FailedToStartServiceHealthcheck");
    let server = &found[&format!("metrics server 127.0.0.1:{port}")];
    assert_eq!(server.reason, "BindFailed");
    assert!(server.message.contains("in use"), "{}", server.message);

    sender.send_replace(Snapshot::default());
    problems.wait_for(|problems| !problems.contains_key("Service shop/cart")).await.unwrap();
    drop(taken);
    problems.wait_for(BTreeMap::is_empty).await.unwrap();
    assert_reply(&ask(port, "GET /proxyMode").await, 200, "portolan");
}

#[tokio::test]
async fn tools_find_what_they_ask_kube_proxy() {
    let port = free_port().await;
    let (_sender, snapshots) = watch::channel(Snapshot::default());
    let configz = serde_json::json!({ "portolan": { "node_name": "a" } });
    let servers = Servers { metrics: Some(SocketAddr::new(LOCALHOST, port)), configz, ..servers() };
    let (_tasks, _) = spawn(servers, snapshots, metrics());

    assert_reply(&ask(port, "GET /healthz").await, 200, "ok");
    assert_reply(&ask(port, "GET /proxyMode").await, 200, "portolan");
    assert_reply(&ask(port, "GET /configz").await, 200, "{\"portolan\":{\"node_name\":\"a\"}}");
    let reply = ask(port, "GET /metrics").await;
    assert_reply(&reply, 200, "portolan_outcomes_total{outcome=\"translated\"} 0");
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
}

#[tokio::test]
async fn an_unspecified_address_serves_both_families() {
    let listener = listen::open("[::]:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect((LOCALHOST, port)));
    accepted.unwrap();
    connected.unwrap();
}
