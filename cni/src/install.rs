//! Gets the plugin onto the node, keeps it there, and takes it away when the mesh is uninstalled.

pub mod binaries;
pub mod conflist;
pub mod file;
pub mod kubeconfig;
pub mod shutdown;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_telemetry::ready::Gate;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::metrics::{InstallResult, Metrics};
use conflist::{Entry, Selection};
use mesh_sys::watch::Watch;

/// Installs and repairs. Clones share what has been installed.
#[derive(Debug, Clone)]
pub struct Installer {
    settings: Arc<Settings>,
    metrics: Metrics,
    done: Arc<Mutex<Installed>>,
}

/// What the installer works on.
#[derive(Debug)]
struct Settings {
    image_bin: PathBuf,
    host_bin: PathBuf,
    net_dir: PathBuf,
    run_dir: PathBuf,
    service_account: PathBuf,
    conf_name: Option<String>,
    entry: Entry,
    api_server: Result<String, String>,
}

/// What is on the node because of us.
#[derive(Debug, Default)]
struct Installed {
    binaries: Vec<String>,
    conflist: Option<PathBuf>,
}

/// Why the plugin is not installed. All are retried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Copying the plugin.
    #[error("copying plugin binaries: {0}")]
    Binaries(String),
    /// Writing the plugin's credentials.
    #[error("writing the plugin's kubeconfig: {0}")]
    Kubeconfig(String),
    /// Extending the node's CNI configuration.
    #[error("extending the CNI configuration: {0}")]
    Conflist(String),
}

impl Installer {
    /// For the node that `config` describes; nothing is written yet.
    #[must_use]
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        let settings = Settings {
            image_bin: config.paths.image_bin.clone(),
            host_bin: config.paths.host_bin.clone(),
            net_dir: config.paths.net_dir.clone(),
            run_dir: config.paths.run_dir.clone(),
            service_account: config.paths.service_account.clone(),
            conf_name: config.conf_name.clone(),
            entry: Entry::new(config),
            api_server: config.api_server.clone(),
        };
        Self { settings: Arc::new(settings), metrics, done: Arc::default() }
    }

    /// Installs, then repairs whatever changes, until the future is dropped. `ready` says whether all is well.
    pub async fn run(self, mut ready: Gate) {
        let mut repairs = Repairs::default();
        loop {
            // Watching begins before looking, so that nothing can change unseen in between.
            let watch = match Watch::new(&self.watched()) {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::warn!(target: SCOPE, %error, "cannot watch the node's directories, trying again");
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
            };
            if self.is_valid() {
                self.set_ready(&mut ready, true);
                watch.changed().await;
                // Several files change together.
                sleep(SETTLE_PAUSE).await;
                if !self.is_valid() {
                    self.set_ready(&mut ready, false);
                    repairs.note(Instant::now()).await;
                }
                continue;
            }
            self.set_ready(&mut ready, false);
            match self.install() {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!(target: SCOPE, dir = %self.settings.net_dir.display(), "waiting for the node's CNI configuration");
                    watch.changed().await;
                }
                Err(error) => {
                    tracing::error!(target: SCOPE, %error, "installing the plugin failed, trying again");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Takes the plugin off the node: first out of the configuration, so that nobody calls what is not there.
    pub fn remove(&self) {
        let done = std::mem::take(&mut *self.lock());
        let settings = &self.settings;
        let conflist =
            done.conflist.or_else(|| match conflist::select(&settings.net_dir, settings.conf_name.as_deref()) {
                Ok(Selection::Found(path)) => Some(path),
                _ => None,
            });
        let mut problems = Vec::new();
        if let Some(path) = conflist
            && let Err(error) = conflist::withdraw(&path)
        {
            problems.push(error);
        }
        for path in [settings.run_dir.join(crate::event::KUBECONFIG)]
            .into_iter()
            .chain(done.binaries.iter().map(|name| settings.host_bin.join(name)))
        {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    problems.push(format!("{}: {error}", path.display()));
                }
                _ => {}
            }
        }
        for problem in problems {
            tracing::warn!(target: SCOPE, problem, "part of the plugin stays on the node");
        }
        tracing::info!(target: SCOPE, "plugin removed from the node");
    }

    /// Does everything once. `false`: the node has no CNI configuration yet.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn install(&self) -> Result<bool, InstallError> {
        let result = self.install_parts();
        let label = match &result {
            Ok(true) => "SUCCESS",
            Ok(false) => return result,
            Err(InstallError::Binaries(_)) => "COPY_BINARIES_FAILURE",
            Err(InstallError::Kubeconfig(_)) => "CREATE_KUBECONFIG_FAILURE",
            Err(InstallError::Conflist(_)) => "CREATE_CNI_CONFIG_FAILURE",
        };
        self.metrics.installs.get_or_create(&InstallResult { result: label }).inc();
        result
    }

    fn install_parts(&self) -> Result<bool, InstallError> {
        let settings = &self.settings;
        let copied = binaries::copy_all(&settings.image_bin, &settings.host_bin).map_err(InstallError::Binaries)?;
        self.lock().binaries = copied;
        let text = self.kubeconfig().map_err(InstallError::Kubeconfig)?;
        file::replace(&settings.run_dir.join(crate::event::KUBECONFIG), text.as_bytes(), KUBECONFIG_MODE)
            .map_err(|error| InstallError::Kubeconfig(error.to_string()))?;
        let selection = conflist::select(&settings.net_dir, settings.conf_name.as_deref());
        let Selection::Found(primary) = selection.map_err(InstallError::Conflist)? else { return Ok(false) };
        let written = conflist::extend(&primary, &settings.entry).map_err(InstallError::Conflist)?;
        tracing::info!(target: SCOPE, conflist = %written.display(), "plugin installed");
        self.lock().conflist = Some(written);
        Ok(true)
    }

    /// Whether everything is on the node as we would write it now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let settings = &self.settings;
        let done = self.lock();
        let Some(conflist) = &done.conflist else { return false };
        let primary = conflist::select(&settings.net_dir, settings.conf_name.as_deref());
        let kubeconfig = std::fs::read_to_string(settings.run_dir.join(crate::event::KUBECONFIG)).ok();
        primary.is_ok_and(|selection| selection == Selection::Found(conflist.clone()))
            && conflist::is_extended(conflist, &settings.entry)
            && kubeconfig.is_some_and(|found| self.kubeconfig().is_ok_and(|wanted| wanted == found))
            && done
                .binaries
                .iter()
                .all(|name| binaries::is_same(&settings.image_bin.join(name), &settings.host_bin.join(name)))
    }

    fn kubeconfig(&self) -> Result<String, String> {
        let server = self.settings.api_server.as_ref().map_err(Clone::clone)?;
        kubeconfig::text(server, &self.settings.service_account)
    }

    fn watched(&self) -> [&std::path::Path; 3] {
        [&self.settings.host_bin, &self.settings.net_dir, &self.settings.service_account]
    }

    fn set_ready(&self, gate: &mut Gate, ready: bool) {
        gate.set(ready);
        self.metrics.install_ready.set(i64::from(ready));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Installed> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notices when another program keeps undoing our work.
#[derive(Debug, Default)]
struct Repairs {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Repairs {
    async fn note(&mut self, now: Instant) {
        let close = self.last.is_some_and(|last| now.duration_since(last) < FIGHT_WINDOW);
        self.in_a_row = if close { self.in_a_row + 1 } else { 0 };
        self.last = Some(now);
        if !close {
            return;
        }
        if self.in_a_row > FIGHT_LIMIT {
            tracing::warn!(target: SCOPE, repairs = self.in_a_row,
                "something keeps removing the plugin from the CNI configuration; with Cilium set cni.exclusive=false");
        }
        sleep(FIGHT_PAUSE).await;
    }
}

/// Log scope.
pub(crate) const SCOPE: &str = "cni-agent::install";
/// The kubeconfig holds a token.
const KUBECONFIG_MODE: u32 = 0o600;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Long enough for one writer to finish, short enough to be back within a second.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Repairs closer together than this look like a fight.
const FIGHT_WINDOW: Duration = Duration::from_secs(5);
const FIGHT_LIMIT: u32 = 5;
const FIGHT_PAUSE: Duration = Duration::from_millis(500);
