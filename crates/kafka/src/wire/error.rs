//! Kafka's error codes, those that this broker sends.

/// An error as a Kafka client reads it. The numbers and names are those of
/// `org.apache.kafka.common.protocol.Errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum ErrorCode {
    /// The server met something it did not expect; its own log says what.
    UnknownServerError = -1,
    /// All is well.
    None = 0,
    /// The offset lies outside the partition.
    OffsetOutOfRange = 1,
    /// The batch's checksum does not match, or its length is wrong.
    CorruptMessage = 2,
    /// No such topic or partition.
    UnknownTopicOrPartition = 3,
    /// The topic is being created; ask again.
    LeaderNotAvailable = 5,
    /// The partition is not ready here; refresh the metadata and repeat.
    NotLeaderOrFollower = 6,
    /// It took longer than the request allows.
    RequestTimedOut = 7,
    /// The batch is larger than `max.message.bytes`.
    MessageTooLarge = 10,
    /// The metadata string of a committed offset is too long.
    OffsetMetadataTooLarge = 12,
    /// The coordinator is starting or stopping; ask again.
    CoordinatorNotAvailable = 15,
    /// The topic's name is not allowed.
    InvalidTopic = 17,
    /// acks is none of 0, 1 and -1.
    InvalidRequiredAcks = 21,
    /// The generation is not the group's current one.
    IllegalGeneration = 22,
    /// The member shares no protocol with the rest of the group.
    InconsistentGroupProtocol = 23,
    /// The group's name is empty or otherwise unusable.
    InvalidGroupId = 24,
    /// The group does not know this member.
    UnknownMemberId = 25,
    /// The session timeout lies outside the broker's bounds.
    InvalidSessionTimeout = 26,
    /// The group is rebalancing: join again.
    RebalanceInProgress = 27,
    /// The topic may not be written by clients.
    TopicAuthorizationFailed = 29,
    /// The mechanism is not offered.
    UnsupportedSaslMechanism = 33,
    /// Not expected in this state of the connection.
    IllegalSaslState = 34,
    /// This version of the request is not served.
    UnsupportedVersion = 35,
    /// The topic exists already.
    TopicAlreadyExists = 36,
    /// The number of partitions is not allowed.
    InvalidPartitions = 37,
    /// There are not that many brokers.
    InvalidReplicationFactor = 38,
    /// The assignment of replicas cannot be followed.
    InvalidReplicaAssignment = 39,
    /// A setting is unknown, or its value is.
    InvalidConfig = 40,
    /// The request contradicts itself.
    InvalidRequest = 42,
    /// The record format is older than version 2.
    UnsupportedForMessageFormat = 43,
    /// A bound of this broker forbids it.
    PolicyViolation = 44,
    /// A producer's batch is missing before this one.
    OutOfOrderSequenceNumber = 45,
    /// The batch is stored already, too long ago to tell its offset.
    DuplicateSequenceNumber = 46,
    /// A newer instance of the producer has written.
    InvalidProducerEpoch = 47,
    /// Transactions are not served. Clients give up at this code, and retry at most others.
    TransactionalIdAuthorizationFailed = 53,
    /// The disk failed or is full.
    KafkaStorageError = 56,
    /// User or password are wrong.
    SaslAuthenticationFailed = 58,
    /// The group still has members.
    NonEmptyGroup = 68,
    /// No such group.
    GroupIdNotFound = 69,
    /// No such fetch session; this broker keeps none.
    FetchSessionIdNotFound = 70,
    /// The client knows of a newer leader epoch than the broker.
    UnknownLeaderEpoch = 75,
    /// Join again with the member id in this answer (KIP-394).
    MemberIdRequired = 79,
    /// The group has as many members as it may.
    GroupMaxSizeReached = 81,
    /// Another member with this instance id has taken over.
    FencedInstanceId = 82,
    /// The batch breaks a rule of its format.
    InvalidRecord = 87,
    /// No topic with this id.
    UnknownTopicId = 100,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this is [`ErrorCode::None`].
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?} ({})", self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;
    use kafka_protocol::error::ResponseError;

    #[test]
    fn numbers_match_the_protocol() {
        for (ours, theirs) in [
            (ErrorCode::UnsupportedForMessageFormat, ResponseError::UnsupportedForMessageFormat),
            (ErrorCode::DuplicateSequenceNumber, ResponseError::DuplicateSequenceNumber),
            (ErrorCode::FencedInstanceId, ResponseError::FencedInstanceId),
            (ErrorCode::InvalidRecord, ResponseError::InvalidRecord),
            (ErrorCode::UnknownTopicId, ResponseError::UnknownTopicId),
            (ErrorCode::GroupMaxSizeReached, ResponseError::GroupMaxSizeReached),
            (ErrorCode::KafkaStorageError, ResponseError::KafkaStorageError),
            (ErrorCode::PolicyViolation, ResponseError::PolicyViolation),
        ] {
            assert_eq!(ours.code(), theirs.code(), "{ours}");
        }
    }
}
