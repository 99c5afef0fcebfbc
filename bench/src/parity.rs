//! Parity of RAIDZ stripes on one thread, beside copying the same bytes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use kiln_pool::parity::{generate, reconstruct};
use serde_json::json;

/// A record of the pool.
const RECORD_BYTES: usize = 128 << 10;
/// Records that are worked on in turn, so that they come from memory and not from the processor's caches.
const RECORDS: usize = 512;
/// Parity, and the data disks that go with it.
const LAYOUTS: [(usize, usize); 3] = [(1, 4), (2, 8), (3, 8)];

/// How long to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each figure
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Gigabytes of data per second that `act` works off, a record each time.
fn rate(args: &Args, mut act: impl FnMut(usize)) -> f64 {
    let begun = Instant::now();
    let mut records = 0;
    while begun.elapsed() < Duration::from_secs_f64(args.seconds) {
        act(records % RECORDS);
        records += 1;
    }
    (records * RECORD_BYTES) as f64 / begun.elapsed().as_secs_f64() / 1e9
}

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let data: Vec<u8> = (0..RECORDS * RECORD_BYTES).map(|at| (at ^ (at >> 8)) as u8).collect();
    let record = |index: usize| &data[index * RECORD_BYTES..(index + 1) * RECORD_BYTES];
    let mut copied = vec![0; RECORD_BYTES];
    let copy = rate(args, |index| {
        copied.copy_from_slice(record(index));
        black_box(&copied);
    });
    let mut rows = Vec::new();
    for (parity, disks) in LAYOUTS {
        let column_bytes = RECORD_BYTES / disks;
        let mut columns = vec![vec![0; column_bytes]; parity];
        let made = rate(args, |index| {
            let data: Vec<&[u8]> = record(index).chunks(column_bytes).collect();
            generate(&data, &mut columns.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
            black_box(&columns);
        });
        let first: Vec<&[u8]> = record(0).chunks(column_bytes).collect();
        generate(&first, &mut columns.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        let there: Vec<Option<&[u8]>> = columns.iter().map(|column| Some(&column[..])).collect();
        let lost: Vec<usize> = (0..parity).collect();
        let mended = rate(args, |_| {
            black_box(reconstruct(&first, &lost, &there)).expect("there is enough parity");
        });
        rows.push((parity, disks, made, mended));
    }
    if args.json {
        let rows = rows.iter().map(|(parity, disks, made, mended)| {
            json!({ "parity": parity, "data_disks": disks, "generate_gb_s": made, "reconstruct_gb_s": mended })
        });
        println!("{}", json!({ "copy_gb_s": copy, "layouts": rows.collect::<Vec<_>>() }));
        return;
    }
    println!(
        "records of {} KiB, GB of data a second, one thread; copying them: {copy:.1}",
        RECORD_BYTES >> 10
    );
    println!("{:<16}{:>12}{:>24}", "", "generate", "reconstruct all it can");
    for (parity, disks, made, mended) in rows {
        println!("{:<16}{made:>12.1}{mended:>24.2}", format!("RAIDZ{parity} {disks}+{parity}"));
    }
}
