//! Fixtures on real parts: a local Kubernetes of several nodes without Docker, Asterisk from
//! Debian, images made without a registry, network namespaces; on them, pbx-ha as its users install
//! it ([`office`]), what can happen to it ([`scenario`]), and those who use and watch it ([`call`], [`probe`], [`watcher`],
//! [`sidecar_log`]). Used by the tests and by `cargo xtask`. Everything here blocks;
//! an async test calls it through `spawn_blocking`.

pub mod ami;
pub mod asterisk_chroot;
pub mod bare_hosts;
pub mod call;
pub mod care;
pub mod certificate;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod doors;
pub mod failover;
pub mod http;
pub mod images;
pub mod kube_build;
pub mod linux_ha;
pub mod measure;
pub mod netns;
pub mod office;
pub mod packages;
pub mod probe;
pub mod progress;
pub mod scenario;
pub mod sidecar_log;
pub mod sipp;
pub mod slow_path;
pub mod tools;
pub mod watcher;
