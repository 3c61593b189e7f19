//! Whom to ask, and through what kind of connection.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ::kube::client::ConfigExt;
use ::kube::config::{KubeConfigOptions, Kubeconfig};
use ::kube::{Client, Config};
use anyhow::Context;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::util::option_layer;
use tower::{Layer, ServiceExt};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// After how much silence a connection is probed, how often, and how many lost probes end it: one to a server that
/// is gone without a word is noticed after 45 s.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
/// How long the server's host may leave bytes unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The way to the API server.
pub struct Connection {
    /// The client.
    pub client: Client,
    /// The addresses of the host that it talks to; none when its name could not be resolved.
    pub addresses: BTreeSet<IpAddr>,
    /// What people should change about it.
    pub warning: Option<String>,
}

/// Prepares the way to the API server of a kubeconfig file, or of the cluster in which this runs as a pod. With
/// `api_server`, a URL, the same credentials are used there. Nothing is asked of the server yet.
///
/// # Errors
/// A configuration that is not there or cannot be used.
pub async fn connect(kubeconfig: Option<&Path>, api_server: Option<&str>) -> anyhow::Result<Connection> {
    let mut config = match kubeconfig {
        Some(path) => {
            let context = || format!("Failed to use the kubeconfig {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).with_context(context)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(context)?
        }
        None => Config::incluster()
            .context("Failed to find the cluster: this is no pod of one; give --kubeconfig or --manifests")?,
    };
    if let Some(url) = api_server {
        let context = || format!("{url:?} is no URL (expected one like https://192.0.2.1:6443)");
        config.cluster_url = url.parse().with_context(context)?;
    }
    let url = &config.cluster_url;
    let own_service = kubeconfig.is_none() && api_server.is_none();
    let warning = own_service.then(|| {
        format!(
            "the API server is reached through its own Service ({url}), which this program serves: set --api-server \
             to an address of the server itself"
        )
    });
    let addresses = addresses(&config).await;
    Ok(Connection { client: client(config)?, addresses, warning })
}

/// The addresses of the host that a client of this configuration connects to.
async fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    let url = &config.cluster_url;
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(443);
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.map(|address| address.ip().to_canonical()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the name of the API server has no address at present");
            BTreeSet::new()
        }
    }
}

/// A client as kube makes one, but over connections that notice when the other side is gone.
fn client(config: Config) -> anyhow::Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        anyhow::bail!(
            "the kubeconfig asks for the proxy {proxy}: proxies are not supported, remove proxy-url"
        );
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(PROBE_AFTER));
    http.set_keepalive_interval(Some(PROBE_EVERY));
    http.set_keepalive_retries(Some(PROBES));
    http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let https = config.rustls_https_connector_with_connector(http).context("Failed to set up TLS")?;
    let plain = HttpClient::builder(TokioExecutor::new()).build(https).map_err(tower::BoxError::from);
    let with_headers =
        config.extra_headers_layer().context("Failed to use the headers of the kubeconfig")?.layer(plain);
    let auth = config.auth_layer().context("Failed to use the credentials of the kubeconfig")?;
    let with_auth = option_layer(auth).layer(with_headers);
    Ok(Client::new(config.base_uri_layer().layer(with_auth), config.default_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(server: &str, more: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: '{server}'{more}}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        );
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn shown(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn says_whom_it_talks_to() {
        for (server, api_server, expected) in [
            ("https://192.0.2.1:6443", None, "192.0.2.1"),
            ("https://[2001:db8::1]:6443", None, "2001:db8::1"),
            ("https://192.0.2.1", Some("https://192.0.2.2:6443"), "192.0.2.2"),
        ] {
            let file = kubeconfig(server, "");
            let connection = connect(Some(file.path()), api_server).await.unwrap();
            assert_eq!(shown(&connection.addresses), [expected]);
            assert_eq!(connection.warning, None);
        }
        let file = kubeconfig("https://localhost:6443", "");
        let connection = connect(Some(file.path()), None).await.unwrap();
        assert!(connection.addresses.iter().all(IpAddr::is_loopback) && !connection.addresses.is_empty());
    }

    #[tokio::test]
    async fn refuses_what_it_cannot_use() {
        let file = kubeconfig("https://192.0.2.1", ", proxy-url: 'http://192.0.2.9:3128'");
        let error = connect(Some(file.path()), None).await.err().unwrap();
        assert!(error.to_string().contains("proxies are not supported"), "{error:#}");
        let error = connect(Some(Path::new("/nowhere/config")), None).await.err().unwrap();
        assert!(error.to_string().contains("/nowhere/config"), "{error:#}");
        let file = kubeconfig("https://192.0.2.1", "");
        let error = connect(Some(file.path()), Some("no url")).await.err().unwrap();
        assert!(error.to_string().contains("is no URL"), "{error:#}");
    }

    /// The kernel's table of connections shows which timer one has: 02 is keepalive (`Documentation/networking/
    /// proc_net_tcp.rst`).
    #[tokio::test]
    async fn silent_connections_are_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let file = kubeconfig(&format!("http://127.0.0.1:{port}"), "");
        let client = connect(Some(file.path()), None).await.unwrap().client;
        let request = tokio::spawn(async move { client.apiserver_version().await });
        let (mut server, address) = listener.accept().await.unwrap();
        // Once the request has been read it is acknowledged, and no timer but the probe's is left.
        tokio::io::AsyncReadExt::read(&mut server, &mut [0; 4096]).await.unwrap();
        let local = format!("0100007F:{:04X} 0100007F:{port:04X}", address.port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let row = table.lines().find(|row| row.contains(&local)).unwrap();
        let timer = row.split_whitespace().nth(5).unwrap();
        assert!(timer.starts_with("02:"), "{row}");
        request.abort();
    }
}
