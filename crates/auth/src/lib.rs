//! Users, password verifiers, permissions and SASL exchanges.
