//! Services, as programs in pods and on nodes see them.

#[path = "services/cluster_ip.rs"]
mod cluster_ip;
#[path = "services/external.rs"]
mod external;
#[path = "services/node_port.rs"]
mod node_port;
#[path = "services/none.rs"]
mod none;
#[path = "services/stick.rs"]
mod stick;
#[path = "services/story.rs"]
mod story;
#[path = "services/udp.rs"]
mod udp;
