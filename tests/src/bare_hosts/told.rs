//! What a bare host's sidecar tells: over HTTP, asked on the host itself, and in its log.

use std::fs;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pbx_crds::names::HTTP_PORT;
use pbx_crds::report::Report;
use pbx_crds::status::LinkState;

use super::{BareHosts, name_of};
use crate::clock::Moment;
use crate::http;
use crate::sidecar_log::notice_in;

/// How often a log is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl BareHosts {
    /// What the sidecar of a host says, asked on the host itself.
    pub fn report(&self, index: usize) -> Result<Report> {
        serde_json::from_str(&self.ask(index, "/status")?).context("read the report")
    }

    /// The names of a host's links in one state.
    pub fn links(&self, index: usize, state: LinkState) -> Result<Vec<String>> {
        let links = self.report(index)?.links.into_iter();
        Ok(links
            .filter(|link| link.state == state)
            .map(|link| link.name)
            .collect())
    }

    /// The round-trip times of a host's links, in milliseconds.
    pub fn round_trips(&self, index: usize) -> Result<Vec<(String, f64)>> {
        self.link_times(index, "roundTripMs")
    }

    /// How much they vary, in milliseconds.
    pub fn jitters(&self, index: usize) -> Result<Vec<(String, f64)>> {
        self.link_times(index, "jitterMs")
    }

    fn link_times(&self, index: usize, what: &str) -> Result<Vec<(String, f64)>> {
        let status: serde_json::Value = serde_json::from_str(&self.ask(index, "/status")?)?;
        let times = status["linkTimes"].as_array().context("no linkTimes")?;
        let times = times.iter().filter_map(|link| {
            let name = link["name"].as_str()?.to_owned();
            Some((name, link[what].as_f64()?))
        });
        Ok(times.collect())
    }

    /// The metrics of a host.
    pub fn metrics(&self, index: usize) -> Result<String> {
        self.ask(index, "/metrics")
    }

    /// When the core of one of these hosts decided to serve under an epoch above `epoch`, as its log has it; waits for it.
    pub fn wait_promotion(&self, among: &[usize], epoch: i64, limit: Duration) -> Result<Moment> {
        let deadline = Instant::now() + limit;
        loop {
            // The log has the moment: who looks meanwhile takes the processor from what is timed.
            std::thread::sleep(LOOK_EVERY);
            for index in among {
                if let Some(at) = self.promotion(*index, epoch)? {
                    return Ok(at);
                }
            }
            ensure!(
                Instant::now() < deadline,
                "nobody was promoted in {limit:?}"
            );
        }
    }

    fn promotion(&self, index: usize, epoch: i64) -> Result<Option<Moment>> {
        let path = self.home(index).join("sidecar.log");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let node = name_of(index);
        let notices = text.lines().filter_map(|line| notice_in(&node, line));
        let mut promotions = notices.filter(|notice| notice.kind == "Promoted");
        let found = promotions.find(|notice| notice.epoch.is_some_and(|of| of > epoch));
        Ok(found.map(|notice| notice.at))
    }

    fn ask(&self, index: usize, path: &str) -> Result<String> {
        let host = &self.lan.hosts()[index];
        let address = SocketAddrV4::new(host.address, HTTP_PORT);
        http::get(&host.path(), address, path)
    }
}
