//! The manager against simulated agents.
