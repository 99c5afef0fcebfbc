//! Sources, filters and sinks: syslog to topic to queue to job to recorder.
