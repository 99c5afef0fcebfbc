//! Who may speak to the services of a filesystem.

use kiln_net::{Fault, Peer, Status};
use nix::unistd::{Uid, geteuid};

/// Refuses a peer that may not speak to a filesystem's services.
///
/// Requests name the user for whom they are made, and are believed: so on a unix socket only root and the server's own user
/// may make them. A peer that came by TCP is one that the listener let in, which is bound where only members of the cluster
/// reach it.
pub fn check_peer(peer: Peer) -> Result<(), Fault> {
    match peer {
        Peer::Remote(_) => Ok(()),
        Peer::Local { uid, .. } if Uid::from_raw(uid).is_root() || uid == geteuid().as_raw() => Ok(()),
        Peer::Local { uid, .. } => {
            let text =
                format!("user {uid} may not speak to the filesystem's services: root and their own user may");
            Err(Fault::new(Status::Denied, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_may_and_others_may_not() {
        let local = |uid| Peer::Local { uid, pid: 1 };
        let own = geteuid().as_raw();
        assert_eq!(check_peer(local(0)), Ok(()));
        assert_eq!(check_peer(local(own)), Ok(()));
        assert_eq!(check_peer(local(own + 1)).expect_err("a stranger").status, Status::Denied);
        assert_eq!(check_peer(local(u32::MAX)).expect_err("nobody").status, Status::Denied);
    }
}
