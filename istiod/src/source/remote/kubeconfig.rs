//! Kubeconfigs that others wrote: what would run programs, read our files or trust anybody is refused by name.

use kube::config::Kubeconfig;
use serde_json::Value;

/// Why a kubeconfig is not used. Names the field, and never its value: it may be a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// It is no kubeconfig.
    #[error("kubeconfig cannot be read: {reason}")]
    Unreadable {
        /// Where and why.
        reason: String,
    },
    /// It asks for what it must not.
    #[error("kubeconfig: {path} is refused: {reason}")]
    Refused {
        /// The field.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

/// Reads a kubeconfig.
///
/// # Errors
/// See [`KubeconfigError`].
pub fn read(text: &[u8]) -> Result<Kubeconfig, KubeconfigError> {
    let unreadable = |reason: String| KubeconfigError::Unreadable { reason };
    if text.len() > BYTES_MAX {
        return Err(unreadable(format!("{} bytes, expected at most {BYTES_MAX}", text.len())));
    }
    let text = std::str::from_utf8(text).map_err(|_| unreadable("not UTF-8".to_owned()))?;
    let value: Value = serde_saphyr::from_str(text).map_err(|_| unreadable("not YAML".to_owned()))?;
    refuse(&value, "users", "user", &USER)?;
    refuse(&value, "clusters", "cluster", &CLUSTER)?;
    for (at, server) in
        entries(&value, "clusters", "cluster").filter_map(|(at, one)| Some((at, one.get("server")?.as_str()?)))
    {
        if !server.starts_with("https://") && !is_loopback(server) {
            let path = format!("clusters[{at}].cluster.server");
            return Err(KubeconfigError::Refused {
                path,
                reason: "credentials would cross the network in the clear, expected https",
            });
        }
    }
    serde_path_to_error::deserialize(value).map_err(|error| unreadable(format!("{}: not as expected", error.path())))
}

fn refuse(
    value: &Value,
    list: &str,
    inner: &str,
    fields: &[(&'static str, &'static str)],
) -> Result<(), KubeconfigError> {
    for (at, entry) in entries(value, list, inner) {
        for (field, reason) in fields {
            let set = entry.get(field).is_some_and(|one| !matches!(one, Value::Null | Value::Bool(false)) && one != "");
            if set {
                return Err(KubeconfigError::Refused { path: format!("{list}[{at}].{inner}.{field}"), reason });
            }
        }
    }
    Ok(())
}

fn entries<'a>(value: &'a Value, list: &str, inner: &'a str) -> impl Iterator<Item = (usize, &'a Value)> {
    let entries = value.get(list).and_then(Value::as_array).into_iter().flatten();
    entries.enumerate().filter_map(move |(at, entry)| Some((at, entry.get(inner)?)))
}

fn is_loopback(server: &str) -> bool {
    let authority = server.strip_prefix("http://").unwrap_or_default().split('/').next().unwrap_or_default();
    authority.parse::<std::net::SocketAddr>().is_ok_and(|at| at.ip().is_loopback())
}

const RUNS: &str = "it would run a program";
const READS: &str = "it names a file of the control plane, expected the data itself";
const USER: [(&str, &str); 5] = [
    ("exec", RUNS),
    ("auth-provider", RUNS),
    ("tokenFile", READS),
    ("client-certificate", READS),
    ("client-key", READS),
];
const CLUSTER: [(&str, &str); 2] =
    [("certificate-authority", READS), ("insecure-skip-tls-verify", "anybody could be that cluster")];
/// Larger ones are refused.
const BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, user: &str) -> Result<Kubeconfig, KubeconfigError> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        );
        read(text.as_bytes())
    }

    #[test]
    fn what_runs_programs_reads_files_or_trusts_anybody_is_refused_by_name() {
        let good = "server: 'https://c2:6443'";
        assert!(config(good, "token: secret-token").is_ok());
        for (user, path) in [
            ("exec: {command: /bin/sh}", "users[0].user.exec"),
            ("auth-provider: {name: gcp}", "users[0].user.auth-provider"),
            ("tokenFile: /etc/shadow", "users[0].user.tokenFile"),
            ("client-certificate: a.pem", "users[0].user.client-certificate"),
            ("client-key: a.pem", "users[0].user.client-key"),
        ] {
            let error = config(good, user).unwrap_err().to_string();
            assert!(error.contains(path) && !error.contains("/etc/shadow"), "{error}");
        }
        for (cluster, path) in [
            ("server: 'https://c2', certificate-authority: /ca.pem", "clusters[0].cluster.certificate-authority"),
            ("server: 'https://c2', insecure-skip-tls-verify: true", "clusters[0].cluster.insecure-skip-tls-verify"),
            ("server: 'http://c2'", "clusters[0].cluster.server"),
        ] {
            assert!(config(cluster, "token: t").unwrap_err().to_string().contains(path));
        }
        assert!(config("server: 'http://127.0.0.1:8001'", "token: t").is_ok());
        assert!(matches!(read(b"{"), Err(KubeconfigError::Unreadable { .. })));
    }
}
