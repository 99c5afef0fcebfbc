//! The store from outside: what services rely on, a model, and power failures.

#[cfg(test)]
mod api;
#[cfg(test)]
mod common;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod model;
