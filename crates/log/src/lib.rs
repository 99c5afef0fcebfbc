//! Segmented, checksummed append log with group commit, indexes, retention and recovery.
