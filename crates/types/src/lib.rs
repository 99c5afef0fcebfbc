//! Ids, hostlists, idsets, durations and sizes: the words that every plane shares. Pure.
