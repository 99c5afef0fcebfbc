//! The parallel filesystem: Lustre's shape without a kernel module.
//!
//! Names and attributes live on a metadata target (MDT) served by an [`mds`]; data is striped over object storage targets
//! (OSTs), each served by an [`oss`]; a [`client`] mounts the tree by FUSE and talks to both directly. What a client may
//! cache it holds a lease for, which the MDS calls back before anybody else changes what the lease covers.
//!
//! - [`core`]: what is decided (namespace, layouts, leases, locks), without I/O.
//! - [`wire`]: the messages between client, MDS and OSS; they travel as Kiln's framed RPC on blocking sockets.
//! - [`mgs`]: which filesystems there are, and where their targets are; rows of the cluster's store.
//! - [`mds`], [`oss`], [`client`]: the same with sockets, disks and threads. A request is served by the thread of its
//!   connection from the first byte to the last: two context switches a call, which is what small operations cost.

pub mod access;
pub mod client;
pub mod core;
pub mod mds;
pub mod mgs;
pub mod oss;
pub mod wire;
