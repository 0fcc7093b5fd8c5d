//! Addresses of workloads that the control plane knows by host name only.

use std::net::IpAddr;

use super::PodWorker;
use crate::dns;
use crate::limits::LOOKUP_BUDGET;
use crate::route::Families;
use crate::state::Workload;

impl PodWorker {
    /// An address for `host`, which a connection of `source` leads to.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub(crate) async fn look_up(&self, source: &Workload, host: &str, families: Families) -> Result<IpAddr, String> {
        self.shared.report.looked_up(source, host);
        let Families { v4, v6, prefer_v4 } = families;
        let families = dns::Families { v4, v6: v6 && self.pod.settings.ipv6, prefer_v4 };
        let lookup = self.shared.resolver.lookup(host, families);
        match tokio::time::timeout(LOOKUP_BUDGET, lookup).await {
            Ok(found) => found.map_err(|e| format!("host name {host} of the destination: {e}")),
            Err(_) => Err(format!("host name {host} of the destination was not resolved within {LOOKUP_BUDGET:?}")),
        }
    }
}
