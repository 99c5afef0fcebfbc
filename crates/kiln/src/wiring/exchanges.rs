//! Flow's exchanges are the message broker's.

use bytes::Bytes;
use futures_util::future::try_join_all;
use kiln_amqp::wire::{Properties, ShortStr, Table, Value};
use kiln_amqp::{Binding, Broker, BrokerError, Destination, ExchangeKind, ExchangeSpec, Target};
use kiln_flow::ports::{Exchanges, Pending, PortError, Publish, Published};

/// The virtual host that flows publish to.
pub(crate) const VHOST: &str = "/";
/// The exchange from which task requests reach the agents' queues.
pub(crate) const TASKS: &str = "kiln.tasks";
/// The queue that all agents share has this routing key.
const ANY: &str = "any";

/// The message broker as flows see it.
pub(crate) struct AmqpExchanges(pub Broker);

impl AmqpExchanges {
    async fn publish_all(
        &self,
        exchange: &str,
        messages: &[Publish<'_>],
    ) -> Result<Vec<Published>, PortError> {
        // Each is handed over in order at its first poll; then all wait for the same flush.
        let routed = try_join_all(messages.iter().map(|message| self.publish_one(exchange, message))).await?;
        Ok(routed
            .into_iter()
            .map(|queues| if queues > 0 { Published::Routed } else { Published::Unroutable })
            .collect())
    }

    async fn publish_one(&self, exchange: &str, message: &Publish<'_>) -> Result<usize, PortError> {
        let properties = properties(message).map_err(|e| PortError::Refused(e.to_string()))?;
        let body = Bytes::copy_from_slice(message.body);
        self.0
            .publish(VHOST, exchange, message.routing_key, &properties, body)
            .await
            .map_err(|e| port_error(&e))
    }
}

fn properties(message: &Publish<'_>) -> Result<Properties, kiln_amqp::wire::TooLong> {
    let mut headers = Table::new();
    for (name, value) in message.headers {
        headers
            .0
            .push((ShortStr::try_from(*name)?, Value::LongStr(Bytes::copy_from_slice(value.as_bytes()))));
    }
    Ok(Properties {
        message_id: Some(ShortStr::try_from(message.message_id)?),
        headers: Some(headers),
        ..Properties::persistent()
    })
}

/// What a person must change is refused; what passes by itself is tried again.
fn port_error(error: &BrokerError) -> PortError {
    match error {
        BrokerError::Refused(_) | BrokerError::Name(_) => PortError::Refused(error.to_string()),
        _ => PortError::Unavailable(error.to_string()),
    }
}

impl Exchanges for AmqpExchanges {
    fn publish<'a>(
        &'a self,
        exchange: &'a str,
        messages: &'a [Publish<'a>],
    ) -> Pending<'a, Result<Vec<Published>, PortError>> {
        Box::pin(self.publish_all(exchange, messages))
    }
}

/// The queue of one host's agent, or the one that all share.
pub(crate) fn queue_name(key: &str) -> String {
    format!("{TASKS}.{key}")
}

/// Declares the exchange and the queues of the agents, so that tasks wait there from the first moment on.
pub(crate) async fn declare_task_queues(broker: &Broker, hosts: &[String]) -> Result<(), BrokerError> {
    let exchange = ShortStr::try_from(TASKS)?;
    broker.declare_exchange(VHOST, ExchangeSpec::durable(exchange.clone(), ExchangeKind::Direct)).await?;
    for key in hosts.iter().map(String::as_str).chain([ANY]) {
        let queue = queue_name(key);
        broker.declare_queue(VHOST, &queue, Table::new()).await?;
        let destination = Destination { target: Target::Queue, name: ShortStr::try_from(queue)? };
        let (source, routing_key) = (exchange.clone(), ShortStr::try_from(key)?);
        broker.bind(VHOST, Binding { source, destination, routing_key, arguments: Table::new() }).await?;
    }
    Ok(())
}

/// The queues that the agent of `host` consumes.
pub(crate) fn queues_of(host: &str) -> [String; 2] {
    [queue_name(host), queue_name(ANY)]
}
