//! The exchanges, queues and bindings of one virtual host, and the rules for changing them.
//!
//! Every change returns the part of it that must outlive a restart, as data.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::arguments::check_quorum;
use crate::core::exchange::{Binding, Destination, Exchange, ExchangeKind, ExchangeSpec, Target};
use crate::core::{QueueArguments, Refusal};
use crate::wire::{ShortStr, Table, Traits};

/// One connection of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// Who asks: exclusive queues are for the connection that declared them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client's connection.
    Connection(ConnectionId),
    /// Kiln itself, which may look at every queue.
    Kiln,
}

/// A queue as declared.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Its name.
    pub name: ShortStr,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that it belongs to and goes with.
    pub owner: Option<ConnectionId>,
    /// The arguments as declared.
    pub arguments: Table,
    /// Tells a queue from an earlier one of the same name: when it was first declared, in microseconds since the epoch.
    pub incarnation: i64,
}

impl QueueSpec {
    /// A durable queue without arguments.
    pub fn durable(name: ShortStr, incarnation: i64) -> Self {
        Self { name, durable: true, auto_delete: false, owner: None, arguments: Table::new(), incarnation }
    }

    /// Whether the store keeps it: an exclusive queue cannot outlive its connection, durable or not.
    pub fn is_stored(&self) -> bool {
        self.durable && self.owner.is_none()
    }
}

/// A queue with the server's handle on it.
#[derive(Debug, Clone)]
pub struct QueueView<Q> {
    /// As declared.
    pub spec: Arc<QueueSpec>,
    /// The server's handle.
    pub handle: Q,
}

/// A change that must outlive a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// An exchange was declared.
    PutExchange(ExchangeSpec),
    /// An exchange was deleted.
    DropExchange(ShortStr),
    /// A queue was declared.
    PutQueue {
        /// Its name.
        name: ShortStr,
        /// Whether it goes with its last consumer.
        auto_delete: bool,
        /// Its arguments.
        arguments: Table,
        /// When it was declared, in microseconds since the epoch.
        incarnation: i64,
    },
    /// A queue was deleted.
    DropQueue(ShortStr),
    /// A binding was made.
    PutBinding(Binding),
    /// A binding was removed.
    DropBinding(Binding),
}

/// What one operation changed, in order.
pub type Changes = Vec<Change>;

/// Where a message goes.
#[derive(Debug)]
pub struct Routed<Q> {
    /// Each queue once.
    pub queues: Vec<Q>,
    /// Whether exchange and routing key alone decided, so that the answer may be kept until the topology changes.
    pub by_key_alone: bool,
}

/// The exchanges, queues and bindings of one virtual host.
#[derive(Debug)]
pub struct Topology<Q> {
    vhost: ShortStr,
    exchanges: HashMap<ShortStr, Exchange>,
    queues: HashMap<ShortStr, QueueView<Q>>,
}

const SYSTEM_EXCHANGES: [(&str, ExchangeKind); 5] = [
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    ("amq.topic", ExchangeKind::Topic),
    ("amq.headers", ExchangeKind::Headers),
    ("amq.match", ExchangeKind::Headers),
];

impl<Q: Clone> Topology<Q> {
    /// A virtual host with the exchanges that every one has.
    pub fn new(vhost: ShortStr) -> Self {
        let mut exchanges = HashMap::new();
        for (name, kind) in SYSTEM_EXCHANGES {
            let name = ShortStr::from_static(name);
            exchanges.insert(name.clone(), Exchange::new(ExchangeSpec::durable(name, kind)));
        }
        Self { vhost, exchanges, queues: HashMap::new() }
    }

    /// The virtual host's name.
    pub fn vhost(&self) -> &ShortStr {
        &self.vhost
    }

    /// Every exchange besides the default one.
    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.values()
    }

    /// Every queue.
    pub fn queues(&self) -> impl Iterator<Item = &QueueView<Q>> {
        self.queues.values()
    }

    fn describe_queue(&self, name: &str) -> String {
        format!("queue '{name}' in vhost '{}'", self.vhost)
    }

    fn describe_exchange(&self, name: &str) -> String {
        format!("exchange '{name}' in vhost '{}'", self.vhost)
    }

    // ---- looking up

    /// A queue that `origin` may use: 404 when it is not there, 405 when it is another connection's.
    pub fn queue(&self, name: &ShortStr, origin: Origin) -> Result<&QueueView<Q>, Refusal> {
        let view = self.queues.get(name).ok_or_else(|| Refusal::no_queue(&self.vhost, name))?;
        match (view.spec.owner, origin) {
            (Some(owner), Origin::Connection(id)) if owner != id => Err(Refusal::locked(&self.vhost, name)),
            _ => Ok(view),
        }
    }

    /// An exchange: 404 when it is not there.
    pub fn exchange(&self, name: &ShortStr) -> Result<&Exchange, Refusal> {
        self.exchanges.get(name).ok_or_else(|| Refusal::no_exchange(&self.vhost, name))
    }

    /// Finds the queues of a message. `exchange` is empty for the default exchange.
    pub fn route(
        &self,
        exchange: &ShortStr,
        keys: &[&ShortStr],
        properties: &Bytes,
    ) -> Result<Routed<Q>, Refusal> {
        if exchange.is_empty() {
            let queues = keys.iter().filter_map(|&key| self.queues.get(key)).map(|view| view.handle.clone());
            return Ok(Routed { queues: queues.collect(), by_key_alone: true });
        }
        let walk = Walk { topology: self, headers: OnceCell::new(), properties };
        Ok(walk.run(self.exchange(exchange)?, keys))
    }

    // ---- exchanges

    /// Declares an exchange, or checks that it is there as declared.
    pub fn declare_exchange(&mut self, spec: ExchangeSpec) -> Result<Changes, Refusal> {
        if spec.name.is_empty() {
            return Err(default_exchange());
        }
        if let Some(current) = self.exchanges.get(&spec.name) {
            self.same_exchange(&current.spec, &spec)?;
            return Ok(Changes::new());
        }
        if spec.name.starts_with("amq.") {
            return Err(reserved("exchange", &spec.name));
        }
        let changes = if spec.durable { vec![Change::PutExchange(spec.clone())] } else { Changes::new() };
        self.exchanges.insert(spec.name.clone(), Exchange::new(spec));
        Ok(changes)
    }

    fn same_exchange(&self, current: &ExchangeSpec, new: &ExchangeSpec) -> Result<(), Refusal> {
        let what = self.describe_exchange(&new.name);
        if current.kind != new.kind {
            return Err(differs("type", &what, new.kind.name(), current.kind.name()));
        }
        for (arg, new, current) in [
            ("durable", new.durable, current.durable),
            ("auto_delete", new.auto_delete, current.auto_delete),
            ("internal", new.internal, current.internal),
        ] {
            if new != current {
                return Err(differs(arg, &what, new, current));
            }
        }
        let arg = "alternate-exchange";
        match (new.arguments.get(arg), current.arguments.get(arg)) {
            (None, None) => Ok(()),
            (Some(new), Some(current)) if new.equivalent(current) => Ok(()),
            (new, current) => {
                let shown = |value: Option<&crate::wire::Value>| match value {
                    Some(value) => format!("the value '{value}' of type '{}'", value.type_name()),
                    None => "none".to_owned(),
                };
                Err(Refusal::inequivalent(arg, &what, shown(new), shown(current)))
            }
        }
    }

    /// Deletes an exchange and its bindings. A missing one is no error.
    pub fn delete_exchange(&mut self, name: &ShortStr, if_unused: bool) -> Result<Changes, Refusal> {
        if name.is_empty() {
            return Err(default_exchange());
        }
        if SYSTEM_EXCHANGES.iter().any(|(system, _)| *system == name.as_str()) {
            let what = self.describe_exchange(name);
            return Err(Refusal::access(format!("deletion of system {what} not allowed")));
        }
        let Some(exchange) = self.exchanges.get(name) else { return Ok(Changes::new()) };
        if if_unused && !exchange.is_unbound() {
            return Err(Refusal::precondition(format!("{} in use", self.describe_exchange(name))));
        }
        let mut changes = Changes::new();
        self.remove_exchange(name, &mut changes);
        Ok(changes)
    }

    fn remove_exchange(&mut self, name: &ShortStr, changes: &mut Changes) {
        let Some(exchange) = self.exchanges.remove(name) else { return };
        for binding in exchange.bindings() {
            if exchange.spec.durable && self.is_durable(&binding.destination) {
                changes.push(Change::DropBinding(binding));
            }
        }
        if exchange.spec.durable {
            changes.push(Change::DropExchange(name.clone()));
        }
        let destination = Destination { target: Target::Exchange, name: name.clone() };
        self.unbind_everywhere(&destination, exchange.spec.durable, changes);
    }

    // ---- queues

    /// Declares a queue, or checks that it is there as declared. `make` builds the handle of a new one.
    pub fn declare_queue(
        &mut self,
        spec: QueueSpec,
        origin: Origin,
        make: impl FnOnce(&Arc<QueueSpec>, QueueArguments) -> Q,
    ) -> Result<(QueueView<Q>, Changes), Refusal> {
        let what = self.describe_queue(&spec.name);
        if self.queues.contains_key(&spec.name) {
            let view = self.queue(&spec.name, origin)?.clone();
            self.same_queue(&view.spec, &spec, &what)?;
            return Ok((view, Changes::new()));
        }
        let arguments = QueueArguments::parse(&spec.arguments, &what)?;
        check_quorum(&arguments, spec.durable, spec.owner.is_some(), &what)?;
        let put = Change::PutQueue {
            name: spec.name.clone(),
            auto_delete: spec.auto_delete,
            arguments: spec.arguments.clone(),
            incarnation: spec.incarnation,
        };
        let changes = if spec.is_stored() { vec![put] } else { Changes::new() };
        let spec = Arc::new(spec);
        let handle = make(&spec, arguments);
        let view = QueueView { spec, handle };
        self.queues.insert(view.spec.name.clone(), view.clone());
        Ok((view, changes))
    }

    fn same_queue(&self, current: &QueueSpec, new: &QueueSpec, what: &str) -> Result<(), Refusal> {
        if current.durable != new.durable {
            return Err(differs("durable", what, new.durable, current.durable));
        }
        if current.auto_delete != new.auto_delete {
            return Err(differs("auto_delete", what, new.auto_delete, current.auto_delete));
        }
        if current.owner.is_some() != new.owner.is_some() {
            return Err(Refusal::locked(&self.vhost, &new.name));
        }
        QueueArguments::compare(&current.arguments, &new.arguments, what)
    }

    /// 403 for a name that clients may not choose.
    pub fn check_queue_name(&self, name: &ShortStr) -> Result<(), Refusal> {
        if name.starts_with("amq.") && !self.queues.contains_key(name) {
            return Err(reserved("queue", name));
        }
        Ok(())
    }

    /// Removes a queue and its bindings; `None` when it is not there.
    pub fn remove_queue(&mut self, name: &ShortStr) -> Option<(QueueView<Q>, Changes)> {
        let view = self.queues.remove(name)?;
        let mut changes = Changes::new();
        let destination = Destination { target: Target::Queue, name: name.clone() };
        self.unbind_everywhere(&destination, view.spec.is_stored(), &mut changes);
        if view.spec.is_stored() {
            changes.push(Change::DropQueue(name.clone()));
        }
        Some((view, changes))
    }

    // ---- bindings

    /// Binds; binding twice is no error.
    pub fn bind(&mut self, binding: &Binding) -> Result<Changes, Refusal> {
        if binding.source.is_empty()
            || (binding.destination.target == Target::Exchange && binding.destination.name.is_empty())
        {
            return Err(default_exchange());
        }
        self.check_destination(&binding.destination)?;
        let durable = self.is_durable(&binding.destination);
        let Some(source) = self.exchanges.get_mut(&binding.source) else {
            return Err(Refusal::no_exchange(&self.vhost, &binding.source));
        };
        let added = source.bind(&binding.destination, &binding.routing_key, &binding.arguments)?;
        let stored = added && durable && source.spec.durable;
        Ok(if stored { vec![Change::PutBinding(binding.clone())] } else { Changes::new() })
    }

    fn check_destination(&self, destination: &Destination) -> Result<(), Refusal> {
        match destination.target {
            Target::Queue if !self.queues.contains_key(&destination.name) => {
                Err(Refusal::no_queue(&self.vhost, &destination.name))
            }
            Target::Exchange => self.exchange(&destination.name).map(drop),
            Target::Queue => Ok(()),
        }
    }

    /// Unbinds; a missing binding or exchange is no error.
    pub fn unbind(&mut self, binding: &Binding) -> Result<Changes, Refusal> {
        if binding.source.is_empty() {
            return Err(default_exchange());
        }
        let mut changes = Changes::new();
        let durable = self.is_durable(&binding.destination);
        let Some(source) = self.exchanges.get_mut(&binding.source) else { return Ok(changes) };
        if source.unbind(&binding.destination, &binding.routing_key, &binding.arguments) {
            if durable && source.spec.durable {
                changes.push(Change::DropBinding(binding.clone()));
            }
            if source.spec.auto_delete && source.is_unbound() {
                self.remove_exchange(&binding.source, &mut changes);
            }
        }
        Ok(changes)
    }

    fn unbind_everywhere(&mut self, destination: &Destination, durable: bool, changes: &mut Changes) {
        let mut orphans = Vec::new();
        for exchange in self.exchanges.values_mut() {
            let removed = exchange.unbind_all(destination);
            if removed.is_empty() {
                continue;
            }
            if durable && exchange.spec.durable {
                changes.extend(removed.into_iter().map(Change::DropBinding));
            }
            if exchange.spec.auto_delete && exchange.is_unbound() {
                orphans.push(exchange.spec.name.clone());
            }
        }
        for name in orphans {
            self.remove_exchange(&name, changes);
        }
    }

    fn is_durable(&self, destination: &Destination) -> bool {
        match destination.target {
            Target::Queue => self.queues.get(&destination.name).is_some_and(|view| view.spec.is_stored()),
            Target::Exchange => {
                self.exchanges.get(&destination.name).is_some_and(|exchange| exchange.spec.durable)
            }
        }
    }

    /// Every binding, with the ones that the default exchange has by itself.
    pub fn bindings(&self) -> Vec<Binding> {
        let own = self.queues.keys().map(|name| Binding {
            source: ShortStr::default(),
            destination: Destination { target: Target::Queue, name: name.clone() },
            routing_key: name.clone(),
            arguments: Table::new(),
        });
        own.chain(self.exchanges.values().flat_map(Exchange::bindings)).collect()
    }
}

/// One message's way through the exchanges.
struct Walk<'t, Q> {
    topology: &'t Topology<Q>,
    properties: &'t Bytes,
    headers: OnceCell<Table>,
}

impl<'t, Q: Clone> Walk<'t, Q> {
    fn run(&self, first: &'t Exchange, keys: &[&ShortStr]) -> Routed<Q> {
        let mut routed = Routed { queues: Vec::new(), by_key_alone: true };
        let mut seen_queues = HashSet::new();
        let mut seen_exchanges = HashSet::from([&first.spec.name]);
        let mut next = vec![first];
        while let Some(exchange) = next.pop() {
            let headers = self.headers_for(exchange, &mut routed.by_key_alone);
            let mut matched = false;
            let mut follow = |name: &'t ShortStr| {
                if let Some(exchange) = self.topology.exchanges.get(name)
                    && seen_exchanges.insert(name)
                {
                    next.push(exchange);
                }
            };
            for key in keys {
                exchange.route(key.as_bytes(), headers, &mut |destination| {
                    matched = true;
                    match destination.target {
                        Target::Exchange => follow(&destination.name),
                        Target::Queue if seen_queues.insert(&destination.name) => {
                            let view = self.topology.queues.get(&destination.name);
                            routed.queues.extend(view.map(|view| view.handle.clone()));
                        }
                        Target::Queue => {}
                    }
                });
            }
            if let (false, Some(alternate)) = (matched, &exchange.alternate) {
                follow(alternate);
            }
        }
        routed
    }

    /// Headers are decoded only when an exchange looks at them.
    fn headers_for(&self, exchange: &Exchange, by_key_alone: &mut bool) -> &Table {
        static EMPTY: Table = Table::new();
        if exchange.spec.kind != ExchangeKind::Headers {
            return &EMPTY;
        }
        *by_key_alone = false;
        self.headers.get_or_init(|| Traits::header_table(self.properties).unwrap_or_default())
    }
}

fn differs(arg: &str, what: &str, new: impl std::fmt::Display, current: impl std::fmt::Display) -> Refusal {
    Refusal::inequivalent(arg, what, format!("'{new}'"), format!("'{current}'"))
}

fn default_exchange() -> Refusal {
    Refusal::access("operation not permitted on the default exchange")
}

fn reserved(what: &str, name: &str) -> Refusal {
    Refusal::access(format!("{what} name '{name}' contains reserved prefix 'amq.*'"))
}
