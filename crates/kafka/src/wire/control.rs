//! Control messages through the `kafka-protocol` crate, with its errors and its trust in lengths kept inside.

use super::frame::Reply;
use super::primitive::WireError;
use super::{Api, RequestHeader, shape};
use bytes::Bytes;
use kafka_protocol::protocol::{Decodable, Encodable};

/// Reads the body of a control request of a served version.
pub(crate) fn decode<T: Decodable>(header: &RequestHeader<'_>, mut body: Bytes) -> Result<T, WireError> {
    shape::check(header.api, header.version, &body)?;
    T::decode(&mut body, header.version).map_err(|_| WireError::Malformed)
}

/// Writes a response to `api` in `version`.
pub(crate) fn encode<T: Encodable>(
    api: Api,
    version: i16,
    correlation: i32,
    body: &T,
) -> Result<Reply, WireError> {
    let size = body.compute_size(version).map_err(|_| WireError::Malformed)?;
    let mut out = Reply::start(api, version, correlation, size).into_inner();
    body.encode(&mut out, version).map_err(|_| WireError::Malformed)?;
    Ok(Reply::in_parts(out, Vec::new()))
}

/// Checks and decodes any control request; the number of bytes left over, none if it is refused.
#[cfg(test)]
pub(crate) fn decode_any(api: Api, version: i16, body: &[u8]) -> Option<usize> {
    use kafka_protocol::messages as m;
    fn read<T: Decodable>(api: Api, version: i16, body: &[u8]) -> Option<usize> {
        shape::check(api, version, body).ok()?;
        let mut bytes = Bytes::copy_from_slice(body);
        T::decode(&mut bytes, version).ok()?;
        Some(bytes.len())
    }
    let decode = match api {
        Api::Produce | Api::Fetch => return None,
        Api::ApiVersions => read::<m::ApiVersionsRequest>,
        Api::Metadata => read::<m::MetadataRequest>,
        Api::ListOffsets => read::<m::ListOffsetsRequest>,
        Api::FindCoordinator => read::<m::FindCoordinatorRequest>,
        Api::JoinGroup => read::<m::JoinGroupRequest>,
        Api::SyncGroup => read::<m::SyncGroupRequest>,
        Api::Heartbeat => read::<m::HeartbeatRequest>,
        Api::LeaveGroup => read::<m::LeaveGroupRequest>,
        Api::OffsetCommit => read::<m::OffsetCommitRequest>,
        Api::OffsetFetch => read::<m::OffsetFetchRequest>,
        Api::InitProducerId => read::<m::InitProducerIdRequest>,
        Api::CreateTopics => read::<m::CreateTopicsRequest>,
        Api::DeleteTopics => read::<m::DeleteTopicsRequest>,
        Api::DeleteRecords => read::<m::DeleteRecordsRequest>,
        Api::OffsetForLeaderEpoch => read::<m::OffsetForLeaderEpochRequest>,
        Api::DescribeConfigs => read::<m::DescribeConfigsRequest>,
        Api::AlterConfigs => read::<m::AlterConfigsRequest>,
        Api::IncrementalAlterConfigs => read::<m::IncrementalAlterConfigsRequest>,
        Api::CreatePartitions => read::<m::CreatePartitionsRequest>,
        Api::DescribeGroups => read::<m::DescribeGroupsRequest>,
        Api::ListGroups => read::<m::ListGroupsRequest>,
        Api::DeleteGroups => read::<m::DeleteGroupsRequest>,
        Api::DescribeCluster => read::<m::DescribeClusterRequest>,
        Api::SaslHandshake => read::<m::SaslHandshakeRequest>,
        Api::SaslAuthenticate => read::<m::SaslAuthenticateRequest>,
    };
    decode(api, version, body)
}
