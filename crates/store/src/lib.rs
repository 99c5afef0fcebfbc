//! Typed transactional tables behind replayable commands, snapshots and watches.
