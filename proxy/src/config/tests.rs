use clap::{Args, Command, FromArgMatches};

use super::*;

fn args(flags: &[&str]) -> Result<RunArgs, clap::Error> {
    let command = RunArgs::augment_args(Command::new("run").no_binary_name(true));
    RunArgs::from_arg_matches(&command.try_get_matches_from(flags)?)
}

fn machine() -> Machine {
    Machine {
        hostname: "Worker-1".to_owned(),
        mountinfo: "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 none rw".to_owned(),
    }
}

fn resolve(flags: &[&str]) -> Result<Config, String> {
    let args = args(flags).map_err(|error| error.to_string())?;
    Config::resolve(args, &machine()).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_a_daemon_set() {
    let config = resolve(&[]).unwrap();
    assert_eq!(config.node_name, "worker-1");
    assert_eq!(config.source, Source::Api { kubeconfig: None, server: None });
    assert_eq!(resolve(&["--api-server", ""]).unwrap().source, config.source, "empty is as absent");
    assert_eq!(config.cgroup, Path::new("/sys/fs/cgroup"));
    assert_eq!(config.state_dir, Path::new("/run/portolan"));
    assert_eq!(config.healthz, HEALTHZ_DEFAULT.parse().ok());
    assert_eq!(config.metrics, METRICS_DEFAULT.parse().ok());
    assert_eq!(config.cni, None);
    assert_eq!(config.network, NetworkConfig::default());
    assert_eq!(config.limits.services, 65_536);
    assert_eq!(config.limits.flow_slots, 131_072);
    assert_eq!(resolve(&["--max-flows", "100000"]).unwrap().limits.flow_slots, 131_072, "a power of two");
    assert_eq!(config.bpffs, Path::new("/sys/fs/bpf"));
}

#[test]
fn flags_win_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    let kubeconfig = dir.path().join("kubeconfig");
    fs::write(&kubeconfig, "").unwrap();
    fs::write(
        &file,
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nhostnameOverride: file\n\
             clusterCIDR: 10.0.0.0/8\nnodePortAddresses: [10.1.0.0/16]\nclientConnection: {{kubeconfig: {}}}\nmetricsBindAddress: 0.0.0.0:1\n",
            kubeconfig.display()
        ),
    )
    .unwrap();
    let file = file.to_str().unwrap();

    let config = resolve(&["--config", file]).unwrap();
    assert_eq!(config.node_name, "file");
    assert_eq!(config.source, Source::Api { kubeconfig: Some(kubeconfig.clone()), server: None });
    assert_eq!(config.metrics, "0.0.0.0:1".parse().ok());
    assert_eq!(config.notes.len(), 1, "{:?}", config.notes);
    let ranges = |config: &Config| config.network.node_port_addresses.ranges.clone();
    assert_eq!(ranges(&config), ["10.1.0.0/16".parse().unwrap()]);

    let flags = ["--config", file, "--node-name", "FLAG", "--metrics-bind-address", ""];
    let config = resolve(&[&flags[..], &["--nodeport-addresses", "primary"]].concat()).unwrap();
    assert!(config.network.node_port_addresses.primary && ranges(&config).is_empty());
    assert_eq!((config.node_name.as_str(), config.metrics), ("flag", None));

    let manifests = dir.path().to_str().unwrap();
    let config = resolve(&["--config", file, "--manifests", manifests]).unwrap();
    assert_eq!(
        config.source,
        Source::Manifests(dir.path().to_owned()),
        "a flag wins over another source in the file"
    );
}

#[test]
fn an_error_names_the_flag_the_value_and_what_was_expected() {
    let rows: [(&[&str], &str); 14] = [
        (&["--cgroup", "/absent"], "--cgroup /absent: there is no such directory; name a directory of"),
        (&["--node-name", "a b"], "--node-name \"a b\": the name of this node's Node object"),
        (&["--node-name", ""], "--node-name \"\": the name"),
        (&["--manifests", "/absent"], "--manifests /absent: there is no such directory; create it"),
        (&["--kubeconfig", "/absent"], "--kubeconfig /absent: a readable kubeconfig is expected"),
        (&["--api-server", "10.0.0.1"], "--api-server 10.0.0.1: a URL such as"),
        (&["--healthz-bind-address", "x"], "--healthz-bind-address x: IP:PORT"),
        (&["--config", "/absent"], "--config /absent: a readable KubeProxyConfiguration"),
        (&["--manifests", "/", "--kubeconfig", "/x"], "cannot be used with '--kubeconfig"),
        (&["--cni-bin-dir", "/opt/cni/bin"], "--cni-conf-dir <DIR>"),
        (&["--nodeport-addresses", "primary,eth0"], "--nodeport-addresses eth0: `primary`, `all` or"),
        (&["--no-masquerade", "::/0"], "--no-masquerade ::/0: a range outside of ::/64"),
        (&["--no-masquerade", "10.0.0.0/8,x"], "invalid value 'x' for '--no-masquerade"),
        (&["--max-services", "1"], "1 is not in 2..=16777216"),
    ];
    for (flags, expected) in rows {
        let error = resolve(flags).unwrap_err();
        assert!(error.contains(expected), "{flags:?} gave {error:?}, which does not contain {expected:?}");
    }
}

#[test]
fn a_machine_without_cgroup2_is_told_what_to_do() {
    let machine = Machine { mountinfo: String::new(), ..machine() };
    let error = Config::resolve(args(&[]).unwrap(), &machine).unwrap_err();
    assert!(error.to_string().contains("mount -t cgroup2"), "{error}");
}

#[test]
fn this_machine_can_be_observed() {
    let machine = Machine::observe().unwrap();
    assert!(!machine.hostname.is_empty() && machine.mountinfo.contains(" - "));
}

#[test]
fn the_configuration_can_be_shown() {
    let shown = serde_json::to_value(resolve(&[]).unwrap()).unwrap();
    assert_eq!(shown["limits"]["frontends"], 262_144);
    assert_eq!(shown["network"]["node_port_addresses"], serde_json::json!(["primary"]));
    assert_eq!(shown["network"]["masquerade"], "all");
    assert_eq!(shown["external_ips"], "serve");
    assert_eq!(shown["source"]["api"]["kubeconfig"], serde_json::Value::Null);
}
