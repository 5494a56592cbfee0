//! Fixtures on real parts: a local Kubernetes of several nodes without Docker, Asterisk from
//! Debian, images made without a registry, network namespaces. Used by the tests and by
//! `cargo xtask`. Everything here blocks; an async test calls it through `spawn_blocking`.

pub mod asterisk_chroot;
pub mod cluster;
pub mod images;
pub mod kube_build;
pub mod netns;
pub mod packages;
pub mod progress;
pub mod tools;
