use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn limits() -> Limits {
    Limits { session_min: MS(1_000), session_max: MS(60_000), initial_delay: Duration::ZERO, members_max: 3 }
}

fn join(member: &str, fresh: &str) -> Join {
    Join {
        member: member.into(),
        fresh_member: fresh.into(),
        instance: None,
        client: ("c".into(), "h".into()),
        session_timeout: MS(10_000),
        rebalance_timeout: MS(5_000),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"m"))],
        needs_known_member: false,
        can_skip_assignment: false,
    }
}

fn who(member: &str, generation: i32) -> Who {
    Who { member: member.into(), instance: None, generation }
}

fn sync(member: &str, generation: i32, shares: &[(&str, &'static str)]) -> Sync {
    let assignments =
        shares.iter().map(|(id, share)| ((*id).to_owned(), Bytes::from_static(share.as_bytes())));
    Sync {
        who: who(member, generation),
        protocol_type: None,
        protocol: None,
        assignments: assignments.collect(),
    }
}

/// Token, error, generation and leader of each answered join.
fn joins(effects: &[Effect]) -> Vec<(u64, ErrorCode, i32, &str)> {
    let joined = |effect| match effect {
        &Effect::Joined(token, ref j) => Some((token.0, j.error, j.generation, j.leader.as_str())),
        Effect::Synced(..) => None,
    };
    effects.iter().filter_map(joined).collect()
}

fn syncs(effects: &[Effect]) -> Vec<(u64, ErrorCode, &[u8])> {
    let synced = |effect| match effect {
        &Effect::Synced(token, ref s) => Some((token.0, s.error, s.assignment.as_ref())),
        Effect::Joined(..) => None,
    };
    effects.iter().filter_map(synced).collect()
}

/// A stable group of a (leader) and b, in generation 2.
fn pair() -> Group {
    let mut group = Group::new(limits());
    assert_eq!(joins(&group.join(MS(0), &join("", "a"), Token(1))), [(1, ErrorCode::None, 1, "a")]);
    assert_eq!(
        syncs(&group.sync(MS(0), sync("a", 1, &[("a", "all")]), Token(2))),
        [(2, ErrorCode::None, &b"all"[..])]
    );
    assert_eq!(group.join(MS(1), &join("", "b"), Token(3)), []);
    assert_eq!(group.heartbeat(MS(2), &who("a", 1)), ErrorCode::RebalanceInProgress);
    let effects = group.join(MS(3), &join("a", ""), Token(4));
    assert_eq!(joins(&effects), [(4, ErrorCode::None, 2, "a"), (3, ErrorCode::None, 2, "a")]);
    assert_eq!(group.sync(MS(4), sync("b", 2, &[]), Token(5)), []);
    let effects = group.sync(MS(5), sync("a", 2, &[("a", "p0"), ("b", "p1")]), Token(6));
    assert_eq!(syncs(&effects), [(6, ErrorCode::None, &b"p0"[..]), (5, ErrorCode::None, &b"p1"[..])]);
    assert_eq!(group.state(), State::Stable);
    group
}

#[test]
fn two_members_share_and_only_the_leader_sees_the_list() {
    let mut group = pair();
    assert_eq!(group.heartbeat(MS(10), &who("a", 2)), ErrorCode::None);
    assert_eq!(group.heartbeat(MS(10), &who("a", 1)), ErrorCode::IllegalGeneration);
    assert_eq!(group.heartbeat(MS(10), &who("z", 2)), ErrorCode::UnknownMemberId);
    assert_eq!(group.may_commit(MS(10), &who("b", 2)), ErrorCode::None);
    assert_eq!(group.may_commit(MS(10), &who("", -1)), ErrorCode::UnknownMemberId);
    let effects = group.join(MS(11), &join("b", ""), Token(9));
    assert!(matches!(&effects[..], [Effect::Joined(_, joined)] if joined.members.is_empty()), "{effects:?}");
}

#[test]
fn a_silent_member_is_dropped_and_the_other_gets_everything() {
    let mut group = pair();
    group.heartbeat(MS(9_000), &who("a", 2));
    assert_eq!(group.next_tick(), Some(MS(10_005)));
    assert_eq!(group.tick(MS(10_005)), []);
    assert_eq!(group.heartbeat(MS(10_006), &who("a", 2)), ErrorCode::RebalanceInProgress);
    assert_eq!(joins(&group.join(MS(10_007), &join("a", ""), Token(9))), [(9, ErrorCode::None, 3, "a")]);
    assert_eq!(group.heartbeat(MS(10_008), &who("b", 2)), ErrorCode::UnknownMemberId);
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_left_out() {
    let mut group = pair();
    let (error, effects) = group.leave(MS(100), "a", None);
    assert_eq!((error, effects), (ErrorCode::None, vec![]));
    assert_eq!(group.join(MS(101), &join("", "c"), Token(7)), []);
    let effects = group.tick(MS(5_100));
    assert_eq!(joins(&effects), [(7, ErrorCode::None, 3, "c")]);
    assert_eq!(group.members().len(), 1);
}

#[test]
fn a_leader_that_never_assigns_is_replaced() {
    let mut group = pair();
    group.join(MS(10), &join("a", ""), Token(7));
    let effects = group.join(MS(10), &join("b", ""), Token(8));
    assert_eq!(joins(&effects).len(), 2);
    assert_eq!(group.sync(MS(11), sync("b", 3, &[]), Token(9)), []);
    let effects = group.tick(MS(5_010));
    assert_eq!(syncs(&effects), [(9, ErrorCode::RebalanceInProgress, &b""[..])]);
    assert_eq!(joins(&group.join(MS(5_011), &join("b", ""), Token(10))), [(10, ErrorCode::None, 4, "b")]);
}

#[test]
fn a_new_member_must_come_back_with_its_id() {
    let mut group = Group::new(limits());
    let wanting = Join { needs_known_member: true, ..join("", "m1") };
    let effects = group.join(MS(0), &wanting, Token(1));
    assert_eq!(effects, [Effect::Joined(Token(1), Joined::failed(ErrorCode::MemberIdRequired, "m1".into()))]);
    assert!(!group.is_idle());
    assert_eq!(joins(&group.join(MS(1), &join("m1", ""), Token(2))), [(2, ErrorCode::None, 1, "m1")]);
}

#[test]
fn a_promised_id_is_forgotten_in_the_end() {
    let mut group = Group::new(limits());
    group.join(MS(0), &Join { needs_known_member: true, ..join("", "m1") }, Token(1));
    group.tick(MS(10_000));
    assert!(group.is_idle());
    assert_eq!(joins(&group.join(MS(10_001), &join("m1", ""), Token(2)))[0].1, ErrorCode::UnknownMemberId);
}

#[test]
fn the_first_rebalance_gathers_members() {
    let mut group = Group::new(Limits { initial_delay: MS(100), ..limits() });
    assert_eq!(group.join(MS(0), &join("", "a"), Token(1)), []);
    assert_eq!(group.join(MS(50), &join("", "b"), Token(2)), []);
    assert_eq!(group.next_tick(), Some(MS(100)));
    assert_eq!(joins(&group.tick(MS(100))).len(), 2);
}

#[test]
fn a_static_member_that_restarts_keeps_its_share_without_a_rebalance() {
    let fixed = |member: &str, fresh: &str| Join { instance: Some("i".into()), ..join(member, fresh) };
    let mut group = Group::new(limits());
    group.join(MS(0), &fixed("", "i-1"), Token(1));
    group.sync(MS(0), sync("i-1", 1, &[("i-1", "p0")]), Token(2));
    let effects = group.join(MS(10), &Join { can_skip_assignment: true, ..fixed("", "i-2") }, Token(3));
    assert_eq!(joins(&effects), [(3, ErrorCode::None, 1, "i-2")]);
    assert!(matches!(&effects[..], [Effect::Joined(_, joined)] if joined.skip_assignment));
    assert_eq!(syncs(&group.sync(MS(11), sync("i-2", 1, &[]), Token(4))), [(4, ErrorCode::None, &b"p0"[..])]);
    let old = Who { member: "i-1".into(), instance: Some("i".into()), generation: 1 };
    assert_eq!(group.heartbeat(MS(12), &old), ErrorCode::FencedInstanceId);
    assert_eq!(group.leave(MS(13), "", Some("i")).0, ErrorCode::None);
    assert_eq!(group.state(), State::Empty);
}

#[test]
fn members_without_a_common_protocol_are_refused() {
    let mut group = pair();
    let other = Join { protocols: vec![("sticky".into(), Bytes::new())], ..join("", "c") };
    assert_eq!(joins(&group.join(MS(9), &other, Token(9)))[0].1, ErrorCode::InconsistentGroupProtocol);
    let connect = Join { protocol_type: "connect".into(), ..join("", "c") };
    assert_eq!(joins(&group.join(MS(9), &connect, Token(9)))[0].1, ErrorCode::InconsistentGroupProtocol);
    let hasty = Join { session_timeout: MS(10), ..join("", "c") };
    assert_eq!(joins(&group.join(MS(9), &hasty, Token(9)))[0].1, ErrorCode::InvalidSessionTimeout);
}

#[test]
fn a_group_has_no_more_members_than_it_may() {
    let mut group = pair();
    group.join(MS(9), &join("", "c"), Token(7));
    assert_eq!(joins(&group.join(MS(9), &join("", "d"), Token(8)))[0].1, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_waiting_member_whose_connection_ends_dies_with_its_session() {
    let mut group = pair();
    group.join(MS(10), &join("", "c"), Token(7));
    group.abandon(Token(7));
    group.heartbeat(MS(4_000), &who("a", 2));
    group.join(MS(4_000), &join("a", ""), Token(8));
    let effects = group.join(MS(4_001), &join("b", ""), Token(9));
    assert_eq!(joins(&effects), [], "c is still expected");
    let effects = group.tick(MS(5_010));
    assert_eq!(joins(&effects).len(), 2);
    assert_eq!(group.members().len(), 2);
}

#[test]
fn a_rebalance_never_ends_later_than_the_slowest_member_allows() {
    // Random walks: whatever happens, once time passes and nobody speaks, every waiting request is answered.
    use proptest::prelude::*;
    let step = (0_u8..6, 0_usize..4, 0_u64..3_000);
    proptest!(|(steps in proptest::collection::vec(step, 0..60))| {
        let mut group = Group::new(Limits { initial_delay: MS(50), members_max: 10, ..limits() });
        let names = ["a", "b", "c", "d"];
        let mut now = MS(0);
        let mut open = std::collections::BTreeSet::new();
        for (n, (what, who_, pause)) in steps.into_iter().enumerate() {
            now += MS(pause);
            let token = Token(n as u64);
            let name = names[who_];
            let known = group.members().iter().any(|m| m.member == name);
            let effects = match what {
                0 | 1 => { open.insert(token); group.join(now, &join(if known { name } else { "" }, name), token) }
                2 => { open.insert(token); group.sync(now, sync(name, group.generation, &[(name, "x")]), token) }
                3 => group.leave(now, name, None).1,
                4 => { group.heartbeat(now, &who(name, group.generation)); vec![] }
                _ => group.tick(now),
            };
            for effect in &effects {
                let (Effect::Joined(token, _) | Effect::Synced(token, _)) = effect;
                prop_assert!(open.remove(token), "answered twice or never asked: {token:?}");
            }
        }
        for _ in 0..50 {
            let Some(next) = group.next_tick() else { break };
            now = now.max(next);
            for effect in group.tick(now) {
                let (Effect::Joined(token, _) | Effect::Synced(token, _)) = effect;
                prop_assert!(open.remove(&token));
            }
        }
        prop_assert!(group.next_tick().is_none(), "time never comes to an end");
        prop_assert!(open.is_empty(), "unanswered: {open:?}");
    });
}
