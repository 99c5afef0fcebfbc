//! How many commands per second a store takes, and what a read costs, on the disk under the directory given.
//!
//! `cargo run --release -p kiln-store --example submits -- DIR`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kiln_log::Volume;
use kiln_store::{Handle, Machine, Store, Tables};
use kiln_types::Timestamp;
use kiln_world::{RealClock, RealDisk};

const MEASURE_FOR: Duration = Duration::from_secs(3);

/// Puts 100 bytes at one of a million keys.
struct Puts;

impl Machine for Puts {
    const NAME: &'static str = "puts";
    type Command = (u32, Vec<u8>);
    type Reply = ();
    type Rejection = std::convert::Infallible;

    fn apply(
        &self,
        tables: &mut Tables<'_>,
        (key, value): (u32, Vec<u8>),
        _: Timestamp,
    ) -> Result<(), Self::Rejection> {
        tables.put("rows", &key.to_be_bytes(), &value);
        Ok(())
    }
}

async fn submit_for(handle: Handle<Puts>, start: u32) -> u64 {
    let (started, mut count, mut key) = (Instant::now(), 0, start);
    while started.elapsed() < MEASURE_FOR {
        key = key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        handle.submit((key % 1_000_000, vec![7; 100])).await.expect("the store takes commands");
        count += 1;
    }
    count
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).ok_or("usage: submits DIR")?;
    let volume = Volume::start(Arc::new(RealDisk::new(root)?), Arc::new(RealClock::new()));
    let store = Store::builder(volume.clone(), "submits").machine(Puts).open()?;
    let handle = store.handle::<Puts>();
    for callers in [1_u32, 16, 256, 4096] {
        let started = Instant::now();
        let tasks = (0..callers).map(|caller| tokio::spawn(submit_for(handle.clone(), caller)));
        let counts: Result<Vec<u64>, _> = join_all(tasks).await.into_iter().collect();
        let rate = counts?.iter().sum::<u64>() as f64 / started.elapsed().as_secs_f64();
        println!("{callers:5} callers: {rate:9.0} commands/s");
    }
    let (started, mut reads) = (Instant::now(), 0_u32);
    while started.elapsed() < MEASURE_FOR {
        black_box(handle.read().get::<Vec<u8>>("rows", &(reads % 1_000_000).to_be_bytes())?);
        reads += 1;
    }
    println!("snapshot and get: {:.2} us", started.elapsed().as_secs_f64() * 1e6 / f64::from(reads));
    store.close()?;
    volume.close();
    Ok(())
}
