//! Listeners and the framed RPC between Kiln's own processes.
