//! The event log on the Kafka protocol.
