//! The broker alone, for trying it: `amqp_serve DIRECTORY [ADDRESS]`. Prints the address it listens on; ends at Ctrl-C.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use kiln_amqp::{AmqpMachine, Broker, Settings};
use kiln_auth::{Auth, AuthMachine};
use kiln_log::Volume;
use kiln_store::Store;
use kiln_world::{RealClock, RealDisk, RealRng};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("use: amqp_serve DIRECTORY [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());

    let volume = Volume::start(Arc::new(RealDisk::new(directory)?), Arc::new(RealClock::new()));
    let store = Store::builder(volume.clone(), "store").machine(AuthMachine).machine(AmqpMachine).open()?;
    let rng = Arc::new(RealRng);
    let auth = Auth::open(store.handle::<AuthMachine>(), rng.clone(), kiln_auth::Settings::default()).await?;
    let broker = Broker::start(volume, store.handle::<AmqpMachine>(), auth, rng, Settings::default()).await?;

    let (_stop, shutdown) = kiln_net::shutdown_pair();
    let handle = broker.serve(TcpListener::bind(address).await?, shutdown)?;
    println!("{}", handle.address());
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    handle.drain(Duration::from_secs(5)).await;
    Ok(())
}
