//! Who is well, who is not, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does its work.
    Ok,
    /// It does its work in part, or is about to; the reason, with what to do about it.
    Degraded(String),
    /// It does not work; the reason, with what to do about it.
    Failed(String),
}

impl State {
    /// `ok`, `degraded` or `failed`: as `kiln status --json` names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
        }
    }

    /// Why, unless it is well.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Degraded(reason) | Self::Failed(reason) => Some(reason),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.reason().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// The state of each component. A handle: clones share one table.
///
/// Components are few and named in the code, which is what bounds the table.
#[derive(Debug, Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<&'static str, State>>>,
}

impl Health {
    /// A table in which nobody has reported.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports how `component` is. A change for the worse is logged, once.
    pub fn set(&self, component: &'static str, state: State) {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let before = components.insert(component, state.clone());
        drop(components);
        if before.as_ref() == Some(&state) {
            return;
        }
        match state {
            State::Ok if before.is_none() => {}
            State::Ok => tracing::info!(component, "is well again"),
            State::Degraded(reason) => tracing::warn!(component, reason, "is degraded"),
            State::Failed(reason) => tracing::error!(component, reason, "has failed"),
        }
    }

    /// Forgets a component that has been stopped on purpose.
    pub fn remove(&self, component: &'static str) {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// Each component with its state, by name.
    pub fn all(&self) -> Vec<(&'static str, State)> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|(name, state)| (*name, state.clone())).collect()
    }

    /// Whether no component has failed; a degraded one still does its work.
    pub fn is_ok(&self) -> bool {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        !components.values().any(|state| matches!(state, State::Failed(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_enough_and_clones_share() {
        let health = Health::new();
        assert!(health.is_ok());
        health.clone().set("kafka", State::Degraded("slow disk".into()));
        assert!(health.is_ok());
        health.set("amqp", State::Failed("disk full".into()));
        assert!(!health.is_ok());
        let told: Vec<_> = health.all().into_iter().map(|(name, state)| format!("{name} {state}")).collect();
        assert_eq!(told, ["amqp failed: disk full", "kafka degraded: slow disk"]);
        health.remove("amqp");
        assert!(health.is_ok());
    }
}
