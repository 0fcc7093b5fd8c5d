//! The plugin's credentials: those of the agent, in a file that only root reads.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The kubeconfig for `server` with the token and authority found in the service-account directory.
///
/// # Errors
/// Names the file that is missing or unusable; never its content.
pub fn text(server: &str, service_account: &Path) -> Result<String, String> {
    let read = |name: &str| {
        let path = service_account.join(name);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let authority = STANDARD.encode(read("ca.crt")?);
    let token = String::from_utf8(read("token")?).map_err(|_| "service-account token is not text".to_owned())?;
    let token = token.trim();
    // What the characters of a token are decides that it needs no quoting below.
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '=' | '+' | '/');
    if token.is_empty() || !token.chars().all(is_token) {
        return Err("service-account token is empty or holds characters that no token has".to_owned());
    }
    Ok(format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: local\n\
         \x20 cluster:\n\
         \x20   server: {server}\n\
         \x20   certificate-authority-data: {authority}\n\
         users:\n\
         - name: istio-cni\n\
         \x20 user:\n\
         \x20   token: \"{token}\"\n\
         contexts:\n\
         - name: istio-cni-context\n\
         \x20 context:\n\
         \x20   cluster: local\n\
         \x20   user: istio-cni\n\
         current-context: istio-cni-context\n"
    ))
}

/// URL of the API server from the variables that Kubernetes gives every pod.
///
/// # Errors
/// Names the variable that is missing.
pub fn server_url(host: Option<&str>, port: Option<&str>) -> Result<String, String> {
    let host = host.filter(|text| !text.is_empty()).ok_or("KUBERNETES_SERVICE_HOST is not set")?;
    let port = port.filter(|text| !text.is_empty()).ok_or("KUBERNETES_SERVICE_PORT is not set")?;
    Ok(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_clients_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        fs::write(dir.path().join("token"), "a.b-c_d\n").unwrap();
        let text = text("https://10.96.0.1:443", dir.path()).unwrap();
        let parsed: kube::config::Kubeconfig = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("istio-cni-context"));
        let cluster = parsed.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://10.96.0.1:443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
        assert_eq!(parsed.auth_infos[0].name, "istio-cni");
        assert!(text.contains("token: \"a.b-c_d\""));
    }

    #[test]
    fn errors_never_show_the_token() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        assert!(text("https://x", dir.path()).unwrap_err().contains("token"));
        fs::write(dir.path().join("token"), "secret\"\n  injected: true").unwrap();
        assert!(!text("https://x", dir.path()).unwrap_err().contains("secret"));
    }

    #[test]
    fn ipv6_hosts_get_brackets_and_missing_variables_are_named() {
        assert_eq!(server_url(Some("fd00::1"), Some("443")).unwrap(), "https://[fd00::1]:443");
        assert_eq!(server_url(Some("10.0.0.1"), Some("6443")).unwrap(), "https://10.0.0.1:6443");
        assert!(server_url(None, Some("1")).unwrap_err().contains("KUBERNETES_SERVICE_HOST"));
        assert!(server_url(Some("h"), None).unwrap_err().contains("KUBERNETES_SERVICE_PORT"));
    }
}
