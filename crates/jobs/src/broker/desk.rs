//! What answers on a broker's sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kiln_net::{Call, Client, Fault, Peer, Replies, Service, Status};
use kiln_types::Rank;
use tokio::sync::{mpsc, oneshot, watch};

use super::runner::{Told, agent_queue};
use super::uplink::{Upward, forward};
use crate::core::Caller;
use crate::proto::{Answer, Failure, FailureKind, Hello, Reply, Request};

/// The way to the runner, for one socket of the leader.
#[derive(Clone)]
pub(crate) struct ToRunner {
    inputs: mpsc::Sender<Told>,
    next_caller: Arc<AtomicU64>,
}

/// Tells the runner that a caller is gone, unless it was answered.
struct Waiting {
    to_runner: ToRunner,
    caller: Option<Caller>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            // When the runner has no room it learns nothing: an answer to nobody is dropped, which is harmless.
            let _ = self.to_runner.inputs.try_send(Told::CallerGone(caller));
        }
    }
}

fn going_down() -> Failure {
    Failure::new(FailureKind::Busy, "the leader of this instance is going down")
}

impl ToRunner {
    pub(crate) fn new(inputs: mpsc::Sender<Told>) -> ToRunner {
        // 0 is the caller whose answers nobody wants.
        ToRunner { inputs, next_caller: Arc::new(AtomicU64::new(1)) }
    }

    /// Asks the manager.
    pub(crate) async fn ask(&self, userid: u32, request: Request) -> Answer {
        let caller = Caller(self.next_caller.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let told = Told::Request { caller, userid, request, answer };
        self.inputs.send(told).await.map_err(|_| going_down())?;
        let mut waiting = Waiting { to_runner: self.clone(), caller: Some(caller) };
        let answer = answered.await;
        waiting.caller = None;
        answer.map_err(|_| going_down())?
    }

    async fn tell(&self, told: Told) -> Result<(), Fault> {
        self.inputs.send(told).await.map_err(|_| Fault::new(Status::Unavailable, "the leader is going down"))
    }

    async fn session(&self, session: u64, hello: Box<Hello>, replies: &mut Replies) -> Result<(), Fault> {
        let rank = hello.rank;
        let (outgoing, mut messages) = agent_queue();
        self.tell(Told::Hello { session, hello, outgoing }).await?;
        let _gone = SessionGuard { to_runner: self.clone(), rank, session };
        while let Some(message) = messages.next().await {
            replies.item(&message, Bytes::new()).await?;
        }
        Ok(())
    }
}

/// Tells the runner when the stream of a session ends, however it does.
struct SessionGuard {
    to_runner: ToRunner,
    rank: Rank,
    session: u64,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let told = Told::SessionGone { rank: self.rank, session: self.session };
        if let Err(mpsc::error::TrySendError::Full(told)) = self.to_runner.inputs.try_send(told) {
            let inputs = self.to_runner.inputs.clone();
            tokio::spawn(async move { inputs.send(told).await });
        }
    }
}

fn uid_of(peer: Peer) -> Result<u32, Fault> {
    match peer {
        Peer::Local { uid, .. } => Ok(uid),
        Peer::Remote(_) => Err(Fault::new(Status::Denied, "clients speak to a broker's unix socket")),
    }
}

/// The leader's socket for clients.
pub(crate) struct LeaderDesk(pub(crate) ToRunner);

impl Service for LeaderDesk {
    async fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let answer = self.0.ask(uid_of(call.peer)?, call.decode()?).await;
        replies.last(&answer, Bytes::new()).await
    }
}

/// The leader's socket for brokers.
pub(crate) struct BrokersDesk {
    pub(crate) to_runner: ToRunner,
    /// The only user, beside root, whose brokers may connect.
    pub(crate) owner: u32,
}

impl Service for BrokersDesk {
    async fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let uid = uid_of(call.peer)?;
        if uid != self.owner && uid != 0 {
            return Err(Fault::new(Status::Denied, "only brokers of the instance's owner may connect"));
        }
        match call.decode()? {
            Upward::Hello { session, hello } => self.to_runner.session(session, hello, replies).await,
            Upward::Tell { rank, session, messages } => {
                self.to_runner.tell(Told::Agent { rank, session, messages }).await?;
                replies.last(&(), Bytes::new()).await
            }
            Upward::Forward { uid } => {
                let request: Request = postcard::from_bytes(&call.bulk)
                    .map_err(|error| Fault::new(Status::BadRequest, error.to_string()))?;
                let answer = self.to_runner.ask(uid, request).await;
                replies.last(&answer, Bytes::new()).await
            }
        }
    }
}

/// A member's socket for clients: everything goes to the leader, but what is about this broker is said here.
pub(crate) struct MemberDesk {
    pub(crate) connection: watch::Receiver<Option<Client>>,
    /// Attributes that differ from the leader's.
    pub(crate) attributes: Vec<(String, String)>,
}

impl Service for MemberDesk {
    async fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let uid = uid_of(call.peer)?;
        let request: Request = call.decode()?;
        let answer = forward(self.connection.clone(), uid, call.body.clone(), may_repeat(&request)).await;
        match (answer, request) {
            (Ok(answer), Request::Attributes) => {
                let answer = postcard::from_bytes::<Answer>(&answer)
                    .map_err(|error| Fault::new(Status::Internal, error.to_string()))?;
                replies.last(&self.own_attributes(answer), Bytes::new()).await
            }
            (Ok(answer), _) => replies.last_raw(answer, Bytes::new()).await,
            (Err(failure), _) => replies.last(&Answer::Err(failure), Bytes::new()).await,
        }
    }
}

/// Whether a request has the same effect when it is carried out twice.
fn may_repeat(request: &Request) -> bool {
    match request {
        Request::List(_)
        | Request::Last { .. }
        | Request::Stats
        | Request::Info { .. }
        | Request::Events { .. }
        | Request::Output { .. }
        | Request::Resources
        | Request::Attributes
        | Request::SchedulingStatus => true,
        Request::Submit(submit) => submit.key.is_some(),
        _ => false,
    }
}

impl MemberDesk {
    fn own_attributes(&self, answer: Answer) -> Answer {
        let Ok(Reply::Attributes(mut attributes)) = answer else { return answer };
        for (name, value) in &mut attributes {
            if let Some((_, own)) = self.attributes.iter().find(|(own, _)| own == name) {
                value.clone_from(own);
            }
        }
        Ok(Reply::Attributes(attributes))
    }
}
