//! `/api/amqp`: the broker's listings, and what an administrator does to a queue.

use hyper::Method;
use kiln_amqp::{BrokerError, Conditions};

use super::{Answer, Routes, done, json, no_route};
use crate::api::ask::{Ask, Fault};
use crate::api::model::Listing;

impl Routes {
    pub(super) async fn broker(&self, ask: &Ask, rest: &[&str]) -> Answer {
        let vhost = ask.query("vhost")?.unwrap_or_else(|| "/".to_owned());
        match (&ask.method, rest) {
            (&Method::GET, ["queues"]) => json(&self.queues(&vhost)),
            (&Method::GET, ["exchanges"]) => json(&self.exchanges(&vhost)),
            (&Method::GET, ["bindings"]) => json(&self.bindings(&vhost)),
            (&Method::GET, ["connections"]) => json(&self.connections()),
            (&Method::GET, ["consumers"]) => json(&self.consumers(&vhost)),
            (&Method::DELETE, ["queues", name, "contents"]) => {
                json(&self.amqp.purge(&vhost, name).map_err(fault)?)
            }
            (&Method::DELETE, ["queues", name]) => {
                if !self.amqp.queues().iter().any(|q| q.vhost == vhost && q.name == *name) {
                    return Err(Fault::missing(format!("no queue '{name}' in vhost '{vhost}'")));
                }
                self.amqp.delete(&vhost, name, Conditions::default()).await.map_err(fault)?;
                done()
            }
            _ => Err(no_route(ask)),
        }
    }

    fn queues(&self, vhost: &str) -> Listing {
        let rows = self.amqp.queues().into_iter().filter(|q| q.vhost == vhost).map(|q| {
            vec![
                q.name,
                q.ready.to_string(),
                q.unacked.to_string(),
                q.consumers.to_string(),
                yes(q.durable),
                q.memory_bytes.to_string(),
                q.disk_bytes.to_string(),
            ]
        });
        listing(&["NAME", "READY", "UNACKED", "CONSUMERS", "DURABLE", "MEMORY", "DISK"], rows)
    }

    fn exchanges(&self, vhost: &str) -> Listing {
        let rows = self.amqp.exchanges().into_iter().filter(|e| e.vhost == vhost).map(|e| {
            let name = if e.name.is_empty() { "(default)".to_owned() } else { e.name };
            vec![name, e.kind.to_owned(), yes(e.durable), yes(e.auto_delete), yes(e.internal)]
        });
        listing(&["NAME", "TYPE", "DURABLE", "AUTO_DELETE", "INTERNAL"], rows)
    }

    fn bindings(&self, vhost: &str) -> Listing {
        let rows = self.amqp.bindings().into_iter().filter(|b| b.vhost == vhost).map(|b| {
            let source = if b.source.is_empty() { "(default)".to_owned() } else { b.source };
            vec![source, b.destination_type.to_owned(), b.destination, b.routing_key]
        });
        listing(&["SOURCE", "TO", "DESTINATION", "ROUTING_KEY"], rows)
    }

    fn connections(&self) -> Listing {
        let rows = self.amqp.connections().into_iter().map(|c| {
            let (channels, published, delivered) =
                (c.channels.to_string(), c.published.to_string(), c.delivered.to_string());
            vec![c.peer, c.user, c.vhost, c.client, channels, published, delivered]
        });
        listing(&["PEER", "USER", "VHOST", "CLIENT", "CHANNELS", "PUBLISHED", "DELIVERED"], rows)
    }

    fn consumers(&self, vhost: &str) -> Listing {
        let rows = self.amqp.consumers().into_iter().filter(|c| c.vhost == vhost).map(|c| {
            vec![c.queue, c.tag, yes(c.acknowledges), c.prefetch.to_string(), c.unacked.to_string()]
        });
        listing(&["QUEUE", "TAG", "ACKS", "PREFETCH", "UNACKED"], rows)
    }
}

pub(super) fn listing(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Listing {
    Listing { columns: columns.iter().map(|&c| c.to_owned()).collect(), rows: rows.collect() }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn fault(error: BrokerError) -> Fault {
    match error {
        BrokerError::NoVhost(_) => Fault::missing(error),
        BrokerError::Refused(_) | BrokerError::Name(_) => Fault::bad(error),
        _ => Fault::failed(error),
    }
}
