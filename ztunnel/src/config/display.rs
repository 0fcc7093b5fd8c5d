//! The settings as they are shown.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Config, LocalSource, Mode};

impl Config {
    /// The effective settings for display; holds no secret.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let seconds = |duration: Duration| format!("{}s", duration.as_secs_f64());
        let mut shown = self.shape();
        let rest = json!({
            "network": self.network,
            "localNode": self.node,
            "clusterId": self.cluster_id,
            "clusterDomain": self.cluster_domain,
            "inpodUds": self.inpod_uds,
            "inpodPortReuse": self.port_reuse,
            "packetMark": self.packet_mark,
            "originalSource": format!("{:?}", self.original_source),
            "ipv6Enabled": self.ipv6,
            "responseBaggage": self.response_baggage,
            "xdsAddress": self.xds_address,
            "altXdsHostname": self.alt_xds_hostname,
            "caAddress": self.ca_address,
            "altCaHostname": self.alt_ca_hostname,
            "authToken": format!("{:?}", self.token),
            "secretTtl": seconds(self.secret_ttl),
            "proxyNodeId": self.node_id(),
            "proxyMetadata": self.node_metadata().into_iter().collect::<Map<_, _>>(),
            "poolMaxStreamsPerConn": self.pool_max_streams,
            "poolUnusedReleaseTimeout": seconds(self.pool_unused_release),
            "windowSize": self.stream_window,
            "connectionWindowSize": self.connection_window,
            "frameSize": self.frame_size,
            "keepalive": self.keepalive.map(|k| json!({
                "time": seconds(k.time), "interval": seconds(k.interval), "retries": k.retries,
            })),
            "userTimeoutEnabled": self.user_timeout,
            "selfTerminationDeadline": seconds(self.termination_deadline),
            "numWorkerThreads": self.workers,
            "keyExchange": format!("{:?}", self.key_exchange),
            "logFilter": self.log_filter,
            "promises": {
                "policyBeforeTraffic": format!("{:?}", self.policy_before_traffic).to_lowercase(),
                "waypointRequired": format!("{:?}", self.waypoint_required).to_lowercase(),
            },
        });
        if let (Some(shown), Value::Object(rest)) = (shown.as_object_mut(), rest) {
            shown.extend(rest);
        }
        shown
    }

    /// What the process does and for whom.
    fn shape(&self) -> Value {
        json!({
            "proxyMode": match &self.mode {
                Mode::Shared => "Shared",
                Mode::Dedicated(_) => "Dedicated",
            },
            "proxyWorkloadInformation": match &self.mode {
                Mode::Shared => None,
                Mode::Dedicated(info) => Some(info.to_string()),
            },
            "proxy": self.enable_proxy,
            "dnsProxy": self.dns_capture,
            "dnsProxyAddrs": self.dns_addrs,
            "socks5": self.socks5,
            "localhostAppTunnel": self.localhost_app_tunnel,
            "adminPort": self.admin_port,
            "statsPort": self.stats_port,
            "readinessPort": self.readiness_port,
            "xdsOnDemand": self.on_demand,
            "localXds": match &self.local_config {
                None => None,
                Some(LocalSource::Path(path)) => Some(path.display().to_string()),
                Some(LocalSource::Inline(_)) => Some("inline".to_owned()),
            },
            "fakeCa": self.fake_ca,
            "crlPath": self.crl_path,
            "tls12Enabled": self.tls12,
            "preferedServiceNamespace": self.preferred_service_namespace,
        })
    }
}
