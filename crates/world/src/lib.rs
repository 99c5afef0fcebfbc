//! The seam to the outside: clock, disk and randomness, real and simulated.
