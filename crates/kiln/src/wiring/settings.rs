//! Settings of kiln.toml, as the services take them.

use kiln_config::Config;
use kiln_kafka::TopicDefaults;

/// The event log's part.
pub(crate) fn kafka(config: &Config) -> kiln_kafka::Settings {
    let kafka = &config.kafka;
    kiln_kafka::Settings {
        cluster_id: config.cluster.name.clone(),
        auto_create_topics: kafka.auto_create_topics,
        default_partitions: kafka.default_partitions,
        topics: TopicDefaults {
            retention: kafka.retention_age.get(),
            retention_bytes: kafka.retention_size.get().map(|size| size.0),
            segment_bytes: config.log.segment_size.0,
            batch_bytes_max: kafka.batch_size_max.0 as u32,
        },
        request_bytes_max: kafka.request_size_max.0 as usize,
        connections_max: kafka.connections_max as usize,
        ..kiln_kafka::Settings::default()
    }
}

/// The message broker's part.
pub(crate) fn amqp(config: &Config) -> kiln_amqp::Settings {
    let amqp = &config.amqp;
    kiln_amqp::Settings {
        connections_max: amqp.connections_max as usize,
        limits: kiln_amqp::Limits {
            channel_max: amqp.channels_max as u16,
            frame_max: amqp.frame_size_max.0 as u32,
            heartbeat: amqp.heartbeat.as_secs() as u16,
            body_bytes_max: amqp.message_size_max.0,
        },
        ..kiln_amqp::Settings::default()
    }
}
