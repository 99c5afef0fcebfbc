//! Which requests are served, and in which versions: the one table that `ApiVersions` is answered from.

/// A request that this broker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// Append record batches.
    Produce,
    /// Read record batches, waiting for them if asked.
    Fetch,
    /// Offsets by time, and the two ends of a partition.
    ListOffsets,
    /// Brokers, topics and partitions.
    Metadata,
    /// Store how far a group has read.
    OffsetCommit,
    /// Ask how far a group has read.
    OffsetFetch,
    /// Which broker coordinates a group.
    FindCoordinator,
    /// Enter a group, and wait for the others.
    JoinGroup,
    /// Proof of life of a group's member.
    Heartbeat,
    /// Leave a group.
    LeaveGroup,
    /// Hand out, or wait for, a group's assignment.
    SyncGroup,
    /// Members and state of groups.
    DescribeGroups,
    /// Names of groups.
    ListGroups,
    /// Choose a SASL mechanism.
    SaslHandshake,
    /// This table.
    ApiVersions,
    /// Create topics.
    CreateTopics,
    /// Delete topics and their records.
    DeleteTopics,
    /// Delete the oldest records of a partition.
    DeleteRecords,
    /// A producer id for idempotent producing.
    InitProducerId,
    /// Where an epoch of a partition's leader ends.
    OffsetForLeaderEpoch,
    /// Settings of topics and of the broker.
    DescribeConfigs,
    /// Replace the settings of topics.
    AlterConfigs,
    /// Prove who you are.
    SaslAuthenticate,
    /// Add partitions to a topic.
    CreatePartitions,
    /// Delete groups and their offsets.
    DeleteGroups,
    /// Change single settings of topics.
    IncrementalAlterConfigs,
    /// The brokers of the cluster.
    DescribeCluster,
}

/// No version of the request has the flexible (KIP-482) encoding.
const NEVER: i16 = i16::MAX;

/// One row: the request, its key, the first and last served version, the first flexible version (KIP-482).
struct Row(Api, i16, i16, i16, i16);

/// Every served request, in the order of keys.
///
/// `Produce` starts at 0 although no client should still write the message formats before version 2: librdkafka
/// before 2.11 asks whether version 0 is served before it compresses with gzip, snappy or lz4, and silently sends
/// uncompressed batches otherwise. Versions 0 to 2 are answered in their own layout; a batch in an old
/// format gets `UNSUPPORTED_FOR_MESSAGE_FORMAT`.
const TABLE: &[Row] = &[
    Row(Api::Produce, 0, 0, 11, 9),
    Row(Api::Fetch, 1, 4, 17, 12),
    Row(Api::ListOffsets, 2, 1, 9, 6),
    Row(Api::Metadata, 3, 0, 12, 9),
    Row(Api::OffsetCommit, 8, 2, 9, 8),
    Row(Api::OffsetFetch, 9, 1, 9, 6),
    Row(Api::FindCoordinator, 10, 0, 6, 3),
    Row(Api::JoinGroup, 11, 0, 9, 6),
    Row(Api::Heartbeat, 12, 0, 4, 4),
    Row(Api::LeaveGroup, 13, 0, 5, 4),
    Row(Api::SyncGroup, 14, 0, 5, 4),
    Row(Api::DescribeGroups, 15, 0, 5, 5),
    Row(Api::ListGroups, 16, 0, 5, 3),
    Row(Api::SaslHandshake, 17, 0, 1, NEVER),
    Row(Api::ApiVersions, 18, 0, 4, 3),
    Row(Api::CreateTopics, 19, 2, 7, 5),
    Row(Api::DeleteTopics, 20, 1, 6, 4),
    Row(Api::DeleteRecords, 21, 0, 2, 2),
    Row(Api::InitProducerId, 22, 0, 5, 2),
    Row(Api::OffsetForLeaderEpoch, 23, 2, 4, 4),
    Row(Api::DescribeConfigs, 32, 1, 4, 4),
    Row(Api::AlterConfigs, 33, 0, 2, 2),
    Row(Api::SaslAuthenticate, 36, 0, 2, 2),
    Row(Api::CreatePartitions, 37, 0, 3, 2),
    Row(Api::DeleteGroups, 42, 0, 2, 2),
    Row(Api::IncrementalAlterConfigs, 44, 0, 1, 1),
    Row(Api::DescribeCluster, 60, 0, 1, 0),
];

impl Api {
    /// The request with this key, if it is served.
    pub fn from_key(key: i16) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == key).map(|row| row.0)
    }

    /// Every served request, in the order of keys.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .expect("each request has its row in the table, which a test proves")
    }

    /// The key on the wire.
    pub fn key(self) -> i16 {
        self.row().1
    }

    /// First and last served version.
    pub fn versions(self) -> (i16, i16) {
        let row = self.row();
        (row.2, row.3)
    }

    /// Whether this version is served.
    pub fn serves(self, version: i16) -> bool {
        let (first, last) = self.versions();
        (first..=last).contains(&version)
    }

    /// Whether this version has the flexible encoding (KIP-482): compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.row().4
    }

    /// Whether the response header carries tagged fields. `ApiVersions` never does: the client does not yet know
    /// what the broker speaks (KIP-511).
    pub fn has_flexible_response_header(self, version: i16) -> bool {
        self != Self::ApiVersions && self.is_flexible(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiKey;

    #[test]
    fn the_table_agrees_with_the_message_definitions() {
        for api in Api::all() {
            let key = ApiKey::try_from(api.key()).unwrap();
            assert_eq!(format!("{key:?}"), format!("{api:?}"));
            let (first, last) = api.versions();
            assert!(first <= last);
            assert!(key.valid_versions().max >= last, "{api:?}");
            for version in first..=last {
                let flexible = key.request_header_version(version) == 2;
                assert_eq!(api.is_flexible(version), flexible, "{api:?} version {version}");
                let tagged = key.response_header_version(version) == 1;
                assert_eq!(api.has_flexible_response_header(version), tagged, "{api:?} version {version}");
            }
        }
    }

    #[test]
    fn keys_are_found_and_unknown_ones_are_not() {
        assert_eq!(Api::from_key(18), Some(Api::ApiVersions));
        assert_eq!(Api::from_key(24), None);
        assert_eq!(Api::from_key(-1), None);
    }
}
