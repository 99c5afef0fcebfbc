//! The message broker on AMQP 0-9-1.
