//! The pods and Services of the demo: what people meet first.

use anyhow::Result;
use portolan_lab::cluster::slices;
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Endpoint, Family, Lab, Pod, Service, Slice, tcp};

/// The port that all pods listen on.
pub(crate) const TARGET: u16 = 8080;

/// Everybody who plays.
pub(crate) struct Cast {
    pub(crate) shell: Pod,
    pub(crate) hello: Vec<Pod>,
    frontend: Pod,
    cart: Pod,
    store: Pod,
    dns: Vec<Pod>,
}

impl Cast {
    /// Makes the pods, and their servers listen.
    pub(crate) fn assemble(lab: &Lab) -> Result<Self> {
        let nodes = lab.nodes();
        let on_each = |name: &str, nodes: &[_]| -> Result<Vec<Pod>> {
            let numbered = nodes.iter().enumerate();
            numbered.map(|(number, node)| lab.server(node, &format!("{name}-{number}"), TARGET)).collect()
        };
        let any = format!("[::]:{TARGET}").parse()?;
        let (frontend, cart) = (lab.pod(&nodes[0], "frontend-0")?, lab.pod(&nodes[1], "cart-0")?);
        frontend.agent().serve_via("frontend-0", Tcp, any, tcp("10.96.0.21:80"))?;
        cart.agent().serve_via("cart-0", Tcp, any, tcp("10.96.0.22:6379"))?;
        lab.outside().agent().serve("outside host", Tcp, any)?;
        Ok(Self {
            shell: lab.pod(&nodes[0], "shell")?,
            hello: on_each("hello", nodes)?,
            frontend,
            cart,
            store: lab.server(&nodes[2], "store-0", TARGET)?,
            dns: on_each("dns", &nodes[1..])?,
        })
    }

    /// All pods.
    pub(crate) fn pods(&self) -> Vec<&Pod> {
        let tiers = [&self.shell, &self.frontend, &self.cart, &self.store];
        tiers.into_iter().chain(&self.hello).chain(&self.dns).collect()
    }

    /// The Deployment `hello`, reachable inside and on a port of every node.
    pub(crate) fn hello_service() -> Service {
        dual("default/hello", "10.96.0.10", "fd96::10").port("http", Tcp, 80).node_port(30080)
    }

    /// The slices of `hello`.
    pub(crate) fn hello_slices(&self) -> Vec<Slice> {
        slices(&Self::hello_service(), TARGET, &self.hello.iter().collect::<Vec<_>>())
    }

    /// Writes the manifests, and waits until every node serves them.
    pub(crate) fn publish(&self, lab: &Lab) -> Result<()> {
        let one = |ip: &str, name: &str, port: u16| Service::new(name).cluster_ip(ip).port("tcp", Tcp, port);
        let backed: [(Service, Vec<&Pod>); 5] = [
            (Self::hello_service(), self.hello.iter().collect()),
            (one("10.96.0.20", "shop/frontend", 80), vec![&self.frontend]),
            (one("10.96.0.21", "shop/cart", 80), vec![&self.cart]),
            (one("10.96.0.22", "shop/store", 6379), vec![&self.store]),
            (
                dual("kube-system/dns", "10.96.0.53", "fd96::53").port("dns", Udp, 53),
                self.dns.iter().collect(),
            ),
        ];
        for (service, pods) in &backed {
            lab.apply(service)?;
            lab.apply_all(&slices(service, TARGET, pods))?;
        }
        // Without a selector: its slice is written by hand and leads out of the cluster.
        let warehouse = one("10.96.0.60", "shop/warehouse", 80);
        lab.apply(&warehouse)?;
        let outside = Endpoint::ready(portolan_lab::lab::OUTSIDE_V4.into());
        lab.apply(&Slice::of(&warehouse, Family::V4).port("tcp", Tcp, TARGET).endpoint(outside))?;
        // DNS alone serves these two: nothing is programmed for them.
        lab.apply(&Service::new("shop/peers").port("tcp", Tcp, 80).headless())?;
        lab.apply(&Service::new("shop/docs").external_name("example.org"))?;
        lab.apply(&one("10.96.0.70", "shop/soon", 80))?;
        lab.settle()
    }
}

fn dual(name: &str, v4: &str, v6: &str) -> Service {
    Service::new(name).cluster_ip(v4).cluster_ip(v6)
}
