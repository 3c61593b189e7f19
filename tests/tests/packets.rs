//! The packet tier, as hosts outside of the cluster, pods without the socket tier and servers see it.

#[path = "packets/bulk.rs"]
mod bulk;
#[path = "packets/cached.rs"]
mod cached;
#[path = "packets/crowd.rs"]
mod crowd;
#[path = "packets/dsr.rs"]
mod dsr;
#[path = "packets/echo.rs"]
mod echo;
#[path = "packets/flood.rs"]
mod flood;
#[path = "packets/fragments.rs"]
mod fragments;
#[path = "packets/full.rs"]
mod full;
#[path = "packets/gone.rs"]
mod gone;
#[path = "packets/icmp.rs"]
mod icmp;
#[path = "packets/maglev.rs"]
mod maglev;
#[path = "packets/masquerade.rs"]
mod masquerade;
#[path = "packets/monitor.rs"]
mod monitor;
#[path = "packets/nat.rs"]
mod nat;
#[path = "packets/outside.rs"]
mod outside;
#[path = "packets/per_packet.rs"]
mod per_packet;
#[path = "packets/scene.rs"]
mod scene;
#[path = "packets/sctp.rs"]
mod sctp;
#[path = "packets/sources.rs"]
mod sources;
#[path = "packets/spoof.rs"]
mod spoof;
#[path = "packets/uplinks.rs"]
mod uplinks;
#[path = "packets/wire.rs"]
mod wire;
#[path = "packets/xdp.rs"]
mod xdp;
