//! The harness: starts the built binary and drives stock clients against it.
