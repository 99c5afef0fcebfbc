//! Exchanges and how each kind finds the destinations of a message.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::core::Refusal;
use crate::core::headers::HeadersRule;
use crate::core::topic::Trie;
use crate::wire::{ShortStr, Table};

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl ExchangeKind {
    /// The kind called `name` on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// An exchange as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: ShortStr,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Arguments, of which `alternate-exchange` is looked at.
    pub arguments: Table,
}

impl ExchangeSpec {
    /// A durable exchange without arguments.
    pub fn durable(name: ShortStr, kind: ExchangeKind) -> Self {
        Self { name, kind, durable: true, auto_delete: false, internal: false, arguments: Table::new() }
    }
}

/// What kind of thing a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Target {
    Queue,
    Exchange,
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Destination {
    /// Queue or exchange.
    pub target: Target,
    /// Its name.
    pub name: ShortStr,
}

/// A binding from an exchange to a destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The exchange that messages come from.
    pub source: ShortStr,
    /// Where they go.
    pub destination: Destination,
    /// The routing key or pattern.
    pub routing_key: ShortStr,
    /// Arguments; what a headers exchange matches.
    pub arguments: Table,
}

#[derive(Debug)]
struct Bound {
    routing_key: ShortStr,
    arguments: Table,
    rule: Option<HeadersRule>,
}

/// The index that finds destinations by key; the other kinds walk over the bindings.
#[derive(Debug)]
enum Index {
    Direct(HashMap<ShortStr, Vec<Destination>>),
    Topic(Trie<Destination>),
    None,
}

/// An exchange with its bindings.
#[derive(Debug)]
pub struct Exchange {
    /// As declared.
    pub spec: ExchangeSpec,
    /// Where messages go that no binding matches.
    pub alternate: Option<ShortStr>,
    bindings: HashMap<Destination, Vec<Bound>>,
    index: Index,
}

impl Exchange {
    /// An exchange without bindings.
    pub fn new(spec: ExchangeSpec) -> Self {
        let index = match spec.kind {
            ExchangeKind::Direct => Index::Direct(HashMap::new()),
            ExchangeKind::Topic => Index::Topic(Trie::default()),
            ExchangeKind::Fanout | ExchangeKind::Headers => Index::None,
        };
        let alternate = spec.arguments.get("alternate-exchange").and_then(|value| value.as_text());
        let alternate = alternate.and_then(|name| ShortStr::try_from(name).ok());
        Self { spec, alternate, bindings: HashMap::new(), index }
    }

    /// Adds a binding; `false` when it was there.
    pub fn bind(
        &mut self,
        destination: &Destination,
        key: &ShortStr,
        arguments: &Table,
    ) -> Result<bool, Refusal> {
        let rule = match self.spec.kind {
            ExchangeKind::Headers => Some(HeadersRule::parse(arguments)?),
            _ => None,
        };
        let bounds = self.bindings.entry(destination.clone()).or_default();
        if bounds.iter().any(|bound| bound.routing_key == *key && bound.arguments == *arguments) {
            return Ok(false);
        }
        bounds.push(Bound { routing_key: key.clone(), arguments: arguments.clone(), rule });
        match &mut self.index {
            Index::Direct(keys) => keys.entry(key.clone()).or_default().push(destination.clone()),
            Index::Topic(trie) => trie.insert(key.as_bytes(), destination.clone()),
            Index::None => {}
        }
        Ok(true)
    }

    /// Removes a binding; `false` when it was not there.
    pub fn unbind(&mut self, destination: &Destination, key: &ShortStr, arguments: &Table) -> bool {
        let Some(bounds) = self.bindings.get_mut(destination) else { return false };
        let Some(at) = bounds.iter().position(|b| b.routing_key == *key && b.arguments == *arguments) else {
            return false;
        };
        bounds.swap_remove(at);
        if bounds.is_empty() {
            self.bindings.remove(destination);
        }
        self.unindex(destination, key);
        true
    }

    /// Removes every binding to `destination` and returns them.
    pub fn unbind_all(&mut self, destination: &Destination) -> Vec<Binding> {
        let bounds = self.bindings.remove(destination).unwrap_or_default();
        for bound in &bounds {
            self.unindex(destination, &bound.routing_key);
        }
        bounds.into_iter().map(|bound| self.describe(destination, &bound)).collect()
    }

    fn unindex(&mut self, destination: &Destination, key: &ShortStr) {
        match &mut self.index {
            Index::Direct(keys) => {
                if let Some(list) = keys.get_mut(key) {
                    if let Some(at) = list.iter().position(|candidate| candidate == destination) {
                        list.swap_remove(at);
                    }
                    if list.is_empty() {
                        keys.remove(key);
                    }
                }
            }
            Index::Topic(trie) => trie.remove(key.as_bytes(), destination),
            Index::None => {}
        }
    }

    fn describe(&self, destination: &Destination, bound: &Bound) -> Binding {
        Binding {
            source: self.spec.name.clone(),
            destination: destination.clone(),
            routing_key: bound.routing_key.clone(),
            arguments: bound.arguments.clone(),
        }
    }

    /// Every binding.
    pub fn bindings(&self) -> impl Iterator<Item = Binding> + '_ {
        self.bindings
            .iter()
            .flat_map(move |(destination, bounds)| bounds.iter().map(move |b| self.describe(destination, b)))
    }

    /// Whether nothing is bound.
    pub fn is_unbound(&self) -> bool {
        self.bindings.is_empty()
    }

    /// Calls `found` for every destination of a message; one destination may come more than once.
    pub fn route<'e>(&'e self, key: &[u8], headers: &Table, found: &mut impl FnMut(&'e Destination)) {
        match (&self.index, self.spec.kind) {
            (Index::Direct(keys), _) => keys.get(key).into_iter().flatten().for_each(found),
            (Index::Topic(trie), _) => trie.matches(key, found),
            (Index::None, ExchangeKind::Headers) => {
                let matching = self.bindings.iter().filter(|(_, bounds)| {
                    bounds.iter().any(|b| b.rule.as_ref().is_some_and(|rule| rule.matches(headers)))
                });
                matching.for_each(|(destination, _)| found(destination));
            }
            (Index::None, _) => self.bindings.keys().for_each(found),
        }
    }
}
