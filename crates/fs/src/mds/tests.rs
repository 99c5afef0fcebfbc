//! An MDS on a real MDT behind a real socket, with clients that send what they like.

mod changelog;
mod coherence;
mod freezing;
mod locking;
mod sessions;
mod stress;
mod targets;
mod world;
