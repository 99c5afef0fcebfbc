//! Publishes and consumes on AMQP at the same time, as `RabbitMQ`'s own `PerfTest` does, and counts what the broker's
//! processor spends on a message.
//!
//! The client is Kiln's own, so both brokers are measured with the same one. Without `--connect` it starts a broker in
//! another process, on a directory that is removed afterwards, and then Debian's `RabbitMQ` where it is installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kiln_amqp::client::{Channel, Client, Endpoint};
use kiln_amqp::wire::{Properties, QueueDeclare, ShortStr};
use kiln_amqp::{AmqpMachine, Broker, Settings};
use kiln_auth::{Auth, AuthMachine};
use kiln_log::Volume;
use kiln_store::Store;
use kiln_world::{RealClock, RealDisk, RealRng};
use serde_json::{Value, json};

use crate::own::{self, Own, cpu_time};
use crate::rabbitmq::RabbitMq;

/// The peer is about ten times slower, and gets as much less to do.
const PEER_SHARE: u64 = 8;

/// What is measured, and against whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A broker that is running: HOST:PORT.
    #[arg(long)]
    connect: Option<String>,
    /// Its process, to count its processor time.
    #[arg(long)]
    pid: Option<u32>,
    /// Be the broker: serve this directory on a free port.
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
    /// Where the own broker keeps its data.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Messages of the fastest run; the others take a share of it.
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Runs of each kind; the median is printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// One way to publish and consume.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    bytes: usize,
    durable: bool,
    /// Confirms outstanding; 0 is publishing without confirms.
    confirms: usize,
    /// The consumer's prefetch; 0 is consuming without acknowledgements.
    prefetch: u16,
    pairs: usize,
    /// Share of the messages, so that slow ways end too.
    share: f64,
}

const LOADS: [Load; 5] = [
    Load {
        name: "16 B, auto-ack",
        bytes: 16,
        durable: false,
        confirms: 0,
        prefetch: 0,
        pairs: 1,
        share: 1.0,
    },
    Load { name: "16 B, acks", bytes: 16, durable: false, confirms: 0, prefetch: 500, pairs: 1, share: 0.5 },
    Load {
        name: "1 KiB, auto-ack",
        bytes: 1024,
        durable: false,
        confirms: 0,
        prefetch: 0,
        pairs: 1,
        share: 0.5,
    },
    Load {
        name: "1 KiB durable, confirms, acks",
        bytes: 1024,
        durable: true,
        confirms: 1000,
        prefetch: 500,
        pairs: 1,
        share: 0.2,
    },
    Load {
        name: "the same, 4 pairs",
        bytes: 1024,
        durable: true,
        confirms: 1000,
        prefetch: 500,
        pairs: 4,
        share: 0.2,
    },
];

/// Runs the benchmark, or the broker of one.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(dir) = &args.serve {
        return runtime.block_on(serve(dir));
    }
    let mut brokers = Vec::new();
    if let Some(address) = &args.connect {
        brokers.push(runtime.block_on(all_loads(args, "given", address, args.pid, args.messages))?);
    } else {
        let own = Own::start("amqp", &args.dir)?;
        brokers.push(runtime.block_on(all_loads(
            args,
            "kiln",
            own.address(),
            Some(own.pid()),
            args.messages,
        ))?);
        drop(own);
        match RabbitMq::start(&args.dir)? {
            Some(peer) => {
                let (address, messages) = (peer.address.to_string(), args.messages / PEER_SHARE);
                let rows = all_loads(args, "rabbitmq", &address, Some(peer.pid()), messages);
                brokers.push(runtime.block_on(rows)?);
            }
            None => eprintln!("no peer: Debian's package rabbitmq-server is not installed"),
        }
    }
    if args.json {
        println!("{}", json!({ "amqp": brokers }));
    }
    Ok(())
}

/// Measures every load against one broker.
async fn all_loads(
    args: &Args,
    broker: &str,
    address: &str,
    pid: Option<u32>,
    messages: u64,
) -> Result<Value> {
    let mut rows = Vec::new();
    for load in LOADS {
        let mut results = Vec::new();
        for _ in 0..args.runs.max(1) {
            let count = (messages as f64 * load.share) as u64 / load.pairs as u64;
            results.push(measure(address, pid, load, count).await?);
        }
        results.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let median = results.swap_remove(results.len() / 2);
        if !args.json {
            print_row(broker, load.name, &median);
        }
        rows.push(json!({
            "name": load.name,
            "messages_per_second": median.per_second,
            "broker_cpu_us_per_message": median.cpu_us,
        }));
    }
    Ok(json!({ "broker": broker, "loads": rows }))
}

struct Measured {
    per_second: f64,
    cpu_us: Option<f64>,
}

fn print_row(broker: &str, name: &str, measured: &Measured) {
    let cpu = measured.cpu_us.map_or_else(String::new, |us| format!("{us:8.2} us of broker CPU each"));
    println!("{broker:9} {name:30} {:10.0} messages/s {cpu}", measured.per_second);
}

async fn measure(address: &str, pid: Option<u32>, load: Load, count: u64) -> Result<Measured> {
    let cpu_before = pid.map(cpu_time).transpose()?;
    let begun = Instant::now();
    let mut pairs = Vec::new();
    for n in 0..load.pairs {
        let queue = format!("bench-{}-{n}", std::process::id());
        pairs.push(tokio::spawn(pair(address.to_owned(), queue, load, count)));
    }
    for pair in pairs {
        pair.await??;
    }
    let took = begun.elapsed();
    let total = count * load.pairs as u64;
    let cpu =
        pid.map(cpu_time).transpose()?.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    Ok(Measured {
        per_second: total as f64 / took.as_secs_f64(),
        cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / total as f64),
    })
}

/// One publisher, one queue, one consumer.
async fn pair(address: String, queue: String, load: Load, count: u64) -> Result<()> {
    let endpoint = Endpoint::guest(address);
    let control = Client::connect(&endpoint).await?;
    let setup = control.channel().await?;
    let name = ShortStr::try_from(queue.as_str())?;
    setup
        .declare_queue(QueueDeclare { queue: name, durable: load.durable, ..QueueDeclare::default() })
        .await?;
    let publisher = Client::connect(&endpoint).await?;
    let consumer = Client::connect(&endpoint).await?;
    let consuming = tokio::spawn(consume(consumer, queue.clone(), load, count));
    publish(&publisher.channel().await?, &queue, load, count).await?;
    consuming.await??;
    setup.delete_queue(&queue).await?;
    Ok(())
}

async fn publish(channel: &Channel, queue: &str, load: Load, count: u64) -> Result<()> {
    let properties = if load.durable { Properties::persistent() } else { Properties::default() }.encode();
    let (exchange, key) = (ShortStr::default(), ShortStr::try_from(queue)?);
    let body = vec![b'x'; load.bytes];
    if load.confirms == 0 {
        for _ in 0..count {
            channel.publish(&exchange, &key, &properties, &body).await?;
        }
        return Ok(());
    }
    channel.confirm_select().await?;
    let mut outstanding = std::collections::VecDeque::new();
    for _ in 0..count {
        if outstanding.len() >= load.confirms
            && let Some(oldest) = outstanding.pop_front()
        {
            let oldest: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = oldest;
            oldest.await?;
        }
        let confirmed = channel.publish_confirmed(&exchange, &key, &properties, &body).await?;
        outstanding.push_back(Box::pin(confirmed));
    }
    for confirmed in outstanding {
        confirmed.await?;
    }
    Ok(())
}

async fn consume(client: Client, queue: String, load: Load, count: u64) -> Result<()> {
    let channel = client.channel().await?;
    channel.qos(load.prefetch, false).await?;
    let mut consumer = channel.consume(&queue, load.prefetch == 0).await?;
    let mut messages = Vec::new();
    let mut seen = 0;
    while seen < count {
        seen += consumer.next_many(&mut messages, 4096).await? as u64;
        for message in messages.drain(..) {
            ensure!(message.body.len() == load.bytes, "a message of another size");
            if load.prefetch > 0 {
                channel.ack(message.delivery_tag, false)?;
            }
        }
    }
    channel.close().await?;
    Ok(())
}

/// Serves until standard input ends, that is until the benchmark is gone.
async fn serve(dir: &Path) -> Result<()> {
    let volume = Volume::start(Arc::new(RealDisk::new(dir)?), Arc::new(RealClock::new()));
    let store = Store::builder(volume.clone(), "store").machine(AuthMachine).machine(AmqpMachine).open()?;
    let rng = Arc::new(RealRng);
    let auth = Auth::open(store.handle::<AuthMachine>(), rng.clone(), kiln_auth::Settings::default()).await?;
    let broker = Broker::start(volume, store.handle::<AmqpMachine>(), auth, rng, Settings::default()).await?;
    let (_stop, shutdown) = kiln_net::shutdown_pair();
    let handle = broker.serve(tokio::net::TcpListener::bind("127.0.0.1:0").await?, shutdown)?;
    own::announce(handle.address())?;
    own::parent_gone().await;
    handle.drain(Duration::from_secs(1)).await;
    Ok(())
}
