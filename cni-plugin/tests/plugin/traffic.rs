//! Pods and their node reach each other, in both families, and see each other's own addresses.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::lab::{Node, Pod, addresses, inside};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

/// Who a server at `server` (in the namespace `to`) says has called from the namespace `from`, by TCP and by UDP.
fn seen(from: &str, to: &str, server: IpAddr) -> [IpAddr; 2] {
    let (ready, address) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || inside(to, move || answer(server, &ready)));
        let (tcp, udp): (SocketAddr, SocketAddr) = address.recv().unwrap();
        inside(from, || {
            let mut stream = TcpStream::connect_timeout(&tcp, Duration::from_secs(10)).unwrap();
            stream.set_read_timeout(PATIENCE).unwrap();
            let mut by_tcp = String::new();
            stream.read_to_string(&mut by_tcp).unwrap();

            let wildcard: IpAddr = if server.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
            let socket = UdpSocket::bind((wildcard, 0)).unwrap();
            socket.set_read_timeout(PATIENCE).unwrap();
            socket.connect(udp).unwrap();
            socket.send(b"who am I?").unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            let by_udp = String::from_utf8_lossy(&buffer[..length]).into_owned();
            [by_tcp.parse().unwrap(), by_udp.parse().unwrap()]
        })
    })
}

/// Tells one TCP client and one UDP client their addresses.
fn answer(ip: IpAddr, ready: &mpsc::Sender<(SocketAddr, SocketAddr)>) {
    let (tcp, udp) = (TcpListener::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap());
    udp.set_read_timeout(PATIENCE).unwrap();
    ready.send((tcp.local_addr().unwrap(), udp.local_addr().unwrap())).unwrap();
    let (mut stream, client) = tcp.accept().unwrap();
    stream.write_all(client.ip().to_string().as_bytes()).unwrap();
    drop(stream);
    let (_, client) = udp.recv_from(&mut [0; 64]).unwrap();
    udp.send_to(client.ip().to_string().as_bytes(), client).unwrap();
}

#[test]
fn nobodys_address_is_changed() {
    let (node, one, two) = (Node::new(), Pod::new(), Pod::new());
    node.ip("addr add 192.0.2.1/32 dev lo");
    node.ip("addr add 2001:db8::1/128 dev lo nodad");
    let of_node: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let (of_one, of_two) = (addresses(&node.add(&one)), addresses(&node.add(&two)));
    for family in 0..2 {
        let (node_ip, one_ip, two_ip) = (of_node[family], of_one[family], of_two[family]);
        assert_eq!(seen(&one.name, &two.name, two_ip), [one_ip; 2], "pod to pod");
        assert_eq!(seen(&two.name, &one.name, one_ip), [two_ip; 2], "pod to pod, the other way");
        assert_eq!(seen(&one.name, &node.name, node_ip), [one_ip; 2], "pod to node");
        assert_eq!(seen(&node.name, &one.name, one_ip), [node_ip; 2], "node to pod");
    }
}

#[test]
fn the_first_packet_arrives() {
    let node = Node::new();
    node.ip("addr add 192.0.2.1/32 dev lo");
    let server = inside(&node.name, || UdpSocket::bind("192.0.2.1:0").unwrap());
    server.set_read_timeout(PATIENCE).unwrap();
    for _ in 0..20 {
        let pod = Pod::new();
        let ip = addresses(&node.add(&pod))[0];
        // A datagram is not repeated: if the pod could not send or be answered at once, it is lost.
        let client = inside(&pod.name, || UdpSocket::bind((ip, 0)).unwrap());
        client.set_read_timeout(PATIENCE).unwrap();
        client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip(), ip);
        server.send_to(b"hello", from).unwrap();
        client.recv_from(&mut [0; 8]).unwrap();
    }
}
