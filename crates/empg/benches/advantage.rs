//! Modulating a batch in memory: 512 trajectories × 4,096 tokens × 25 steps.
#![allow(missing_docs)]

use std::hint::black_box;
use std::ops::Range;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use empg::{Base, EmpgOptions, Real, StepSpans, TokenRows};

const ROWS: usize = 512;
const WIDTH: usize = 4096;
const STEPS: usize = 25;

/// Steps of 80 to 119 tokens with observations of 40 to 59 between them.
fn steps() -> StepSpans {
    let rows = (0..ROWS).map(|row| {
        (0..STEPS).map(move |step| -> Range<usize> {
            let start = step * 160 + (row * 7 + step * 3) % 20;
            start..start + 80 + (row * 13 + step * 11) % 40
        })
    });
    StepSpans::new(TokenRows::padded(ROWS, WIDTH), rows).expect("steps lie in their rows")
}

fn values<T: Real>() -> (Vec<T>, Vec<T>) {
    let mut state = 1u64;
    let entropy = (0..ROWS * WIDTH)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            T::nearest((state >> 40) as f64 / (1 << 24) as f64)
        })
        .collect();
    let advantages = (0..ROWS * WIDTH)
        .map(|token| T::nearest(if (token / WIDTH).is_multiple_of(2) { 0.94 } else { -0.94 }))
        .collect();
    (entropy, advantages)
}

fn of_type<T: Real>(c: &mut Criterion, name: &str) {
    let steps = steps();
    let (entropy, advantages) = values::<T>();
    let per_row: Vec<T> = advantages.iter().copied().step_by(WIDTH).collect();
    let mut out = vec![T::ZERO; ROWS * WIDTH];
    let options = EmpgOptions::default();
    let mut group = c.benchmark_group(format!("advantage/{name}"));
    group.throughput(Throughput::Elements((ROWS * WIDTH) as u64));
    for threads in [1, 2] {
        group.bench_function(format!("into/{threads}-threads"), |b| {
            b.iter(|| {
                let base = Base::Rows(&per_row);
                let credit = options
                    .modulate_tokens_into(&steps, &entropy, base, black_box(&mut out), threads)
                    .expect("finite values");
                black_box(credit)
            });
        });
        group.bench_function(format!("in-place/{threads}-threads"), |b| {
            b.iter_batched_ref(
                || advantages.clone(),
                |advantages| {
                    let credit = options
                        .modulate_tokens(&steps, &entropy, advantages, threads)
                        .expect("finite values");
                    black_box(credit)
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn mask_scan(c: &mut Criterion) {
    let steps = steps();
    let mut mask = vec![0u8; ROWS * WIDTH];
    for row in 0..ROWS {
        for span in steps.of_row(row) {
            mask[row * WIDTH..][span.clone()].fill(1);
        }
    }
    c.bench_function("steps-from-mask", |b| {
        b.iter(|| StepSpans::from_mask(TokenRows::padded(ROWS, WIDTH), black_box(&mask)));
    });
}

fn advantage(c: &mut Criterion) {
    of_type::<f32>(c, "f32");
    of_type::<f64>(c, "f64");
    mask_scan(c);
}

criterion_group!(benches, advantage);
criterion_main!(benches);
