//! Whom the proxy serves and where its view of the mesh comes from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::reader::Reader;

/// Whom the proxy serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The pods that the node agent names, each in its own network namespace.
    Shared,
    /// One workload, in the network namespace of this process.
    Dedicated(WorkloadInfo),
}

/// Which workload: `namespace/name/service-account`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadInfo {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the pod or the like.
    pub name: String,
    /// Kubernetes service account.
    pub service_account: String,
}

/// Not `namespace/name/service-account`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected namespace/name/service-account")]
pub struct WorkloadInfoError;

impl FromStr for WorkloadInfo {
    type Err = WorkloadInfoError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/').filter(|part| !part.is_empty()).map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), text.matches('/').count()) {
            (Some(namespace), Some(name), Some(service_account), 2) => Ok(Self { namespace, name, service_account }),
            _ => Err(WorkloadInfoError),
        }
    }
}

impl fmt::Display for WorkloadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.name, self.service_account)
    }
}

/// Where the local configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// In a file.
    Path(PathBuf),
    /// In the setting itself.
    Inline(String),
}

pub(super) fn mode(read: &mut Reader<'_>) -> Mode {
    let info = read.optional("PROXY_WORKLOAD_INFO");
    match (read.text("PROXY_MODE", "shared").as_str(), info) {
        ("shared", _) => Mode::Shared,
        ("dedicated", Some(text)) => match text.parse() {
            Ok(info) => Mode::Dedicated(info),
            Err(error) => {
                read.error(format!("PROXY_WORKLOAD_INFO={text:?}: {error}"));
                Mode::Shared
            }
        },
        ("dedicated", None) => {
            read.error(format!("PROXY_WORKLOAD_INFO is not set: {WorkloadInfoError} in dedicated mode"));
            Mode::Shared
        }
        (other, _) => {
            read.error(format!("PROXY_MODE={other:?}: expected shared or dedicated"));
            Mode::Shared
        }
    }
}

/// In shared mode an unmarked connection of the proxy would be captured again, without end.
pub(super) fn packet_mark(read: &mut Reader<'_>, mode: &Mode) -> Option<u32> {
    let default = if *mode == Mode::Shared { SHARED_MARK } else { 0 };
    let mark = read.number("PACKET_MARK", default);
    if mark == 0 && *mode == Mode::Shared {
        read.error("PACKET_MARK=0: expected a mark, by which pods tell the proxy's connections from their own");
    }
    (mark != 0).then_some(mark)
}

pub(super) fn local_source(read: &mut Reader<'_>) -> Option<LocalSource> {
    match (read.optional("LOCAL_XDS_PATH"), read.optional("LOCAL_XDS")) {
        (None, None) => None,
        (Some(path), None) => Some(LocalSource::Path(path.into())),
        (None, Some(text)) => Some(LocalSource::Inline(text)),
        (Some(_), Some(_)) => {
            read.error("LOCAL_XDS and LOCAL_XDS_PATH are both set: expected at most one");
            None
        }
    }
}

/// 0x539, which the rules in every pod exempt.
const SHARED_MARK: u32 = 1337;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_has_three_parts() {
        let info: WorkloadInfo = "shop/web-1/web".parse().unwrap();
        assert_eq!(
            (info.namespace.as_str(), info.name.as_str(), info.service_account.as_str()),
            ("shop", "web-1", "web")
        );
        assert_eq!(info.to_string(), "shop/web-1/web");
        for bad in ["", "shop", "shop/web", "shop/web/", "/web/sa", "a/b/c/d", "a//b/c"] {
            assert_eq!(bad.parse::<WorkloadInfo>(), Err(WorkloadInfoError), "{bad}");
        }
    }
}
