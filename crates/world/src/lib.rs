//! The seam to the outside: clock, disk and randomness, real and simulated.
//!
//! Whatever stores something does its I/O through [`Disk`] and [`File`], takes the time from [`Clock`] and
//! random bytes from [`Rng`]. In production these are [`RealDisk`], [`RealClock`] and [`RealRng`]; tests run the
//! same code on [`SimDisk`], which loses power, tears writes, fills up, fails and rots, all from one seed.

mod clock;
mod disk;
mod real;
mod rng;
mod sim;

pub use clock::{Clock, RealClock, SimClock};
pub use disk::{Disk, Entry, File, Open, Space, plain_path};
pub use real::{RealDisk, SYNCFS_ABOVE_FILES};
pub use rng::{RealRng, Rng, SimRng};
pub use sim::{Fault, SECTOR_BYTES, SimDisk};
