//! What one beat costs in the core: a standby takes the active's beat, renews its vote and answers.
//!
//! `cargo bench -p pbx-core` runs it with criterion, then prints one line of JSON with the allocations counted.

#![allow(clippy::cast_precision_loss, reason = "nanoseconds to print")]

use std::hint::black_box;
use std::time::Instant;

use allocation_counter::measure;
use criterion::Criterion;
use pbx_core::{Body, Epoch};
use pbx_model::desk::Desk;

const BATCHES: usize = 500;
const BEATS_PER_BATCH: u32 = 1_000;

fn beat(desk: &mut Desk) {
    desk.now.0 += 100_000_000;
    desk.hear(1, Epoch(5), Body::Beat { is_active: true });
    black_box(&desk.effects);
}

fn main() {
    let mut desk = Desk::hot_standby(3);
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("core.beat", |bencher| bencher.iter(|| beat(&mut desk)));
    criterion.final_summary();
    print_json(&mut desk);
}

/// Each figure is the mean of a batch: a single beat is shorter than reading the clock.
fn print_json(desk: &mut Desk) {
    let mut nanoseconds = [0.0; BATCHES];
    let counted = measure(|| {
        for batch in &mut nanoseconds {
            let start = Instant::now();
            for _ in 0..BEATS_PER_BATCH {
                beat(desk);
            }
            *batch = start.elapsed().as_nanos() as f64 / f64::from(BEATS_PER_BATCH);
        }
    });
    let allocations = counted.count_total;
    nanoseconds.sort_by(f64::total_cmp);
    let [min, median, max] = [0, BATCHES / 2, BATCHES - 1].map(|at| nanoseconds[at]);
    println!(
        "{{\"name\":\"core.beat_ns\",\"unit\":\"ns\",\"n\":{BATCHES},\"min\":{min:.1},\"median\":{median:.1},\"max\":{max:.1},\"allocations\":{allocations}}}"
    );
}
