//! What a request needs back from other sessions before it is served, and what its own session may keep of the answer.

use super::leases::{LeaseTable, OpenMode, Touch};
use super::{Attr, Ino, SessionId, namespace};
use crate::wire::mds::{Act, Answer, Ask, DataLease, Leases, Make};

/// Attributes, and nothing else.
pub const META: Leases = Leases { meta: true, names: false, data: DataLease::None };

/// What goes with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What others must not hold when it is served.
    pub touches: Vec<(Ino, Touch)>,
    /// What its session gets, if nothing is against it.
    pub wants: Vec<Want>,
    /// Of an open: others have the file open too, and somebody writes.
    pub shared: bool,
}

/// Something that a session may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A name in a directory, whether it is there or not.
    Name(Ino, Vec<u8>),
    /// Attributes and data.
    Leases(Ino, Leases),
}

/// Of a question with its answer; `None` is `ENOENT`. Opens and leases have plans of their own; a listing is granted name by
/// name.
pub fn of_ask(ask: &Ask, answer: Option<&Answer>) -> Plan {
    match (ask, answer) {
        (Ask::Lookup { parent, name }, found) => {
            let name = Want::Name(*parent, name.clone());
            let attr = found.and_then(attr_of);
            let mut plan = attr.map_or_else(Plan::default, |attr| of_attr(attr.ino));
            plan.wants.push(name);
            plan
        }
        (Ask::Getattr { ino }, _) => of_attr(*ino),
        (
            Ask::Readlink { ino }
            | Ask::GetXattr { ino, .. }
            | Ask::ListXattr { ino }
            | Ask::Layout { ino }
            | Ask::Default { ino },
            _,
        ) => Plan { wants: vec![Want::Leases(*ino, META)], ..Plan::default() },
        _ => Plan::default(),
    }
}

/// Of attributes that are told: they are true, and may be kept.
fn of_attr(ino: Ino) -> Plan {
    Plan { touches: vec![(ino, Touch::Size)], wants: vec![Want::Leases(ino, META)], shared: false }
}

/// Of an open. Where nobody is in the way, the first read or write needs no further request.
pub fn of_open(table: &LeaseTable, session: SessionId, ino: Ino, write: bool) -> Plan {
    let others = table.others(session, ino);
    let writes = write || others.writing || table.open_mode(session, ino) == Some(OpenMode::Write);
    let shared = others.open && writes;
    let want = match (shared, write) {
        (true, _) => DataLease::Direct,
        (false, true) => DataLease::Write,
        (false, false) => DataLease::Read,
    };
    Plan { shared, ..of_lease(table, session, ino, want) }
}

/// Of a data lease.
pub fn of_lease(table: &LeaseTable, session: SessionId, ino: Ino, want: DataLease) -> Plan {
    let mode = table.mode_with(session, ino, want);
    let mut touches = vec![(ino, Touch::Size), (ino, Touch::Data(mode))];
    touches.extend((mode == DataLease::Write).then_some((ino, Touch::Meta)));
    Plan { touches, wants: vec![Want::Leases(ino, Leases { data: want, ..META })], shared: false }
}

/// Of a change that touches this.
pub fn of_act(act: &Act, touches: Vec<namespace::Touch>) -> Plan {
    let mut plan = Plan { touches: touches.into_iter().filter_map(touch).collect(), ..Plan::default() };
    match act {
        // Their answers have attributes that others may know better; what else answers with some made them.
        Act::Setattr { ino, .. } | Act::Link { ino, .. } => plan.touches.push((*ino, Touch::Size)),
        _ => {}
    }
    plan
}

/// What the session of a change keeps of its answer. An open has its own plan beside.
pub fn kept_of_act(act: &Act, answer: &Answer) -> Vec<Want> {
    let name = match act {
        Act::Make { parent, name, .. } | Act::Link { parent, name, .. } => {
            Some(Want::Name(*parent, name.clone()))
        }
        _ => None,
    };
    // Of a directory that it made a session knows every name: none.
    let names = match (act, answer) {
        (Act::Make { what: Make::Directory, .. }, Answer::Entry(attr)) => {
            Some(Want::Name(attr.ino, Vec::new()))
        }
        _ => None,
    };
    let ino = match (act, answer) {
        (_, Answer::Entry(attr) | Answer::Attr(attr)) => Some(attr.ino),
        (Act::Place { ino, .. } | Act::SetLayout { ino, .. }, _) => Some(*ino),
        _ => None,
    };
    name.into_iter().chain(names).chain(ino.map(|ino| Want::Leases(ino, META))).collect()
}

/// The attributes in an answer.
fn attr_of(answer: &Answer) -> Option<&Attr> {
    match answer {
        Answer::Entry(attr) | Answer::Attr(attr) | Answer::Opened { attr, .. } => Some(attr),
        _ => None,
    }
}

fn touch(touch: namespace::Touch) -> Option<(Ino, Touch)> {
    Some(match touch {
        namespace::Touch::Meta(ino) => (ino, Touch::Meta),
        namespace::Touch::Name(ino, name) => (ino, Touch::Name(name)),
        namespace::Touch::Names(ino) => (ino, Touch::Names),
        namespace::Touch::Bytes(ino) => (ino, Touch::Data(DataLease::Direct)),
        namespace::Touch::Data(ino) => (ino, Touch::Data(DataLease::Write)),
        // Whoever can have it open without having said so says it when the attributes are taken, which change too.
        namespace::Touch::Unlinked(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);
    const FILE: Ino = Ino(9);

    fn table() -> LeaseTable {
        let mut table = LeaseTable::new(0, 10);
        table.join(A);
        table.join(B);
        table
    }

    fn data_of(plan: &Plan) -> DataLease {
        let [Want::Leases(FILE, leases)] = plan.wants[..] else { panic!("{plan:?}") };
        leases.data
    }

    #[test]
    fn who_opens_alone_gets_what_he_needs_and_who_shares_goes_to_the_targets() {
        let mut table = table();
        assert_eq!(data_of(&of_open(&table, A, FILE, false)), DataLease::Read);
        assert_eq!(data_of(&of_open(&table, A, FILE, true)), DataLease::Write);
        table.open(B, FILE, OpenMode::Read).expect("room");
        assert!(!of_open(&table, A, FILE, false).shared, "nobody writes");
        let plan = of_open(&table, A, FILE, true);
        assert_eq!((plan.shared, data_of(&plan)), (true, DataLease::Direct));
        table.open(A, FILE, OpenMode::Write).expect("room");
        assert!(of_open(&table, A, FILE, false).shared, "this session writes");
        assert!(of_open(&table, B, FILE, false).shared, "another session writes");
    }

    #[test]
    fn a_lease_that_makes_a_writer_takes_the_attributes_from_others() {
        let mut table = table();
        let takes_meta = |plan: Plan| plan.touches.contains(&(FILE, Touch::Meta));
        assert!(takes_meta(of_lease(&table, A, FILE, DataLease::Write)));
        assert!(!takes_meta(of_lease(&table, A, FILE, DataLease::Direct)));
        table.grant(A, FILE, Leases { data: DataLease::Read, ..META }, None);
        assert!(takes_meta(of_lease(&table, A, FILE, DataLease::Direct)), "with Read it makes Write");
    }

    #[test]
    fn a_name_that_is_not_there_is_kept_too() {
        let ask = Ask::Lookup { parent: Ino::ROOT, name: b"x".to_vec() };
        let plan = of_ask(&ask, None);
        assert_eq!((plan.wants, plan.touches), (vec![Want::Name(Ino::ROOT, b"x".to_vec())], vec![]));
    }
}
