//! `Metadata`, `DescribeCluster` and `FindCoordinator`: there is one broker, and it is everything.

use super::connection::Session;
use super::convert::text;
use crate::broker::{Broker, LEADER_EPOCH, NewTopic, Topic};
use crate::wire::ErrorCode;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use uuid::Uuid;

/// The coordinator of groups; 1 would be that of transactions.
const GROUP_KEY: i8 = 0;

impl Session {
    fn node(&self) -> BrokerId {
        BrokerId(self.broker.inner.settings.node_id)
    }

    /// Where the client is to connect to.
    fn advertised(&self) -> (StrBytes, i32) {
        let set = self.broker.inner.settings.advertised.clone();
        let seen = || self.local.map(|address| (address.ip().to_string(), address.port()));
        let (host, port) = set.or_else(seen).unwrap_or_else(|| ("localhost".into(), 9092));
        (text(host), i32::from(port))
    }
}

/// Topics, their partitions, and who serves them.
pub(super) async fn metadata(session: &Session, version: i16, request: MetadataRequest) -> MetadataResponse {
    let broker = &session.broker;
    let may_create = request.allow_auto_topic_creation || version < 4;
    let mut topics = Vec::new();
    match request.topics {
        Some(wanted) if version > 0 || !wanted.is_empty() => {
            for wanted in wanted {
                topics.push(one_topic(session, wanted, may_create).await);
            }
        }
        _ => topics.extend(broker.topics().all().map(|topic| describe(session, topic))),
    }
    let (host, port) = session.advertised();
    let node = MetadataResponseBroker::default().with_node_id(session.node()).with_host(host).with_port(port);
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(text(broker.inner.settings.cluster_id.clone())))
        .with_controller_id(session.node())
        .with_topics(topics)
}

async fn one_topic(
    session: &Session,
    wanted: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let broker = &session.broker;
    let found = match &wanted.name {
        Some(name) => broker.topic(name),
        None => broker.topics().by_id(wanted.topic_id.as_bytes()).cloned(),
    };
    if let Some(topic) = found {
        return describe(session, &topic);
    }
    let Some(name) = wanted.name else {
        let error = ErrorCode::UnknownTopicId.code();
        return MetadataResponseTopic::default().with_error_code(error).with_topic_id(wanted.topic_id);
    };
    match create(broker, &name, may_create).await {
        Ok(topic) => describe(session, &topic),
        Err(error) => MetadataResponseTopic::default().with_error_code(error.code()).with_name(Some(name)),
    }
}

/// Creates a topic that a client asks for, if that is allowed.
async fn create(broker: &Broker, name: &str, may_create: bool) -> Result<Arc<Topic>, ErrorCode> {
    let new = NewTopic { name: name.to_owned(), ..NewTopic::default() };
    broker.check_new(&new).map_err(|error| error.code())?;
    if !may_create || !broker.inner.settings.auto_create_topics {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    match broker.create_topic(new).await {
        Ok(_) | Err(crate::AdminError::TopicExists(_)) => {
            broker.topic(name).ok_or(ErrorCode::LeaderNotAvailable)
        }
        Err(error) => {
            tracing::debug!(topic = name, %error, "cannot create the topic");
            Err(error.code())
        }
    }
}

fn describe(session: &Session, topic: &Topic) -> MetadataResponseTopic {
    let node = session.node();
    let partition = |n: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(n as i32)
            .with_leader_id(node)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name.clone()))))
        .with_topic_id(Uuid::from_bytes(topic.id))
        .with_partitions((0..topic.partitions.len()).map(partition).collect())
}

/// The one broker.
pub(super) fn describe_cluster(
    session: &Session,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let (host, port) = session.advertised();
    let node =
        DescribeClusterBroker::default().with_broker_id(session.node()).with_host(host).with_port(port);
    DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(text(session.broker.inner.settings.cluster_id.clone()))
        .with_controller_id(session.node())
        .with_brokers(vec![node])
}

/// Who coordinates groups: this broker. Transactions have no coordinator.
pub(super) fn find_coordinator(
    session: &Session,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (host, port) = session.advertised();
    let is_group = request.key_type == GROUP_KEY;
    let error = if is_group { ErrorCode::None } else { ErrorCode::TransactionalIdAuthorizationFailed };
    let message = (!is_group).then(|| text("transactions are not served"));
    let answer = FindCoordinatorResponse::default();
    if version < 4 {
        return answer
            .with_error_code(error.code())
            .with_error_message(message)
            .with_node_id(session.node())
            .with_host(host)
            .with_port(port);
    }
    let one = |key: StrBytes| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(error.code())
            .with_error_message(message.clone())
            .with_node_id(session.node())
            .with_host(host.clone())
            .with_port(port)
    };
    answer.with_coordinators(request.coordinator_keys.into_iter().map(one).collect())
}
