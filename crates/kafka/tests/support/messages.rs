//! A request that makes sense, and the decoder of its response, for every request that is served.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kiln_kafka::wire::Api;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("ab"))
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn encoded(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    out.to_vec()
}

/// A body of the request in this version that the broker can work on.
pub(crate) fn simplest_body(api: Api, version: i16) -> Vec<u8> {
    let v = version;
    match api {
        // No transaction (from version 3 on), acks 1, no time, no topics; then no tags.
        Api::Produce => match v {
            0..3 => b"\0\x01\0\0\0\0\0\0\0\0".to_vec(),
            3..9 => b"\xff\xff\0\x01\0\0\0\0\0\0\0\0".to_vec(),
            _ => b"\0\0\x01\0\0\0\0\x01\0".to_vec(),
        },
        Api::Fetch => encoded(&m::FetchRequest::default(), v),
        Api::ApiVersions => encoded(&m::ApiVersionsRequest::default(), v),
        Api::Metadata => {
            let one = m::metadata_request::MetadataRequestTopic::default().with_name(Some(topic()));
            encoded(&m::MetadataRequest::default().with_topics(Some(vec![one])), v)
        }
        Api::ListOffsets => {
            let one = m::list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
            let of = m::list_offsets_request::ListOffsetsTopic::default().with_name(topic());
            encoded(&m::ListOffsetsRequest::default().with_topics(vec![of.with_partitions(vec![one])]), v)
        }
        Api::FindCoordinator if v < 4 => {
            encoded(&m::FindCoordinatorRequest::default().with_key(text("g")), v)
        }
        Api::FindCoordinator => {
            encoded(&m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]), v)
        }
        Api::JoinGroup => {
            let one = m::join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
            let join =
                m::JoinGroupRequest::default().with_group_id(GroupId(StrBytes::from_string(format!("g{v}"))));
            let join = join.with_session_timeout_ms(10_000).with_protocol_type(text("consumer"));
            let join = if v >= 1 { join.with_rebalance_timeout_ms(1_000) } else { join };
            encoded(&join.with_protocols(vec![one]), v)
        }
        Api::SyncGroup => encoded(&m::SyncGroupRequest::default().with_group_id(group()), v),
        Api::Heartbeat => encoded(&m::HeartbeatRequest::default().with_group_id(group()), v),
        Api::LeaveGroup if v < 3 => encoded(&m::LeaveGroupRequest::default().with_group_id(group()), v),
        Api::LeaveGroup => {
            let one = m::leave_group_request::MemberIdentity::default().with_member_id(text("m"));
            encoded(&m::LeaveGroupRequest::default().with_group_id(group()).with_members(vec![one]), v)
        }
        Api::OffsetCommit => {
            let one =
                m::offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(3);
            let of = m::offset_commit_request::OffsetCommitRequestTopic::default().with_name(topic());
            let commit = m::OffsetCommitRequest::default().with_group_id(group());
            let commit = commit.with_generation_id_or_member_epoch(-1);
            encoded(&commit.with_topics(vec![of.with_partitions(vec![one])]), v)
        }
        Api::OffsetFetch if v < 8 => {
            let of = m::offset_fetch_request::OffsetFetchRequestTopic::default().with_name(topic());
            let of = of.with_partition_indexes(vec![0, 1]);
            encoded(&m::OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![of])), v)
        }
        Api::OffsetFetch => {
            let of = m::offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group());
            encoded(&m::OffsetFetchRequest::default().with_groups(vec![of.with_topics(None)]), v)
        }
        Api::InitProducerId => encoded(&m::InitProducerIdRequest::default(), v),
        Api::CreateTopics => {
            let name = TopicName(StrBytes::from_string(format!("made-{v}")));
            let one =
                m::create_topics_request::CreatableTopic::default().with_name(name).with_num_partitions(1);
            encoded(&m::CreateTopicsRequest::default().with_topics(vec![one.with_replication_factor(1)]), v)
        }
        Api::DeleteTopics if v < 6 => {
            let name = TopicName(StrBytes::from_string(format!("made-{}", v + 1)));
            encoded(&m::DeleteTopicsRequest::default().with_topic_names(vec![name]), v)
        }
        Api::DeleteTopics => {
            let one = m::delete_topics_request::DeleteTopicState::default();
            let one = one.with_name(Some(TopicName(text("made-7"))));
            encoded(&m::DeleteTopicsRequest::default().with_topics(vec![one]), v)
        }
        Api::DeleteRecords => {
            let of = m::delete_records_request::DeleteRecordsTopic::default().with_name(topic());
            let one = m::delete_records_request::DeleteRecordsPartition::default();
            encoded(&m::DeleteRecordsRequest::default().with_topics(vec![of.with_partitions(vec![one])]), v)
        }
        Api::OffsetForLeaderEpoch => {
            let of = m::offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(topic());
            let one = m::offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            encoded(
                &m::OffsetForLeaderEpochRequest::default().with_topics(vec![of.with_partitions(vec![one])]),
                v,
            )
        }
        Api::DescribeConfigs => {
            let one = m::describe_configs_request::DescribeConfigsResource::default().with_resource_type(2);
            let one = one.with_resource_name(text("ab")).with_configuration_keys(None);
            encoded(
                &m::DescribeConfigsRequest::default().with_resources(vec![one]).with_include_synonyms(true),
                v,
            )
        }
        Api::AlterConfigs => {
            let one = m::alter_configs_request::AlterableConfig::default().with_name(text("retention.ms"));
            let of = m::alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
            let of = of.with_resource_name(text("ab")).with_configs(vec![one.with_value(Some(text("-1")))]);
            encoded(&m::AlterConfigsRequest::default().with_resources(vec![of]), v)
        }
        Api::IncrementalAlterConfigs => {
            let one = m::incremental_alter_configs_request::AlterableConfig::default();
            let one = one.with_name(text("retention.ms")).with_value(Some(text("-1")));
            let of =
                m::incremental_alter_configs_request::AlterConfigsResource::default().with_resource_type(2);
            let of = of.with_resource_name(text("ab")).with_configs(vec![one]);
            encoded(&m::IncrementalAlterConfigsRequest::default().with_resources(vec![of]), v)
        }
        Api::CreatePartitions => {
            let one = m::create_partitions_request::CreatePartitionsTopic::default().with_name(topic());
            encoded(
                &m::CreatePartitionsRequest::default().with_topics(vec![one.with_count(i32::from(v) + 2)]),
                v,
            )
        }
        Api::DescribeGroups => encoded(&m::DescribeGroupsRequest::default().with_groups(vec![group()]), v),
        Api::ListGroups => encoded(&m::ListGroupsRequest::default(), v),
        Api::DeleteGroups => encoded(&m::DeleteGroupsRequest::default().with_groups_names(vec![group()]), v),
        Api::DescribeCluster => encoded(&m::DescribeClusterRequest::default(), v),
        Api::SaslHandshake => encoded(&m::SaslHandshakeRequest::default().with_mechanism(text("PLAIN")), v),
        Api::SaslAuthenticate => encoded(&m::SaslAuthenticateRequest::default(), v),
    }
}

/// Reads the answer behind its correlation id with an independent decoder; how many bytes it leaves.
pub(crate) fn decode_response(api: Api, version: i16, answer: &[u8]) -> Option<usize> {
    fn read<T: Decodable>(bytes: &mut Bytes, version: i16) -> Option<usize> {
        T::decode(bytes, version).ok()?;
        Some(bytes.len())
    }
    let skip = usize::from(api.has_flexible_response_header(version));
    let mut bytes = Bytes::copy_from_slice(&answer[skip..]);
    let decode = match api {
        Api::Produce if version < 3 => return Some(0), // older than the decoder knows; golden bytes elsewhere
        Api::Produce => read::<m::ProduceResponse>,
        Api::Fetch => read::<m::FetchResponse>,
        Api::ApiVersions => read::<m::ApiVersionsResponse>,
        Api::Metadata => read::<m::MetadataResponse>,
        Api::ListOffsets => read::<m::ListOffsetsResponse>,
        Api::FindCoordinator => read::<m::FindCoordinatorResponse>,
        Api::JoinGroup => read::<m::JoinGroupResponse>,
        Api::SyncGroup => read::<m::SyncGroupResponse>,
        Api::Heartbeat => read::<m::HeartbeatResponse>,
        Api::LeaveGroup => read::<m::LeaveGroupResponse>,
        Api::OffsetCommit => read::<m::OffsetCommitResponse>,
        Api::OffsetFetch => read::<m::OffsetFetchResponse>,
        Api::InitProducerId => read::<m::InitProducerIdResponse>,
        Api::CreateTopics => read::<m::CreateTopicsResponse>,
        Api::DeleteTopics => read::<m::DeleteTopicsResponse>,
        Api::DeleteRecords => read::<m::DeleteRecordsResponse>,
        Api::OffsetForLeaderEpoch => read::<m::OffsetForLeaderEpochResponse>,
        Api::DescribeConfigs => read::<m::DescribeConfigsResponse>,
        Api::AlterConfigs => read::<m::AlterConfigsResponse>,
        Api::IncrementalAlterConfigs => read::<m::IncrementalAlterConfigsResponse>,
        Api::CreatePartitions => read::<m::CreatePartitionsResponse>,
        Api::DescribeGroups => read::<m::DescribeGroupsResponse>,
        Api::ListGroups => read::<m::ListGroupsResponse>,
        Api::DeleteGroups => read::<m::DeleteGroupsResponse>,
        Api::DescribeCluster => read::<m::DescribeClusterResponse>,
        Api::SaslHandshake => read::<m::SaslHandshakeResponse>,
        Api::SaslAuthenticate => read::<m::SaslAuthenticateResponse>,
    };
    decode(&mut bytes, version)
}
