//! Asterisk as this node runs it: its configuration ([`config`]), its manager interface ([`ami`]), when a standby's may run
//! ([`supervisor`]), its calls and the end of taking new ones ([`calls`]), what becomes of changed files ([`files`], [`reload`]), and the tasks that wait for it. Which node serves is the core's to say, its process is the guard's.

pub mod ami;
pub mod calls;
pub mod config;
pub mod files;
pub mod reload;
pub mod supervisor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ami::{Ami, AmiError};
use config::{Inputs, Snapshot, Trunks};
use pbx_crds::cluster::TrunkPolicy;
use pbx_crds::sidecar_config::AsteriskConfig;
use tokio::sync::mpsc;

/// AMI accepts connections a little after the process starts.
const CONNECT_RETRY: Duration = Duration::from_millis(10);
const AMI_DEADLINE: Duration = Duration::from_secs(2);
/// A start that takes longer than this is reported; it is waited for all the same.
pub const SLOW_BOOT: Duration = Duration::from_secs(30);
/// Thousands of objects take seconds to read again.
pub const RELOAD_DEADLINE: Duration = Duration::from_secs(30);
/// An orderly end waits this long for the trunks to be told.
const UNREGISTER_DEADLINE: Duration = Duration::from_millis(300);

/// A built configuration, with what is needed to talk to the Asterisk that reads it.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The snapshot.
    pub snapshot: Snapshot,
    secret: String,
}

/// A fully booted Asterisk.
#[derive(Clone)]
pub struct Booted {
    /// The connection to it.
    pub ami: Arc<Ami>,
    /// What it says of itself.
    pub version: Option<String>,
}

/// Builds the configuration directory. Asterisk reads the standby's copy until it is promoted.
pub fn configure(asterisk: &AsteriskConfig) -> Result<Configured, config::ConfigError> {
    let inputs = Inputs {
        defaults_dir: asterisk.defaults_dir.clone(),
        user_dirs: asterisk.user_dirs.clone(),
        out_dir: asterisk.config_dir.clone(),
        trunks: match asterisk.trunks {
            TrunkPolicy::ActiveOnly => Trunks::ActiveOnly,
            TrunkPolicy::Untouched => Trunks::Untouched,
        },
        quick_registration: true,
    };
    std::fs::create_dir_all(&inputs.out_dir).ok();
    let snapshot = config::build(&inputs)?;
    Ok(Configured {
        snapshot,
        secret: config::ami_secret(&inputs.out_dir)?,
    })
}

impl Configured {
    /// Whether Asterisk has anything to read yet; a sidecar that was restarted leaves it as it is.
    pub fn is_linked(&self) -> bool {
        self.snapshot.config_dir.exists()
    }

    /// Lets the next start or reload read the active's copy, or the standby's.
    pub fn link(&self, is_active: bool) {
        if let Err(error) = config::set_trunks(&self.snapshot, is_active) {
            tracing::error!(%error, is_active, "the configuration cannot be switched: trunks stay as they are");
        }
    }

    /// Waits until the Asterisk that was just started is fully booted. Ends only with that; drop it when the process is gone.
    pub async fn boot(self) -> Booted {
        loop {
            if let Ok(booted) = self.try_boot().await {
                return booted;
            }
            tokio::time::sleep(CONNECT_RETRY).await;
        }
    }

    /// Another connection to an Asterisk that is fully booted; nobody sends it events. Each action is answered within `deadline`.
    pub async fn connect_quietly(&self, deadline: Duration) -> Result<Ami, AmiError> {
        let ami = self.connect(deadline, None).await?;
        ami.fully_booted().await?;
        ami.action("Events", &[("EventMask", "off")]).await?;
        Ok(ami)
    }

    /// A connection of a sensor to an Asterisk that is fully booted. Deadlines are the caller's.
    pub async fn connect_sensor(&self) -> Result<ami::QuietAmi, AmiError> {
        let (address, login) = self.manager();
        ami::QuietAmi::connect(address, login).await
    }

    fn manager(&self) -> (SocketAddr, (&str, &str)) {
        let address = SocketAddr::from(([127, 0, 0, 1], config::AMI_PORT));
        (address, (config::AMI_USER, self.secret.as_str()))
    }

    /// Another connection, on which the ends of channels are heard.
    async fn connect(
        &self,
        deadline: Duration,
        hangups: Option<mpsc::Sender<ami::Message>>,
    ) -> Result<Ami, AmiError> {
        let (address, login) = self.manager();
        Ami::connect(address, login, deadline, hangups).await
    }

    async fn try_boot(&self) -> Result<Booted, AmiError> {
        let ami = self.connect(AMI_DEADLINE, None).await?;
        ami.fully_booted().await?;
        let version = ami.version().await.ok();
        Ok(Booted {
            ami: Arc::new(ami),
            version,
        })
    }

    /// The active's Asterisk, which is fully booted, registers its trunks.
    pub async fn register_trunks(self) {
        let modules = self.snapshot.trunks.modules_to_reload();
        if modules.is_empty() {
            return;
        }
        match self.reload(&modules).await {
            Ok(()) => tracing::info!(
                trunks = self.snapshot.trunks.registrations.len(),
                "trunks given"
            ),
            Err(error) => {
                tracing::error!(reason = error.reason(), %error, "trunks could not be given: reload Asterisk by hand");
            }
        }
    }

    /// Lets these modules, or without any all of them, read their files again. With thousands of objects that takes many seconds, for
    /// which the common connection has no patience, and which nobody else must wait for.
    pub async fn reload(&self, modules: &[&str]) -> Result<(), AmiError> {
        let ami = self.connect_quietly(RELOAD_DEADLINE).await?;
        if modules.is_empty() {
            return ami.reload_all().await;
        }
        ami.reload_modules(modules).await
    }

    /// The active's Asterisk takes back its registrations, before it ends as planned.
    pub async fn unregister_trunks(&self, booted: &Booted) {
        let names = &self.snapshot.trunks.registrations;
        if names.is_empty() {
            return;
        }
        let told =
            tokio::time::timeout(UNREGISTER_DEADLINE, booted.ami.unregister_trunks(names)).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::warn!(
                "trunks were not unregistered in time; their bindings expire or are replaced"
            );
        }
    }
}
