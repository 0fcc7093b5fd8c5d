//! Nodes under a real kernel: a sandbox is brought up from its command line, as root or as an
//! ordinary user, whichever runs the tests.
//!
//! Pods use what every Debian has (`sh`, `bash`, `perl`); names of tests state the rule.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what is not as expected fails the test

mod fixture;

use std::time::Duration;

use fixture::{Sandbox, sleeper};
use serde_json::json;

/// Says who called and what it read, over both families.
const ECHO: &str = r#"
    use IO::Socket::IP;
    my $server = IO::Socket::IP->new(LocalHost => "::", LocalPort => 8080, Listen => 8, ReuseAddr => 1,
        V6Only => 0) or die "listen: $@";
    $| = 1;
    print "ready\n";
    while (my $peer = $server->accept) {
        my $line = <$peer>;
        chomp $line;
        print $peer "saw ", $peer->peerhost, " say $line\n";
        close $peer;
    }
"#;

#[test]
fn pods_of_two_nodes_reach_each_other_in_both_families() {
    let sandbox = Sandbox::up("reach", &[]);
    sandbox.create_pod(&json!({
        "metadata": {"name": "server", "namespace": "default"},
        "spec": {"nodeName": "node-2", "terminationGracePeriodSeconds": 0, "containers": [
            {"name": "app", "image": "local/perl", "command": ["perl", "-e", ECHO]}]},
    }));
    sandbox.create_pod(&sleeper("client", "node-1"));
    sandbox.create_pod(&sleeper("neighbour", "node-2"));
    let server = sandbox.pod_ips("server");
    let client = sandbox.pod_ips("client");
    let neighbour = sandbox.pod_ips("neighbour");
    assert_eq!(server.len(), client.len());
    assert!(server[0].starts_with("10.244.2."), "{server:?}");
    assert!(client[0].starts_with("10.244.1."), "{client:?}");
    sandbox.wait_for_log("server", "ready");
    for (name, own) in [("client", &client), ("neighbour", &neighbour)] {
        for (target, source) in server.iter().zip(own) {
            let script = format!("exec 3<>/dev/tcp/{target}/8080; echo hello >&3; cat <&3");
            let output = sandbox.run(&["exec", name, "--", "bash", "-c", &script]);
            assert!(output.status.success(), "{name} to {target}: {output:?}");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = text.trim().replace("::ffff:", "");
            assert_eq!(said, format!("saw {source} say hello"), "{name} to {target}");
        }
    }
}

#[test]
fn exec_and_logs_work_as_kubectl_has_them() {
    let sandbox = Sandbox::up("exec", &["--nodes", "1"]);
    sandbox.create_pod(&json!({
        "metadata": {"name": "talker", "namespace": "default"},
        "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "app", "image": "local/sh",
            "command": ["sh", "-c", "echo to-out; echo to-err >&2; exec sleep infinity"],
            "env": [{"name": "COLOUR", "value": "blue"}]}]},
    }));
    let output = sandbox.run(&["exec", "talker", "--", "sh", "-c", "echo $COLOUR $HOSTNAME; echo oops >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "blue talker\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "oops\n");
    let missing = sandbox.run(&["exec", "talker", "--", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("executable file not found"), "{missing:?}");
    sandbox.wait_for_log("talker", "to-out");
    sandbox.wait_for_log("talker", "to-err");
}

#[test]
fn a_killed_daemon_leaves_nothing_and_up_works_again() {
    let sandbox = Sandbox::up("crash", &["--nodes", "1"]);
    sandbox.create_pod(&sleeper("victim", "node-1"));
    let members = sandbox.processes();
    assert!(members.len() >= 3, "first process, daemon and a container: {members:?}");
    sandbox.kill_daemon();
    for member in &members {
        assert!(fixture::gone_within(*member, Duration::from_secs(5)), "process {member:?} survived");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&sandbox.dir().display().to_string()), "a mount survived");
    let status = sandbox.run(&["status"]);
    assert!(!status.status.success());
    assert!(String::from_utf8_lossy(&status.stderr).contains("meltemi-sandbox up"), "{status:?}");
    sandbox.start(&["--nodes", "1"]);
    assert!(sandbox.run(&["status"]).status.success());
}

#[test]
fn a_second_up_is_refused_and_down_leaves_no_file() {
    let sandbox = Sandbox::up("twice", &["--nodes", "1"]);
    let second = sandbox.run(&["up"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("runs already") && said.contains("meltemi-sandbox down"), "{said}");
    let members = sandbox.processes();
    assert!(sandbox.run(&["down"]).status.success());
    assert!(!sandbox.dir().exists(), "the state directory is still there");
    for member in members {
        assert!(fixture::gone_within(member, Duration::from_secs(5)), "process {member:?} survived");
    }
    let again = sandbox.run(&["down"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("no sandbox runs"));
}

#[test]
fn commands_on_a_node_see_its_network_and_its_traffic() {
    let sandbox = Sandbox::up("node", &[]);
    let output = sandbox.run(&["node-exec", "node-2", "--", "sh", "-c", "cat /proc/net/fib_trie; exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("172.30.0.12"));
    let missing = sandbox.run(&["node-exec", "node-9", "--", "true"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("node-1, node-2"), "{missing:?}");

    let file = sandbox.scratch().join("link.pcap");
    let path = file.display().to_string();
    assert!(sandbox.run(&["capture", "start", "node-1", "--file", &path]).status.success());
    // Nothing listens there; the attempt is what gets recorded.
    sandbox.run(&["node-exec", "node-1", "--", "bash", "-c", "echo > /dev/tcp/172.30.0.12/9"]);
    let stop = sandbox.run(&["capture", "stop", "node-1"]);
    assert!(stop.status.success(), "{stop:?}");
    let packets = std::fs::read(&file).unwrap();
    // 172.30.0.12, discard port, as they stand in the headers.
    assert!(
        packets.windows(4).any(|bytes| bytes == [172, 30, 0, 12]),
        "no packet to node-2 in {} bytes",
        packets.len()
    );
}

#[test]
fn signals_reach_the_main_process() {
    let sandbox = Sandbox::up("kill", &["--nodes", "1"]);
    let mut pod = sleeper("target", "node-1");
    pod["spec"]["restartPolicy"] = json!("Never");
    sandbox.create_pod(&pod);
    let killed = sandbox.run(&["kill", "target", "--signal", "KILL"]);
    assert!(killed.status.success(), "{killed:?}");
    sandbox.wait_for_phase("target", "Failed");
    let unknown = sandbox.run(&["kill", "nobody"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("runs on no node"), "{unknown:?}");
}
