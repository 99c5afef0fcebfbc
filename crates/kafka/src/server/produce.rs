//! `Produce` and `InitProducerId`.

use super::connection::Close;
use super::dispatch::{Head, Pending};
use crate::broker::{Broker, Placed, ProduceError};
use crate::wire::ErrorCode;
use crate::wire::produce::{Acks, ProducePartition, ProduceRequest, Produced, response};
use bytes::BytesMut;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use kiln_log::{Failed, Log};

/// What became of each partition so far, by topic.
type Outcomes = Vec<(String, Vec<Produced>)>;

/// Batches that are appended and not yet known to be durable: topic, partition, their log, where they lie.
type Unsettled = Vec<(usize, usize, Log, Placed)>;

/// Appends the batches at once, straight from the request's buffer; the answer may wait for the disk.
pub(super) fn produce(
    broker: &Broker,
    head: Head,
    request: &ProduceRequest,
    frame: &mut BytesMut,
) -> Result<Option<Pending>, Close> {
    let (mut outcomes, unsettled) = append_all(broker, request, frame);
    if request.acks == Some(Acks::None) {
        let failed = outcomes.iter().flat_map(|(_, partitions)| partitions).any(|of| !of.error.is_none());
        return if failed { Err(Close::Unacknowledged) } else { Ok(None) };
    }
    if request.acks == Some(Acks::Leader) || unsettled.is_empty() {
        return Ok(Some(Pending::Ready(response(head.version, head.correlation, &outcomes))));
    }
    // Asked for now, so that the flush begins before the answer's turn has come.
    let waits: Vec<_> =
        unsettled.into_iter().map(|(t, p, log, placed)| (t, p, log.durable(placed.last))).collect();
    Ok(Some(Pending::Later(Box::pin(async move {
        for (topic, partition, durable) in waits {
            if let Err(failed) = durable.await {
                let of = &mut outcomes[topic].1[partition];
                *of = not_durable(of.index, &failed);
            }
        }
        Ok((response(head.version, head.correlation, &outcomes), None))
    }))))
}

fn not_durable(index: i32, failed: &Failed) -> Produced {
    tracing::error!(error = %failed, "a batch did not become durable");
    Produced::failed(index, ErrorCode::KafkaStorageError, Some(failed.to_string()))
}

fn append_all(broker: &Broker, request: &ProduceRequest, frame: &mut BytesMut) -> (Outcomes, Unsettled) {
    let mut outcomes = Vec::with_capacity(request.topics.len());
    let mut unsettled = Vec::new();
    for (t, topic) in request.topics.iter().enumerate() {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (p, wanted) in topic.partitions.iter().enumerate() {
            let outcome = append(broker, request, &topic.name, wanted, frame);
            partitions.push(match outcome {
                Ok((log, placed)) => {
                    let start = log.watermarks().start;
                    unsettled.push((t, p, log, placed));
                    produced(wanted.index, placed, start.0)
                }
                Err((error, message)) => Produced::failed(wanted.index, error, message),
            });
        }
        outcomes.push((topic.name.clone(), partitions));
    }
    (outcomes, unsettled)
}

fn produced(index: i32, placed: Placed, start_offset: i64) -> Produced {
    Produced { index, error: ErrorCode::None, message: None, base_offset: placed.base.0, start_offset }
}

fn append(
    broker: &Broker,
    request: &ProduceRequest,
    topic: &str,
    wanted: &ProducePartition,
    frame: &mut BytesMut,
) -> Result<(Log, Placed), (ErrorCode, Option<String>)> {
    if request.acks.is_none() {
        return Err((ErrorCode::InvalidRequiredAcks, None));
    }
    if request.transactional {
        let message = Some("transactions are not served".into());
        return Err((ErrorCode::TransactionalIdAuthorizationFailed, message));
    }
    let found = broker.partition(topic, wanted.index);
    let partition = found.ok_or((ErrorCode::UnknownTopicOrPartition, None))?;
    match partition.append(&mut frame[wanted.records.clone()]) {
        Ok(placed) => Ok((partition.log().clone(), placed)),
        Err(error) => {
            tell(topic, wanted.index, &error);
            Err((error.code(), Some(error.to_string())))
        }
    }
}

/// Failures of the disk are the administrator's; the others are the client's own.
fn tell(topic: &str, partition: i32, error: &ProduceError) {
    if error.code() == ErrorCode::KafkaStorageError {
        tracing::error!(topic, partition, %error, "cannot append");
    } else {
        tracing::debug!(topic, partition, %error, "refused a batch");
    }
}

/// Hands out a producer id. Transactional ids are refused: transactions are not served.
pub(super) async fn init_producer_id(
    broker: &Broker,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let answer = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if request.transactional_id.is_some() {
        return answer.with_error_code(ErrorCode::TransactionalIdAuthorizationFailed.code());
    }
    // A new id serves as well as a higher epoch of the old one (KIP-360).
    match broker.producer_id().await {
        Ok(id) => answer.with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => answer.with_error_code(super::convert::storage_error(&error).code()),
    }
}
