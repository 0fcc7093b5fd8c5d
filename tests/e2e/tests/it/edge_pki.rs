//! Certificates of the features of the edge: two authorities, and who has a certificate of which.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Certificates and keys, as files of a folder.
pub(crate) struct Pki {
    dir: PathBuf,
}

/// Who has a certificate: file, authority, names.
const LEAVES: &[(&str, &str, &str)] = &[
    ("edge", "good", "DNS:*.example.com,DNS:example.org,DNS:*.example.org"),
    ("other-edge", "good", "DNS:second.example.com"),
    ("vault", "good", "DNS:vault.example.com,DNS:alias.example.com,URI:spiffe://example.com/vault"),
    ("client", "good", "DNS:client.example.com"),
    ("foreigner", "other", "DNS:client.example.com"),
];

impl Pki {
    /// Makes them all.
    pub(crate) fn make(dir: &Path) -> Result<Self> {
        let pki = Self { dir: dir.to_owned() };
        for authority in ["good", "other"] {
            pki.openssl(authority, &["-addext", "keyUsage=critical,keyCertSign,cRLSign"])?;
        }
        for (name, authority, names) in LEAVES {
            let (chain, key) = (pki.file(authority, "pem"), pki.file(authority, "key"));
            let (chain, key) = (chain.display().to_string(), key.display().to_string());
            let names = format!("subjectAltName={names}");
            let basic = "basicConstraints=critical,CA:FALSE";
            pki.openssl(name, &["-CA", &chain, "-CAkey", &key, "-addext", &names, "-addext", basic])?;
        }
        Ok(pki)
    }

    /// Those that were made there before.
    pub(crate) fn again(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn openssl(&self, name: &str, more: &[&str]) -> Result<()> {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}")])
            .args(more)
            .arg("-out")
            .arg(self.file(name, "pem"))
            .arg("-keyout")
            .arg(self.file(name, "key"))
            .output()
            .context("openssl")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }

    fn file(&self, name: &str, end: &str) -> PathBuf {
        self.dir.join(format!("{name}.{end}"))
    }

    /// A file as a block of YAML.
    pub(crate) fn block(&self, name: &str, end: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.file(name, end))?;
        Ok(text.lines().map(|line| format!("    {line}\n")).collect())
    }

    /// A Secret with a certificate and its key.
    pub(crate) fn secret(&self, namespace: &str, name: &str, leaf: &str) -> Result<String> {
        Ok(format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
            self.block(leaf, "pem")?,
            self.block(leaf, "key")?
        ))
    }

    /// A ConfigMap with an authority.
    fn authority(&self, namespace: &str, name: &str) -> Result<String> {
        let text = self.block(name, "pem")?;
        Ok(format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             data:\n  ca.crt: |\n{text}"
        ))
    }

    /// Everything that the gateways, the vault and the visitor need.
    pub(crate) fn all(&self) -> Result<String> {
        let mut visitor =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: visitor, namespace: outside}\nstringData:\n".to_owned();
        for (name, end) in [
            ("client", "pem"),
            ("client", "key"),
            ("foreigner", "pem"),
            ("foreigner", "key"),
            ("good", "pem"),
            ("other", "pem"),
        ] {
            visitor.push_str(&format!("  {name}.{end}: |\n{}", self.block(name, end)?));
        }
        let all = [
            visitor,
            self.secret("market", "edge", "edge")?,
            self.secret("market", "other-edge", "other-edge")?,
            self.secret("market", "vault", "vault")?,
            self.secret("market", "client", "client")?,
            self.secret("street", "edge", "edge")?,
            self.secret("street", "specific", "edge")?,
            self.authority("market", "good")?,
            self.authority("market", "other")?,
            self.authority("street", "good")?,
        ];
        Ok(all.join("---\n"))
    }
}
