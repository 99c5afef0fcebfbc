//! From a request's frame to the work that answers it.

use super::connection::{Close, Session};
use super::{admin, configs, fetch, groups, login, metadata, offsets, produce};
use crate::broker::kibibytes;
use crate::wire::control::{decode, encode};
use crate::wire::fetch::FetchRequest;
use crate::wire::{Api, ErrorCode, Reply, RequestHeader, WireError};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::protocol::{Decodable, Encodable};
use std::future::Future;
use std::pin::Pin;
use tokio::sync::OwnedSemaphorePermit;

/// The largest request other than a `Produce`. What it decodes to takes up to [`DECODED_FACTOR`] times as much.
const CONTROL_BYTES_MAX: usize = 4 << 20;

/// How many times its own bytes a decoded control request may take: a structure of 2 bytes becomes one of 72.
const DECODED_FACTOR: usize = 40;

/// An answer, and the room in memory that it holds until it is written.
pub(super) type Answer = Result<(Reply, Option<OwnedSemaphorePermit>), Close>;

/// An answer that is there, or work that leads to it and starts when its turn has come.
pub(super) enum Pending {
    /// To be written.
    Ready(Reply),
    /// To be finished first.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// What of a request's header its answer needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) api: Api,
    pub(super) version: i16,
    pub(super) correlation: i32,
}

/// Starts the work of a request. None if it wants no answer.
pub(super) fn dispatch(
    session: &Session,
    mut frame: BytesMut,
    room: Option<OwnedSemaphorePermit>,
) -> Result<Option<Pending>, Close> {
    let header = RequestHeader::parse(&frame)?;
    let head = Head { api: header.api, version: header.version, correlation: header.correlation };
    if !head.api.serves(head.version) {
        return unserved(head).map(Some);
    }
    if head.api != Api::Produce && frame.len() > CONTROL_BYTES_MAX {
        return Err(WireError::Length { at: 0, length: frame.len() as i64 }.into());
    }
    let is_login = matches!(head.api, Api::ApiVersions | Api::SaslHandshake | Api::SaslAuthenticate);
    if !is_login && !session.is_open() {
        return Err(Close::LoginRequired);
    }
    match head.api {
        Api::Produce => {
            let request = crate::wire::produce::ProduceRequest::parse(&header, &frame)?;
            produce::produce(&session.broker, head, &request, &mut frame)
        }
        Api::Fetch => {
            let request = FetchRequest::parse(&header, &frame)?;
            let (broker, shutdown) = (session.broker.clone(), session.shutdown.clone());
            Ok(Some(Pending::Later(Box::pin(fetch::fetch(broker, shutdown, head, request)))))
        }
        Api::ApiVersions => Ok(Some(Pending::Ready(api_versions(head, ErrorCode::None)?))),
        _ => {
            let client = header.client.unwrap_or_default().to_owned();
            let body = header.body;
            let request =
                Request { session: session.clone(), head, client, body: frame.freeze().slice(body..) };
            Ok(Some(Pending::Later(Box::pin(async move {
                let _decoded = room_to_decode(&request, room).await;
                Ok((control(request).await?, None))
            }))))
        }
    }
}

/// Swaps the room of a large request's bytes for that of what they decode to.
async fn room_to_decode(
    request: &Request,
    room: Option<OwnedSemaphorePermit>,
) -> Option<OwnedSemaphorePermit> {
    drop(room?);
    let inner = &request.session.broker.inner;
    let wanted =
        kibibytes(request.body.len() * DECODED_FACTOR).min(kibibytes(inner.settings.requests_bytes_max));
    inner.request_room.clone().acquire_many_owned(wanted).await.ok()
}

/// A control request that waits for its turn.
struct Request {
    session: Session,
    head: Head,
    client: String,
    body: Bytes,
}

impl Request {
    fn read<T: Decodable>(&self) -> Result<T, Close> {
        let Head { api, version, correlation } = self.head;
        let header = RequestHeader { api, version, correlation, client: None, body: 0 };
        Ok(decode(&header, self.body.clone())?)
    }

    fn reply(&self, body: &impl Encodable) -> Result<Reply, Close> {
        Ok(encode(self.head.api, self.head.version, self.head.correlation, body)?)
    }
}

async fn control(request: Request) -> Result<Reply, Close> {
    let session = &request.session;
    let broker = &session.broker;
    let version = request.head.version;
    let r = &request;
    match request.head.api {
        Api::Metadata => r.reply(&metadata::metadata(session, version, r.read()?).await),
        Api::DescribeCluster => r.reply(&metadata::describe_cluster(session, &r.read()?)),
        Api::FindCoordinator => r.reply(&metadata::find_coordinator(session, version, r.read()?)),
        Api::ListOffsets => r.reply(&offsets::list(broker, version, r.read()?).await),
        Api::OffsetForLeaderEpoch => r.reply(&offsets::for_leader_epoch(broker, r.read()?)),
        Api::OffsetCommit => r.reply(&offsets::commit(broker, r.read()?).await),
        Api::OffsetFetch => r.reply(&offsets::fetch(broker, version, r.read()?)),
        Api::DeleteRecords => r.reply(&offsets::delete_records(broker, r.read()?).await),
        Api::JoinGroup => r.reply(&groups::join(session, version, &r.client, r.read()?).await),
        Api::SyncGroup => r.reply(&groups::sync(broker, r.read()?).await),
        Api::Heartbeat => r.reply(&groups::heartbeat(broker, r.read()?)),
        Api::LeaveGroup => r.reply(&groups::leave(broker, version, r.read()?)),
        Api::DescribeGroups => r.reply(&groups::describe(broker, r.read()?)),
        Api::ListGroups => r.reply(&groups::list(broker, &r.read()?)),
        Api::DeleteGroups => r.reply(&groups::delete(broker, r.read()?).await),
        Api::InitProducerId => r.reply(&produce::init_producer_id(broker, r.read()?).await),
        Api::CreateTopics => r.reply(&admin::create_topics(broker, version, r.read()?).await),
        Api::DeleteTopics => r.reply(&admin::delete_topics(broker, version, r.read()?).await),
        Api::CreatePartitions => r.reply(&admin::create_partitions(broker, r.read()?).await),
        Api::DescribeConfigs => r.reply(&configs::describe(broker, r.read()?)),
        Api::AlterConfigs => r.reply(&configs::alter(broker, r.read()?).await),
        Api::IncrementalAlterConfigs => r.reply(&configs::alter_some(broker, r.read()?).await),
        Api::SaslHandshake => r.reply(&login::handshake(session, &r.read()?)),
        Api::SaslAuthenticate => r.reply(&login::authenticate(session, r.read()?).await?),
        Api::Produce | Api::Fetch | Api::ApiVersions => unreachable!("dispatched before"),
    }
}

/// The table of what is served.
fn api_versions(head: Head, error: ErrorCode) -> Result<Reply, Close> {
    let row = |api: Api| {
        let (first, last) = api.versions();
        ApiVersion::default().with_api_key(api.key()).with_min_version(first).with_max_version(last)
    };
    let body = ApiVersionsResponse::default()
        .with_error_code(error.code())
        .with_api_keys(Api::all().map(row).collect());
    Ok(encode(head.api, head.version, head.correlation, &body)?)
}

/// A client that asks for an `ApiVersions` from the future is told in version 0 what there is (KIP-511). Of any other
/// request only the closed connection can tell.
fn unserved(head: Head) -> Result<Pending, Close> {
    if head.api == Api::ApiVersions {
        return Ok(Pending::Ready(api_versions(Head { version: 0, ..head }, ErrorCode::UnsupportedVersion)?));
    }
    Err(Close::Version { api: head.api, version: head.version })
}
