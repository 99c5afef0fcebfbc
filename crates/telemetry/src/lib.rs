//! What Kiln says about itself: diagnostics ([`diagnostics`]), figures ([`Metrics`]) and health ([`Health`]).
//!
//! ```
//! use kiln_telemetry::{Health, Metrics, State};
//!
//! let metrics = Metrics::new();
//! let lines = metrics.counter("kiln_flow_lines", "Lines that a flow has seen", &[("flow", "tasks")]);
//! lines.inc();
//! assert!(metrics.text().contains("kiln_flow_lines_total{flow=\"tasks\"} 1"));
//!
//! let health = Health::new();
//! health.set("kafka", State::Ok);
//! health.set("log", State::Failed("disk full: free some space below the data directory".into()));
//! assert!(!health.is_ok());
//! ```

pub mod diagnostics;
mod health;
mod metrics;

pub use health::{Health, State};
pub use metrics::{Counter, Gauge, Histogram, METRIC_SERIES_MAX, Metrics};
