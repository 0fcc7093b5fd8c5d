//! What a node agent installs in the network namespace of an enrolled pod, written from the capture contract.

use mesh_sys::netns::NetNs;
use mesh_sys::route::{Family, LocalPolicyRoute};

/// Puts the redirection of an enrolled pod in place.
///
/// # Panics
/// When the kernel refuses.
pub fn redirect(netns: &NetNs, dns: bool) {
    let route = LocalPolicyRoute { mark: 0x111, mask: 0xfff, table: 100, priority: 32764 };
    let (rules, raw) = (rules(dns), if dns { RAW } else { "" });
    netns
        .run(|| {
            mesh_sys::nft::apply(&format!("{rules}{raw}")).unwrap();
            route.add(Family::V4).unwrap();
            route.add(Family::V6).unwrap();
        })
        .unwrap();
}

fn rules(dns: bool) -> String {
    let dns = if dns { DNS } else { "" };
    format!(
        "
table inet istio-ambient-nat {{
    chain prerouting {{ type nat hook prerouting priority -100; jump istio-prerouting; }}
    chain output {{ type nat hook output priority -100; jump istio-output; }}
    chain istio-prerouting {{
        meta l4proto tcp ip saddr 169.254.7.127 accept
        meta l4proto tcp ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff accept
        ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
        ip6 daddr != ::1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
    }}
    chain istio-output {{
        meta l4proto tcp ip daddr 169.254.7.127 accept
        meta l4proto tcp ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff accept
        {dns}
        meta l4proto tcp meta mark & 0xfff == 0x111 accept
        oifname lo ip daddr != 127.0.0.1 accept
        oifname lo ip6 daddr != ::1 accept
        ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
        ip6 daddr != ::1 meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
    }}
}}
table inet istio-ambient-mangle {{
    chain prerouting {{ type filter hook prerouting priority -150; jump istio-prerouting; }}
    chain output {{ type route hook output priority -150; jump istio-output; }}
    chain istio-prerouting {{ meta mark & 0xfff == 0x539 ct mark set ct mark & 0xfffff000 | 0x111; }}
    chain istio-output {{ ct mark & 0xfff == 0x111 meta mark set ct mark; }}
}}
"
    )
}

const DNS: &str = "
        oifname != lo udp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
        ip daddr != 127.0.0.1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
        ip6 daddr != ::1 tcp dport 53 meta mark & 0xfff != 0x539 redirect to :15053
";

const RAW: &str = "
table inet istio-ambient-raw {
    chain prerouting { type filter hook prerouting priority -300; jump istio-prerouting; }
    chain output { type filter hook output priority -300; jump istio-output; }
    chain istio-output { udp dport 53 meta mark & 0xfff == 0x539 ct zone set 1; }
    chain istio-prerouting { udp sport 53 meta mark & 0xfff != 0x539 ct zone set 1; }
}
";
