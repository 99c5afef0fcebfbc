//! The topics that are there, by name and by id.

use super::partition::Partition;
use crate::core::topic::TopicConfig;
use crate::wire::fetch::TopicRef;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A topic and its partitions. Another value takes its place when it changes.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: [u8; 16],
    pub(crate) config: TopicConfig,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Whether it is a log of another service, which cannot be changed here.
    pub(crate) is_mounted: bool,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }
}

/// All topics.
#[derive(Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
    /// Exactly the topics of `by_name`.
    by_id: HashMap<[u8; 16], Arc<Topic>>,
}

impl Topics {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: &[u8; 16]) -> Option<&Arc<Topic>> {
        self.by_id.get(id)
    }

    pub(crate) fn find(&self, topic: &TopicRef) -> Option<&Arc<Topic>> {
        match topic {
            TopicRef::Name(name) => self.get(name),
            TopicRef::Id(id) => self.by_id(id),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Partitions of all topics.
    pub(crate) fn partitions(&self) -> usize {
        self.by_name.values().map(|topic| topic.partitions.len()).sum()
    }

    /// Adds a topic, or takes the place of the one of the same name.
    pub(crate) fn put(&mut self, topic: Topic) -> Arc<Topic> {
        self.remove(&topic.name);
        let topic = Arc::new(topic);
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic.clone());
        topic
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<Topic>> {
        let topic = self.by_name.remove(name)?;
        self.by_id.remove(&topic.id);
        Some(topic)
    }
}
