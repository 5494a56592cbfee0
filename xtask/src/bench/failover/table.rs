//! Figures of the failover benchmark: what was measured of each system, beside its peer, as JSON and Markdown. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use pbx_tests::failover::Run;
use pbx_tests::failover::cost::Cost;
use serde::Serialize;

use super::plan::{COST_PEER, DEFAULTS, Figure, Goal, PEER, SHORTEST, System};

/// The peer's time and this much is allowed with the shortest deadtime.
const ALLOWANCE_MS: f64 = 10.0;
/// What a node may cost with the default timings.
const MOST_CPU_S_PER_H: f64 = 5.0;
const MOST_RSS_MIB: f64 = 10.0;

/// All runs.
#[derive(Default)]
pub(super) struct Measured {
    runs: BTreeMap<(&'static str, &'static str), Vec<Run>>,
    costs: BTreeMap<&'static str, Cost>,
    failures: BTreeMap<(&'static str, &'static str), Vec<String>>,
}

/// One figure of one system.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) figure: &'static str,
    pub(super) system: &'static str,
    pub(super) unit: &'static str,
    /// Runs on a machine that was not too busy to ask.
    pub(super) n: usize,
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
    /// Answers by two nodes at the same time, in all runs.
    pub(super) dual: usize,
    /// Runs in which another node served.
    pub(super) moved: usize,
    /// The peer's median in the same run of the benchmark.
    pub(super) peer: Option<f64>,
    pub(super) ratio: Option<f64>,
    pub(super) goal: String,
    pub(super) met: Option<bool>,
    /// Runs left out since the machine was too busy to ask.
    pub(super) stalled: usize,
    pub(super) values: Vec<f64>,
    pub(super) failures: Vec<String>,
}

impl Measured {
    pub(super) fn note(&mut self, system: &'static str, figure: &'static str, run: Run) {
        self.runs.entry((figure, system)).or_default().push(run);
    }

    pub(super) fn note_cost(&mut self, system: &'static str, cost: Cost) {
        self.costs.insert(system, cost);
    }

    pub(super) fn note_failure(&mut self, system: &'static str, figure: &'static str, why: &str) {
        self.failures
            .entry((figure, system))
            .or_default()
            .push(why.to_owned());
    }

    /// A row for each figure and system of which a run was made, the systems of a figure together.
    pub(super) fn rows(
        &self,
        systems: &[&'static System],
        figures: &[&'static Figure],
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        for figure in figures {
            for system in systems {
                rows.extend(self.row(figure, system));
            }
        }
        for system in systems {
            rows.extend(self.cost_rows(system).into_iter().flatten());
        }
        rows
    }

    fn row(&self, figure: &'static Figure, system: &'static System) -> Option<Row> {
        let key = (figure.name, system.name);
        let failures = self.failures.get(&key).cloned().unwrap_or_default();
        let runs = self.runs.get(&key).map_or(&[][..], Vec::as_slice);
        if runs.is_empty() && failures.is_empty() {
            return None;
        }
        let quiet: Vec<&Run> = runs.iter().filter(|run| !run.is_stalled).collect();
        let values: Vec<f64> = quiet.iter().map(|run| run.gap_ms).collect();
        let peer = self.peer_median(figure.name).filter(|_| system.is_ours);
        let moved = runs.iter().filter(|run| run.has_moved).count();
        let dual = runs.iter().map(|run| run.by_two).sum();
        let mut row = Row {
            stalled: runs.len() - quiet.len(),
            dual,
            moved,
            failures,
            ..row_of(figure.name, system.name, "ms", values, peer)
        };
        if system.is_ours {
            let goal = limit_ms(figure.goal, system.name, peer);
            let wanted = figure.moves_of(system.name);
            row.goal = goal_text(figure, goal, wanted);
            let is_moved_right =
                wanted.is_none_or(|moves| (moved == runs.len()) == moves || (!moves && moved == 0));
            let compared = if matches!(figure.goal, Goal::HalfOfPeer(_)) {
                row.median
            } else {
                row.max
            };
            let is_quick = goal.is_none_or(|most| compared <= most) && row.n > 0;
            row.met = Some(dual == 0 && is_moved_right && is_quick && row.failures.is_empty());
        }
        Some(row)
    }

    fn peer_median(&self, figure: &'static str) -> Option<f64> {
        let runs = self.runs.get(&(figure, PEER))?;
        let quiet = runs
            .iter()
            .filter(|run| !run.is_stalled)
            .map(|run| run.gap_ms);
        Some(median(&sorted(quiet.collect())))
    }

    fn cost_rows(&self, system: &'static System) -> Option<[Row; 2]> {
        let cost = self.costs.get(system.name)?;
        let is_judged = system.name == DEFAULTS;
        let peer = self.costs.get(COST_PEER).filter(|_| is_judged);
        let mut cpu = row_of(
            "failover.cost_cpu",
            system.name,
            "s/h",
            vec![cost.cpu_s_per_h],
            peer.map(|peer| peer.cpu_s_per_h),
        );
        let mut rss = row_of(
            "failover.cost_rss",
            system.name,
            "MiB",
            vec![cost.rss_mib],
            peer.map(|peer| peer.rss_mib),
        );
        if is_judged {
            let half = peer.map_or(MOST_CPU_S_PER_H, |peer| peer.cpu_s_per_h / 2.0);
            judge(&mut cpu, MOST_CPU_S_PER_H.min(half));
            judge(&mut rss, MOST_RSS_MIB);
        }
        Some([cpu, rss])
    }
}

fn judge(row: &mut Row, most: f64) {
    row.goal = format!("≤ {most:.1} {}", row.unit);
    row.met = Some(row.max <= most);
}

fn row_of(
    figure: &'static str,
    system: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    peer: Option<f64>,
) -> Row {
    let ordered = sorted(values.clone());
    let median = median(&ordered);
    Row {
        figure,
        system,
        unit,
        n: values.len(),
        min: ordered.first().copied().unwrap_or(0.0),
        median,
        max: ordered.last().copied().unwrap_or(0.0),
        dual: 0,
        moved: 0,
        peer,
        ratio: peer.filter(|peer| *peer > 0.0).map(|peer| median / peer),
        goal: String::new(),
        met: None,
        stalled: 0,
        values,
        failures: Vec::new(),
    }
}

fn limit_ms(goal: Goal, system: &str, peer: Option<f64>) -> Option<f64> {
    match goal {
        Goal::None => None,
        Goal::HalfOfPeer(most) => Some(peer.map_or(most, |peer| most.min(peer / 2.0))),
        Goal::Detected(_) if system == SHORTEST => peer.map(|peer| peer + ALLOWANCE_MS),
        Goal::Detected(most) => Some(most),
    }
}

fn goal_text(figure: &Figure, limit: Option<f64>, moves: Option<bool>) -> String {
    let mut words = vec!["dual 0".to_owned()];
    if let Some(limit) = limit {
        let what = if matches!(figure.goal, Goal::HalfOfPeer(_)) {
            "median"
        } else {
            "max"
        };
        words.push(format!("{what} ≤ {limit:.0} ms"));
    }
    match moves {
        Some(true) => words.push("moves".into()),
        Some(false) => words.push("no move".into()),
        None => {}
    }
    words.join(", ")
}

/// A table in Markdown, a line each.
pub(super) fn markdown(rows: &[Row]) -> String {
    let mut table = "| figure | system | runs | min | median | max | unit | dual | moved | × peer | goal | met |\n\
                     |---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let ratio = row
            .ratio
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let n = runs_text(row);
        writeln!(
            table,
            "| `{}` | {} | {n} | {:.1} | {:.1} | {:.1} | {} | {} | {} | {ratio} | {} | {met} |",
            row.figure,
            row.system,
            row.min,
            row.median,
            row.max,
            row.unit,
            row.dual,
            row.moved,
            row.goal
        )
        .expect("a text can grow");
    }
    table
}

fn runs_text(row: &Row) -> String {
    let mut text = row.n.to_string();
    for (count, what) in [(row.stalled, "busy"), (row.failures.len(), "failed")] {
        if count > 0 {
            write!(text, " (+{count} {what})").expect("a text can grow");
        }
    }
    text
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => 0.0,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::failover::plan::{FIGURES, SYSTEMS};

    fn run(gap_ms: f64, by_two: usize, has_moved: bool) -> Run {
        Run {
            gap_ms,
            by_two,
            has_moved,
            is_stalled: false,
        }
    }

    fn kill_row(peer_ms: f64, own: Run) -> Row {
        let ours = SYSTEMS
            .iter()
            .find(|one| one.name == "pbx-ha-300ms")
            .unwrap();
        let kill = FIGURES
            .iter()
            .find(|figure| figure.name == "failover.kill")
            .unwrap();
        let mut measured = Measured::default();
        measured.note(PEER, kill.name, run(peer_ms, 0, true));
        measured.note(ours.name, kill.name, own);
        measured.rows(&[ours], &[kill]).remove(0)
    }

    #[test]
    fn a_goal_is_held_against_the_peer_of_the_same_run() {
        assert_eq!(kill_row(24.0, run(8.0, 0, true)).met, Some(true));
        assert_eq!(kill_row(12.0, run(8.0, 0, true)).met, Some(false));
        assert_eq!(kill_row(90.0, run(11.0, 0, true)).met, Some(false));
    }

    #[test]
    fn an_answer_by_two_or_a_move_that_failed_misses_every_goal() {
        assert_eq!(kill_row(24.0, run(8.0, 1, true)).met, Some(false));
        assert_eq!(kill_row(24.0, run(8.0, 0, false)).met, Some(false));
    }

    #[test]
    fn the_cost_is_held_against_half_of_what_the_peer_costs() {
        let ours = SYSTEMS.iter().find(|one| one.name == DEFAULTS).unwrap();
        let cost = |cpu_s_per_h: f64| Cost {
            cpu_s_per_h,
            rss_mib: 9.0,
        };
        let mut measured = Measured::default();
        measured.note_cost(COST_PEER, cost(8.0));
        measured.note_cost(DEFAULTS, cost(4.5));
        let met: Vec<_> = measured
            .rows(&[ours], &[])
            .iter()
            .map(|row| row.met)
            .collect();
        assert_eq!(met, [Some(false), Some(true)]);
    }

    #[test]
    fn the_table_has_a_line_for_each_row() {
        let table = markdown(&[kill_row(24.0, run(8.0, 0, true))]);
        assert!(
            table
                .lines()
                .last()
                .unwrap()
                .starts_with("| `failover.kill` | pbx-ha-300ms | 1 | 8.0 |"),
            "{table}"
        );
    }
}
