//! Tracing set-up, metrics registry and health.
