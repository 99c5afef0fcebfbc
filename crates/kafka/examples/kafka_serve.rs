//! A broker on its own: `cargo run --example kafka_serve -- DIR PORT`. Ends at SIGINT or SIGTERM.

use kiln_auth::{Auth, AuthMachine};
use kiln_kafka::{Broker, KafkaMachine, Parts, Settings};
use kiln_log::Volume;
use kiln_store::Store;
use kiln_world::{RealClock, RealDisk, RealRng};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(port)) = (args.next(), args.next()) else {
        return Err("give a directory and a port".into());
    };
    std::fs::create_dir_all(&dir)?;
    let volume = Volume::start(Arc::new(RealDisk::new(&dir)?), Arc::new(RealClock::new()));
    let store = Store::builder(volume.clone(), "store").machine(KafkaMachine).machine(AuthMachine).open()?;
    let auth = Auth::open(store.handle(), Arc::new(RealRng), kiln_auth::Settings::default()).await?;
    let parts = Parts { volume, store: store.handle(), auth: Some(auth), rng: Arc::new(RealRng) };
    let broker = Broker::start(parts, Settings::default()).await?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let (_trigger, shutdown) = kiln_net::shutdown_pair();
    let handle = broker.serve(listener, shutdown);
    if let Some(address) = handle.address() {
        println!("{address}");
    }
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    let cut = handle.drain(Duration::from_secs(5)).await;
    eprintln!("drained, {cut} connections cut");
    Ok(())
}
