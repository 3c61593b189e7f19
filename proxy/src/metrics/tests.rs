use std::sync::atomic::Ordering;

use super::*;
use portolan_abi::Outcome;

fn text_of(metrics: &Metrics) -> String {
    metrics.encode().unwrap()
}

#[test]
fn kube_proxys_names_are_kube_proxys() {
    let metrics = Metrics::new(|| [0; Outcome::COUNT as usize]);
    metrics.synced(Duration::from_millis(3), 1_700_000_000.5);
    metrics.queued(1_700_000_001.0);
    metrics.service_changed();
    metrics.endpoints_changed();
    metrics.programmed(health::Family::V4, Duration::from_millis(700));
    metrics.set_no_local_endpoints(NoLocalEndpoints { internal: [0; 2], external: [0, 2] });
    metrics.healthz(503);
    metrics.livez(200);
    let text = text_of(&metrics);
    let expected = [
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\",ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"16.384\",ip_family=\"IPv6\"} 1",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1700000000.5",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"} 1700000001.0",
        "# TYPE kubeproxy_sync_proxy_rules_service_changes_total counter",
        "kubeproxy_sync_proxy_rules_service_changes_total 1",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 1",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\",ip_family=\"IPv4\"} 0",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"1.0\",ip_family=\"IPv4\"} 1",
        "# TYPE kubeproxy_sync_proxy_rules_no_local_endpoints_total gauge",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"external\"} 2",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_proxy_livez_total{code=\"200\"} 1",
    ];
    for line in expected {
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
}

#[test]
fn outcomes_are_read_at_each_scrape() {
    let scrapes = AtomicU64::new(0);
    let metrics = Metrics::new(move || {
        let mut counts = [0; Outcome::COUNT as usize];
        counts[Outcome::NoEndpoints as usize] = scrapes.fetch_add(1, Ordering::Relaxed) + 7;
        counts
    });
    for expected in [7, 8] {
        let line = format!("portolan_outcomes_total{{outcome=\"no_endpoints\"}} {expected}");
        let text = text_of(&metrics);
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
}

#[test]
fn problems_that_are_gone_are_not_shown() {
    let metrics = Metrics::new(|| [0; Outcome::COUNT as usize]);
    let problem = |subject: &str, reason| Problem { subject: subject.into(), reason, message: String::new() };
    metrics.set_problems(&[
        problem("a", "BackendsFull"),
        problem("b", "BackendsFull"),
        problem("c", "Other"),
    ]);
    assert!(text_of(&metrics).contains("portolan_problems{reason=\"BackendsFull\"} 2"));
    metrics.set_problems(&[problem("c", "Other")]);
    let text = text_of(&metrics);
    assert!(
        !text.contains("BackendsFull") && text.contains("portolan_problems{reason=\"Other\"} 1"),
        "{text}"
    );
}

#[test]
fn our_own_are_there_from_the_start() {
    let metrics = Metrics::new(|| [0; Outcome::COUNT as usize]);
    metrics.set_usage("frontends", Usage { used: 3, max: 10 });
    metrics.set_rejected(4);
    metrics.set_source_healthy(false);
    metrics.apply_failed();
    metrics.task_restarted("source");
    let text = text_of(&metrics);
    for line in [
        "portolan_map_entries{map=\"frontends\"} 3",
        "portolan_map_capacity{map=\"frontends\"} 10",
        "portolan_rejected_objects 4",
        "portolan_source_healthy 0",
        "portolan_apply_failures_total 1",
        "portolan_task_restarts_total{task=\"source\"} 1",
        "portolan_outcomes_total{outcome=\"translated\"} 0",
        concat!("portolan_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("# EOF"));
}
