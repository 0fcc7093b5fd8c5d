//! The rules of a pod and of the node, met by real connections.

use std::net::UdpSocket;

use cni::redirect::{self, HostRules, PodRules, ProbeAddresses};
use mesh_sys::socket::original_dst;

use crate::lab::{self, Lab, PATIENCE, accept, connect, connect_as_proxy, listen, privileged, talk};

fn rules() -> PodRules {
    PodRules {
        bypass_inbound: false,
        dns: false,
        interfaces: Vec::new(),
        ipv6: true,
        probes: ProbeAddresses::default(),
    }
}

fn captured() -> Lab {
    let lab = Lab::new();
    redirect::apply(&lab.pod, &rules()).unwrap();
    lab
}

#[test]
fn outbound_connections_reach_15001_with_their_destination() {
    if !privileged("redirect::outbound_connections_reach_15001_with_their_destination") {
        return;
    }
    let lab = captured();
    for (listener, target) in [("127.0.0.1:15001", "10.9.0.1:80"), ("[::1]:15001", "[fd09::1]:80")] {
        let proxy = listen(&lab.pod, listener);
        let mut app = connect(&lab.pod, target).unwrap();
        let (mut stream, _) = accept(&proxy);
        assert_eq!(original_dst(&stream).unwrap(), target.parse().unwrap());
        talk(&mut app, &mut stream);
    }
}

#[test]
fn inbound_plaintext_reaches_15006_with_its_destination_and_its_source() {
    if !privileged("redirect::inbound_plaintext_reaches_15006_with_its_destination_and_its_source") {
        return;
    }
    let lab = captured();
    for (listener, target, source) in
        [("0.0.0.0:15006", "10.9.0.2:80", "10.9.0.1"), ("[::]:15006", "[fd09::2]:80", "fd09::1")]
    {
        let proxy = listen(&lab.pod, listener);
        let mut client = connect(&lab.world, target).unwrap();
        let (mut stream, peer) = accept(&proxy);
        assert_eq!(original_dst(&stream).unwrap(), target.parse().unwrap());
        assert_eq!(peer.ip().to_canonical(), source.parse::<std::net::IpAddr>().unwrap());
        talk(&mut client, &mut stream);
    }
}

#[test]
fn connections_of_the_proxy_are_not_captured() {
    if !privileged("redirect::connections_of_the_proxy_are_not_captured") {
        return;
    }
    let lab = captured();
    for target in ["10.9.0.1:80", "[fd09::1]:80"] {
        let server = listen(&lab.world, target);
        let mut proxy = connect_as_proxy(&lab.pod, target, None).unwrap();
        talk(&mut proxy, &mut accept(&server).0);
    }
}

#[test]
fn tunnels_reach_15008_untouched() {
    if !privileged("redirect::tunnels_reach_15008_untouched") {
        return;
    }
    let lab = captured();
    let proxy = listen(&lab.pod, "0.0.0.0:15008");
    let mut peer = connect(&lab.world, "10.9.0.2:15008").unwrap();
    let (mut stream, _) = accept(&proxy);
    assert_eq!(stream.local_addr().unwrap(), "10.9.0.2:15008".parse().unwrap());
    talk(&mut peer, &mut stream);
}

#[test]
fn loopback_and_the_own_address_stay_inside_the_pod() {
    if !privileged("redirect::loopback_and_the_own_address_stay_inside_the_pod") {
        return;
    }
    let lab = captured();
    for target in ["127.0.0.1:80", "127.0.0.7:80", "[::1]:80", "10.9.0.2:80", "[fd09::2]:80"] {
        let server = listen(&lab.pod, target);
        let mut app = connect(&lab.pod, target).unwrap();
        talk(&mut app, &mut accept(&server).0);
    }
}

#[test]
fn the_proxy_reaches_the_application_with_the_address_of_the_client() {
    if !privileged("redirect::the_proxy_reaches_the_application_with_the_address_of_the_client") {
        return;
    }
    let lab = captured();
    for (target, client) in [("10.9.0.2:80", "10.9.0.77"), ("[fd09::2]:80", "fd09::77")] {
        let server = listen(&lab.pod, target);
        let source = client.parse().unwrap();
        let proxy = {
            let pod = lab.pod.try_clone().unwrap();
            std::thread::spawn(move || connect_as_proxy(&pod, target, Some(source)).unwrap())
        };
        let (mut app, peer) = accept(&server);
        assert_eq!(peer.ip(), source);
        talk(&mut proxy.join().unwrap(), &mut app);
    }
}

#[test]
fn kubelet_probes_bypass_the_mesh_on_both_ends() {
    if !privileged("redirect::kubelet_probes_bypass_the_mesh_on_both_ends") {
        return;
    }
    let lab = captured();
    let node = HostRules::new(lab.world.try_clone().unwrap(), ProbeAddresses::default(), 0, true);
    node.sync().unwrap();
    let mut node = node;
    node.add("uid-1", &["10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap()]).unwrap();
    for (target, probe) in
        [("10.9.0.2:80", "169.254.7.127"), ("[fd09::2]:80", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")]
    {
        let server = listen(&lab.pod, target);
        let mut kubelet = connect(&lab.world, target).unwrap();
        let (mut app, peer) = accept(&server);
        assert_eq!(peer.ip(), probe.parse::<std::net::IpAddr>().unwrap());
        talk(&mut kubelet, &mut app);
    }
    node.remove("uid-1").unwrap();
    let proxy = listen(&lab.pod, "0.0.0.0:15006");
    let mut client = connect(&lab.world, "10.9.0.2:80").unwrap();
    talk(&mut client, &mut accept(&proxy).0);
    node.delete().unwrap();
}

#[test]
fn dns_queries_reach_15053_only_when_captured() {
    if !privileged("redirect::dns_queries_reach_15053_only_when_captured") {
        return;
    }
    let lab = captured();
    let udp = |netns: &mesh_sys::netns::NetNs, addr: &str| {
        let socket = netns.run(|| UdpSocket::bind(addr).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (upstream, proxy) = (udp(&lab.world, "10.9.0.1:53"), udp(&lab.pod, "127.0.0.1:15053"));
    let mut buffer = [0; 16];
    let ask = || udp(&lab.pod, "0.0.0.0:0");
    let first = ask();
    first.send_to(b"query", "10.9.0.1:53").unwrap();
    assert_eq!(upstream.recv(&mut buffer).unwrap(), 5);

    redirect::apply(&lab.pod, &PodRules { dns: true, ..rules() }).unwrap();
    let second = ask();
    second.send_to(b"query", "10.9.0.1:53").unwrap();
    let (_, from) = proxy.recv_from(&mut buffer).unwrap();
    proxy.send_to(b"answer", from).unwrap();
    let (length, from) = second.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], "10.9.0.1:53".parse().unwrap()));

    redirect::apply(&lab.pod, &rules()).unwrap();
    let third = ask();
    third.send_to(b"query", "10.9.0.1:53").unwrap();
    assert_eq!(upstream.recv(&mut buffer).unwrap(), 5);
}

#[test]
fn connections_older_than_the_capture_go_on_and_new_ones_are_captured() {
    if !privileged("redirect::connections_older_than_the_capture_go_on_and_new_ones_are_captured") {
        return;
    }
    let lab = Lab::new();
    let mut pairs = Vec::new();
    for target in ["10.9.0.1:80", "[fd09::1]:80"] {
        let server = listen(&lab.world, target);
        let client = connect(&lab.pod, target).unwrap();
        pairs.push((client, accept(&server).0));
    }
    // A dual-stack listener sees IPv4 clients under mapped addresses.
    let server = listen(&lab.pod, "[::]:90");
    for target in ["10.9.0.2:90", "[fd09::2]:90"] {
        let client = connect(&lab.world, target).unwrap();
        pairs.push((client, accept(&server).0));
    }
    for (client, server) in &mut pairs {
        talk(client, server);
    }
    redirect::apply(&lab.pod, &rules()).unwrap();
    for (client, server) in &mut pairs {
        talk(server, client);
    }
    redirect::apply(&lab.pod, &rules()).unwrap();
    for (client, server) in &mut pairs {
        talk(client, server);
    }
    let proxy = listen(&lab.pod, "127.0.0.1:15001");
    let mut app = connect(&lab.pod, "10.9.0.1:80").unwrap();
    talk(&mut app, &mut accept(&proxy).0);
}

#[test]
fn nothing_is_lost_when_a_pod_under_load_is_captured() {
    if !privileged("redirect::nothing_is_lost_when_a_pod_under_load_is_captured") {
        return;
    }
    use std::io::{Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    let lab = Lab::new();
    let stop = Arc::new(AtomicBool::new(false));
    // Whoever gets the connection answers: the server before the switch, the proxy after it.
    let served = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
    for (listener, count) in
        [(listen(&lab.world, "10.9.0.1:80"), &served[0]), (listen(&lab.pod, "127.0.0.1:15001"), &served[1])]
    {
        let count = Arc::clone(count);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 4];
                if stream.read_exact(&mut buffer).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(&buffer);
                }
            }
        });
    }
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (pod, stop) = (lab.pod.try_clone().unwrap(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(&pod, "10.9.0.1:80").unwrap();
                    stream.write_all(b"ping").unwrap();
                    stream.read_exact(&mut [0; 4]).unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    let wait_for = |count: &AtomicU32, more: u32| {
        let until = std::time::Instant::now() + 4 * PATIENCE;
        let target = count.load(Ordering::Relaxed) + more;
        while count.load(Ordering::Relaxed) < target {
            assert!(std::time::Instant::now() < until, "no traffic");
            std::thread::yield_now();
        }
    };
    wait_for(&served[0], 100);
    redirect::apply(&lab.pod, &rules()).unwrap();
    wait_for(&served[1], 100);
    stop.store(true, Ordering::Relaxed);
    let done: u32 = clients.into_iter().map(|client| client.join().expect("a request failed")).sum();
    assert_eq!(done, served.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u32>());
}

#[test]
fn applying_twice_is_the_same_as_once_and_removal_restores() {
    if !privileged("redirect::applying_twice_is_the_same_as_once_and_removal_restores") {
        return;
    }
    let lab = Lab::new();
    let state = || {
        let tables = lab.pod.run(|| mesh_sys::nft::list_tables().unwrap()).unwrap();
        let text = lab.pod.run(|| {
            tables
                .iter()
                .map(|table| {
                    let (family, name) = table.split_once(' ').unwrap();
                    mesh_sys::nft::list_table(family, name).unwrap().unwrap()
                })
                .collect::<String>()
        });
        // Counters count.
        let mut text: String =
            text.unwrap().lines().map(|line| line.split(" counter").next().unwrap().to_owned() + "\n").collect();
        for args in [["-4", "rule"], ["-6", "rule"]] {
            let out = lab.pod.run(|| std::process::Command::new("ip").args(args).output().unwrap()).unwrap();
            text += &String::from_utf8_lossy(&out.stdout);
        }
        text
    };
    let before = state();
    redirect::apply(&lab.pod, &rules()).unwrap();
    let once = state();
    assert!(once.contains("fwmark 0x111/0xfff") && once.contains("istio-ambient-nat"), "{once}");
    redirect::apply(&lab.pod, &rules()).unwrap();
    assert_eq!(state(), once);
    redirect::remove(&lab.pod).unwrap();
    assert_eq!(state(), before);
    redirect::remove(&lab.pod).unwrap();
    let server = listen(&lab.world, "10.9.0.1:80");
    let mut app = connect(&lab.pod, "10.9.0.1:80").unwrap();
    talk(&mut app, &mut accept(&server).0);
}

#[test]
fn traffic_of_machines_inside_a_pod_counts_as_outbound() {
    if !privileged("redirect::traffic_of_machines_inside_a_pod_counts_as_outbound") {
        return;
    }
    let lab = Lab::new();
    let machine = mesh_sys::netns::NetNs::create().unwrap();
    lab::ip(&lab.pod, &format!("link add tap0 type veth peer name eth0 netns {}", lab::path(&machine)));
    lab::ip(&lab.pod, "addr add 10.8.0.1/24 dev tap0");
    lab::ip(&lab.pod, "link set tap0 up");
    lab::ip(&machine, "addr add 10.8.0.2/24 dev eth0");
    lab::ip(&machine, "link set eth0 up");
    lab::ip(&machine, "route add default via 10.8.0.1");
    let pod = PodRules { interfaces: vec!["tap+".parse().unwrap()], ..rules() };
    redirect::apply(&lab.pod, &pod).unwrap();
    let proxy = listen(&lab.pod, "0.0.0.0:15001");
    let mut guest = connect(&machine, "10.9.0.1:80").unwrap();
    let (mut stream, _) = accept(&proxy);
    assert_eq!(original_dst(&stream).unwrap(), "10.9.0.1:80".parse().unwrap());
    talk(&mut guest, &mut stream);
}

#[test]
fn packets_of_no_connection_never_leave_a_captured_pod() {
    if !privileged("redirect::packets_of_no_connection_never_leave_a_captured_pod") {
        return;
    }
    let lab = captured();
    // SYN+ACK out of nowhere from port 9999 to port 80: the kernel gives it no connection, so no translation either.
    let mut segment = [0x27, 0x0f, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x12, 0x10, 0, 0, 0, 0, 0];
    let pseudo = [10, 9, 0, 2, 10, 9, 0, 1, 0, 6, 0, 20];
    let sum = |bytes: &[u8]| -> u32 { bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum() };
    let total = sum(&pseudo) + sum(&segment);
    let checksum = !u16::try_from((total & 0xffff) + (total >> 16)).unwrap();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    lab.pod
        .run(|| {
            let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::TCP));
            let to: std::net::SocketAddr = "10.9.0.1:0".parse().unwrap();
            // A dropped packet is an error of the sender, or none, as the kernel likes.
            let _ = raw.unwrap().send_to(&segment, &to.into());
        })
        .unwrap();
    let table = lab.pod.run(|| mesh_sys::nft::list_table("inet", "istio-ambient-mangle").unwrap().unwrap()).unwrap();
    assert!(table.contains("counter packets 1 bytes 40 drop"), "{table}");
}
