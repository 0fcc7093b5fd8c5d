//! Whom to ask: the name servers and search domains of `resolv.conf`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::limits::{DNS_RELOAD_PAUSE, DNS_SERVERS_MAX};

/// What a `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order in which they are asked.
    pub servers: Vec<IpAddr>,
    /// Lower case, without the final dot.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the lines that matter; others are skipped, as every resolver does.
    ///
    /// # Source
    /// resolv.conf(5).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    let room = conf.servers.len() < DNS_SERVERS_MAX;
                    conf.servers.extend(server.filter(|_| room));
                }
                // The last of them counts.
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_matches('.').to_ascii_lowercase());
                    conf.search = domains.filter(|domain| !domain.is_empty()).collect();
                }
                _ => {}
            }
        }
        conf
    }

    /// The file's content; nothing when it cannot be read.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "name servers cannot be read");
                Self::default()
            }
        }
    }
}

/// The name servers of a file that may change, or a fixed list. Clones share what was read.
#[derive(Clone, Debug)]
pub struct NameServers {
    path: Option<PathBuf>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    servers: Arc<[SocketAddr]>,
    modified: Option<SystemTime>,
    checked: Instant,
}

impl NameServers {
    /// Always these.
    #[must_use]
    pub fn fixed(servers: impl Into<Arc<[SocketAddr]>>) -> Self {
        let known = Known { servers: servers.into(), modified: None, checked: Instant::now() };
        Self { path: None, known: Arc::new(Mutex::new(known)) }
    }

    /// Those of a `resolv.conf`, read again when it changes.
    #[must_use]
    pub fn of_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let known = Known { servers: load(&path), modified: modified(&path), checked: Instant::now() };
        Self { path: Some(path), known: Arc::new(Mutex::new(known)) }
    }

    /// Those that are to be asked now, in order.
    #[must_use]
    pub fn current(&self) -> Arc<[SocketAddr]> {
        let mut known = self.known();
        if let Some(path) = &self.path
            && known.checked.elapsed() >= DNS_RELOAD_PAUSE
        {
            known.checked = Instant::now();
            let modified = modified(path);
            if modified != known.modified {
                known.modified = modified;
                let servers = load(path);
                // A file that is being replaced may be empty or away for a moment.
                if !servers.is_empty() {
                    known.servers = servers;
                }
            }
        }
        Arc::clone(&known.servers)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(path: &Path) -> Arc<[SocketAddr]> {
    let servers = ResolvConf::load(path).servers;
    if servers.is_empty() {
        tracing::warn!(path = %path.display(), "no name server is named: names outside the mesh cannot be resolved");
    }
    servers.into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_resolv_conf_that_matter_are_read() {
        let text = "# comment\n; another\nsearch old.example\nnameserver 10.96.0.10 # why not\nnameserver bad\n\
            nameserver fd00::10\n  search Shop.svc.Cluster.local. svc.cluster.local .\noptions ndots:5\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.servers, ["10.96.0.10", "fd00::10"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(conf.search, ["shop.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
        let many: String = (0..20).map(|n| format!("nameserver 10.0.0.{n}\n")).collect();
        assert_eq!(ResolvConf::parse(&many).servers.len(), DNS_SERVERS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_and_a_missing_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let servers = NameServers::of_file(&path);
        let of = |ip: &str| vec![format!("{ip}:53").parse::<SocketAddr>().unwrap()];
        assert_eq!(*servers.current(), of("10.0.0.1"));
        std::fs::write(&path, "nameserver 10.0.0.2\n").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(*servers.current(), of("10.0.0.1"), "not looked at for every query");
        tokio::time::advance(DNS_RELOAD_PAUSE).await;
        assert_eq!(*servers.current(), of("10.0.0.2"));
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(DNS_RELOAD_PAUSE).await;
        assert_eq!(*servers.current(), of("10.0.0.2"));
    }
}
