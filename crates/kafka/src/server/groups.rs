//! The requests of the group protocol.

use super::connection::Session;
use super::convert::{storage_error, text};
use crate::broker::{Broker, GroupView};
use crate::core::group::{Join, MemberView, Sync, Who};
use crate::machine::is_group_name;
use crate::wire::ErrorCode;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;

/// First version of `JoinGroup` in which a new member comes back with its id (KIP-394).
const KNOWN_MEMBER_SINCE: i16 = 4;
/// First version in which a leader can be told not to assign (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn owned(text: Option<StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

/// Joins a group, and waits for the others.
pub(super) async fn join(
    session: &Session,
    version: i16,
    client: &str,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    if !is_group_name(&request.group_id) {
        return JoinGroupResponse::default()
            .with_error_code(ErrorCode::InvalidGroupId.code())
            .with_member_id(request.member_id);
    }
    let id = uuid::Uuid::from_bytes(session.broker.random_id());
    let instance = owned(request.group_instance_id);
    let named = instance.as_deref().unwrap_or(client);
    let rebalance = if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let join = Join {
        member: request.member_id.to_string(),
        fresh_member: format!("{named}-{id}"),
        client: (client.to_owned(), session.peer.map(|ip| format!("/{ip}")).unwrap_or_default()),
        session_timeout: millis(request.session_timeout_ms),
        rebalance_timeout: millis(rebalance),
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|of| (of.name.to_string(), of.metadata)).collect(),
        needs_known_member: version >= KNOWN_MEMBER_SINCE,
        can_skip_assignment: version >= SKIP_ASSIGNMENT_SINCE,
        instance,
    };
    let joined = session.broker.inner.groups.join(&request.group_id, join).await;
    let member = |(id, instance, metadata): (String, Option<String>, bytes::Bytes)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
        member.with_group_instance_id(instance.filter(|_| version >= 5).map(text))
    };
    // Null is not possible before version 7.
    let protocol = joined.protocol.or_else(|| (version < 7).then(String::new));
    JoinGroupResponse::default()
        .with_error_code(joined.error.code())
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= 7).map(text))
        .with_protocol_name(protocol.map(text))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(joined.member))
        .with_members(joined.members.into_iter().map(member).collect())
}

/// Hands out, or waits for, the assignment.
pub(super) async fn sync(broker: &Broker, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = Sync {
        who: Who {
            member: request.member_id.to_string(),
            instance: owned(request.group_instance_id),
            generation: request.generation_id,
        },
        protocol_type: owned(request.protocol_type),
        protocol: owned(request.protocol_name),
        assignments: request
            .assignments
            .into_iter()
            .map(|of| (of.member_id.to_string(), of.assignment))
            .collect(),
    };
    let synced = broker.inner.groups.sync(&request.group_id, sync).await;
    SyncGroupResponse::default()
        .with_error_code(synced.error.code())
        .with_protocol_type(synced.protocol_type.map(text))
        .with_protocol_name(synced.protocol.map(text))
        .with_assignment(synced.assignment)
}

/// A member is alive.
pub(super) fn heartbeat(broker: &Broker, request: HeartbeatRequest) -> HeartbeatResponse {
    let who = Who {
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
        generation: request.generation_id,
    };
    HeartbeatResponse::default()
        .with_error_code(broker.inner.groups.heartbeat(&request.group_id, &who).code())
}

/// One member goes (up to version 2), or several.
pub(super) fn leave(broker: &Broker, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let groups = &broker.inner.groups;
    if version < 3 {
        let error = groups.leave(&request.group_id, &request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    let one = |member: MemberIdentity| {
        let error = groups.leave(&request.group_id, &member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(error.code())
    };
    LeaveGroupResponse::default().with_members(request.members.into_iter().map(one).collect())
}

/// Members and state of groups.
pub(super) fn describe(broker: &Broker, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let one = |id: GroupId| {
        let described = DescribedGroup::default().with_group_id(id.clone());
        if let Some(view) = broker.inner.groups.describe(&id) {
            return with_view(described, view);
        }
        // A group without members still has a state while it has offsets.
        let has_offsets = broker.committed_all(&id).is_ok_and(|rows| !rows.is_empty());
        described.with_group_state(text(if has_offsets { "Empty" } else { "Dead" }))
    };
    DescribeGroupsResponse::default().with_groups(request.groups.into_iter().map(one).collect())
}

fn with_view(described: DescribedGroup, view: GroupView) -> DescribedGroup {
    let member = |member: MemberView| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member))
            .with_group_instance_id(member.instance.map(text))
            .with_client_id(text(member.client.0))
            .with_client_host(text(member.client.1))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    };
    described
        .with_group_state(text(view.state))
        .with_protocol_type(text(view.protocol_type))
        .with_protocol_data(text(view.protocol))
        .with_members(view.members.into_iter().map(member).collect())
}

/// All groups, with members or with offsets.
pub(super) fn list(broker: &Broker, request: &ListGroupsRequest) -> ListGroupsResponse {
    let groups = match broker.list_groups() {
        Ok(groups) => groups,
        Err(error) => return ListGroupsResponse::default().with_error_code(storage_error(&error).code()),
    };
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|name| name.eq_ignore_ascii_case(value))
    };
    if !wanted(&request.types_filter, "classic") {
        return ListGroupsResponse::default();
    }
    let listed =
        groups.into_iter().filter(|group| wanted(&request.states_filter, &group.state)).map(|group| {
            let kind =
                broker.inner.groups.describe(&group.name).map(|view| view.protocol_type).unwrap_or_default();
            ListedGroup::default()
                .with_group_id(GroupId(text(group.name)))
                .with_protocol_type(text(kind))
                .with_group_state(text(group.state))
                .with_group_type(text("classic"))
        });
    ListGroupsResponse::default().with_groups(listed.collect())
}

/// Deletes groups without members.
pub(super) async fn delete(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in request.groups_names {
        let (error, _) = super::convert::outcome(&broker.delete_group(&id).await);
        results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(error.code()));
    }
    DeleteGroupsResponse::default().with_results(results)
}
