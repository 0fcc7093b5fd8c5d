//! Servers with certificates of their own, for journeys through TLS.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::market::Market;

/// Makes a certificate for these names and a Secret of it, with the certificate also as `ca.crt`: it is its own authority.
pub(crate) fn secret(market: &Market, namespace: &str, name: &str, hosts: &[&str]) -> Result<()> {
    let dir = market.lab.dir();
    let (chain, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName={}", names.join(","))])
        .arg("-out")
        .arg(&chain)
        .arg("-keyout")
        .arg(&key)
        .output()
        .context("openssl")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |key: &str, path: &std::path::Path| format!("--from-file={key}={}", path.display());
    let files = [file("tls.crt", &chain), file("tls.key", &key), file("ca.crt", &chain)];
    let args = ["create", "secret", "generic", name, "-n", namespace, "--type=kubernetes.io/tls"];
    let args: Vec<&str> = args.into_iter().chain(files.iter().map(String::as_str)).collect();
    market.lab.kubectl(&args).map(drop)
}

/// A server of HTTP inside TLS with the certificate of the Secret `vault`, and its Service `vault-VERSION` with port 443.
pub(crate) fn vault(namespace: &str, version: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: vault-{version}, namespace: {namespace}}}
spec: {{selector: {{app: vault, version: {version}}}, ports: [{{name: tls, port: 443, targetPort: 8443}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: vault-{version}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: vault, version: {version}}}}}
  template:
    metadata: {{labels: {{app: vault, version: {version}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {{kubernetes.io/hostname: node-2}}
      volumes: [{{name: tls, secret: {{secretName: vault}}}}]
      containers:
      - name: vault
        image: meltemi/echo
        args: [--http, '8080', --https, '8443', --tls-cert, /tls/tls.crt, --tls-key, /tls/tls.key, --tls-client-ca, /tls/ca.crt]
        volumeMounts: [{{name: tls, mountPath: /tls}}]
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
        env:
        - {{name: BACKEND, value: {version}}}
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
"
    )
}
