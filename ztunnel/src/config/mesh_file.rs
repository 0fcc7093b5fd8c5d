//! What the mesh configuration says of proxies: a file of the whole mesh, and `PROXY_CONFIG` for this proxy.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use super::reader::Reader;

/// Settings of a proxy. What is not named here concerns other proxies and is left alone.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    /// Control plane and certificate authority.
    pub(super) discovery_address: Option<String>,
    #[serde(rename = "proxyAdminPort")]
    pub(super) admin_port: Option<u16>,
    pub(super) stats_port: Option<u16>,
    /// Workers; 0: one per core.
    pub(super) concurrency: Option<u16>,
    pub(super) proxy_metadata: BTreeMap<String, String>,
}

/// The file: mesh configuration, where settings of proxies are the default of a section.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeshConfig {
    default_config: Option<ProxyConfig>,
    /// As some write it, without the section.
    #[serde(flatten)]
    plain: ProxyConfig,
}

impl ProxyConfig {
    /// `PROXY_CONFIG` over the file; a file that is not there says nothing.
    pub(super) fn read(read: &mut Reader<'_>) -> Self {
        let file = match std::fs::read_to_string(FILE) {
            Ok(text) => Self::of_mesh(&text).unwrap_or_else(|error| {
                read.error(format!("file {FILE}: expected mesh configuration in YAML: {error}"));
                Self::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                read.error(format!("file {FILE} cannot be read: {error}"));
                Self::default()
            }
        };
        let Some(text) = read.optional("PROXY_CONFIG") else { return file };
        match serde_saphyr::from_str::<Self>(&text) {
            Ok(own) => own.over(file),
            Err(error) => {
                read.error(format!("PROXY_CONFIG: expected proxy configuration in YAML: {error}"));
                file
            }
        }
    }

    fn of_mesh(text: &str) -> Result<Self, serde_saphyr::Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mesh: MeshConfig = serde_saphyr::from_str(text)?;
        Ok(mesh.default_config.unwrap_or_default().over(mesh.plain))
    }

    /// These settings; what they leave out comes from `other`.
    fn over(self, other: Self) -> Self {
        let mut proxy_metadata = other.proxy_metadata;
        proxy_metadata.extend(self.proxy_metadata);
        Self {
            discovery_address: self.discovery_address.or(other.discovery_address),
            admin_port: self.admin_port.or(other.admin_port),
            stats_port: self.stats_port.or(other.stats_port),
            concurrency: self.concurrency.or(other.concurrency),
            proxy_metadata,
        }
    }
}

/// Mounted there by the chart; relative to the working directory, as the reference has it.
const FILE: &str = "./etc/istio/config/mesh";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_file_has_a_section_for_proxies() {
        let text = "trustDomain: td\ndefaultConfig:\n  discoveryAddress: istiod.x.svc:15012\n  proxyAdminPort: 15100\n  holdApplicationUntilProxyStarts: true\n";
        let read = ProxyConfig::of_mesh(text).unwrap();
        assert_eq!(read.discovery_address.as_deref(), Some("istiod.x.svc:15012"));
        assert_eq!(read.admin_port, Some(15100));
        assert_eq!(ProxyConfig::of_mesh("statsPort: 15120").unwrap().stats_port, Some(15120));
        assert_eq!(ProxyConfig::of_mesh("\n").unwrap(), ProxyConfig::default());
        assert!(ProxyConfig::of_mesh("defaultConfig: {statsPort: many}").is_err());
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let read = |text| serde_saphyr::from_str::<ProxyConfig>(text).unwrap();
        let own = read("concurrency: 3\nproxyMetadata: {A: own}");
        let file = read("concurrency: 1\nstatsPort: 1\nproxyMetadata: {A: file, B: file}");
        let both = own.over(file);
        assert_eq!((both.concurrency, both.stats_port), (Some(3), Some(1)));
        assert_eq!(both.proxy_metadata, [("A".into(), "own".into()), ("B".into(), "file".into())].into());
    }
}
