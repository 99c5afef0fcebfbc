//! The facade on a store on the machine's own disk.

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_log::Volume;
use kiln_store::Store;
use kiln_world::{RealClock, RealDisk, SimRng};

use super::*;
use crate::DEFAULT_VHOST;

struct Running {
    dir: tempfile::TempDir,
    volume: Volume,
    store: Store,
    auth: Auth,
}

/// Cheap passwords: what they cost is not under test.
const SETTINGS: Settings = Settings { iterations: ITERATIONS_MIN };

async fn start() -> Running {
    start_in(tempfile::tempdir().unwrap()).await
}

async fn start_in(dir: tempfile::TempDir) -> Running {
    let disk = Arc::new(RealDisk::new(dir.path()).unwrap());
    let volume = Volume::start(disk, Arc::new(RealClock::new()));
    let store = Store::builder(volume.clone(), "store").machine(AuthMachine).open().unwrap();
    let auth = Auth::open(store.handle(), Arc::new(SimRng::new(1)), SETTINGS).await.unwrap();
    Running { dir, volume, store, auth }
}

impl Running {
    async fn restart(self) -> Running {
        self.store.close().unwrap();
        self.volume.close();
        start_in(self.dir).await
    }
}

fn rejection(result: Result<(), AuthError>) -> Rejection {
    match result {
        Err(AuthError::Submit(SubmitError::Rejected(rejection))) => rejection,
        other => panic!("not refused: {other:?}"),
    }
}

fn only(configure: &str, write: &str, read: &str) -> Permissions {
    Permissions { configure: configure.into(), write: write.into(), read: read.into() }
}

#[tokio::test]
async fn the_default_user_may_do_everything_from_this_host() {
    let running = start().await;
    let auth = &running.auth;
    let guest = auth.login("guest", "guest", Some(Ipv4Addr::LOCALHOST.into())).await.unwrap();
    assert!(guest.is_administrator());
    assert!(auth.login("guest", "guest", Some(Ipv6Addr::LOCALHOST.into())).await.is_ok());
    assert!(auth.login("guest", "guest", Some(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into())).await.is_ok());
    assert!(auth.login("guest", "guest", None).await.is_ok());
    let far = auth.login("guest", "guest", Some(Ipv4Addr::new(192, 0, 2, 1).into())).await.unwrap_err();
    assert!(matches!(far, LoginError::LoopbackOnly(_)), "{far}");
    assert!(auth.vhost_exists(DEFAULT_VHOST) && !auth.vhost_exists("nope"));
    assert!(auth.may_enter("guest", DEFAULT_VHOST) && !auth.may_enter("guest", "nope"));
    for access in [Access::Configure, Access::Write, Access::Read] {
        assert!(auth.allowed("guest", DEFAULT_VHOST, access, "amq.default"));
        assert!(!auth.allowed("guest", "nope", access, "q"));
    }
}

#[tokio::test]
async fn a_deleted_default_user_does_not_come_back() {
    let running = start().await;
    running.auth.delete_user("guest").await.unwrap();
    let running = running.restart().await;
    let auth = &running.auth;
    assert!(auth.check_password("guest", "guest").is_none());
    assert_eq!(auth.users().unwrap(), []);
    assert_eq!(auth.permissions().unwrap(), []);
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_get_the_same_answer() {
    let running = start().await;
    let auth = &running.auth;
    for (user, password) in [("guest", "Guest"), ("guest", ""), ("nobody", "guest"), ("", "")] {
        assert!(auth.check_password(user, password).is_none());
        let error = auth.login(user, password, None).await.unwrap_err();
        assert_eq!(error.to_string(), format!("user {user:?} or its password is wrong"));
    }
}

#[tokio::test]
async fn a_changed_password_is_changed_at_once_though_the_old_one_was_known() {
    let running = start().await;
    let auth = running.auth.clone();
    auth.add_user("ada", "one", vec!["monitoring".into()]).await.unwrap();
    for _ in 0..2 {
        let ada = auth.check_password("ada", "one").unwrap();
        assert_eq!((ada.tags, ada.loopback_only), (vec!["monitoring".to_owned()], false));
    }
    auth.set_password("ada", "two").await.unwrap();
    assert!(auth.check_password("ada", "one").is_none());
    assert!(auth.check_password("ada", "two").is_some());
    let running = running.restart().await;
    let auth = &running.auth;
    assert!(auth.login("ada", "two", Some(Ipv4Addr::new(192, 0, 2, 1).into())).await.is_ok());
    assert!(auth.check_password("ada", "one").is_none());
}

#[tokio::test]
async fn permissions_change_at_once() {
    let running = start().await;
    let auth = &running.auth;
    auth.add_user("ada", "x", vec![]).await.unwrap();
    let writes = |resource| auth.allowed("ada", "/", Access::Write, resource);
    assert!(!writes("logs") && !auth.may_enter("ada", "/"));
    auth.set_permissions("ada", "/", only("", "^logs$", "")).await.unwrap();
    assert!(writes("logs") && !writes("logs2") && auth.may_enter("ada", "/"));
    assert!(!auth.allowed("ada", "/", Access::Read, "logs"));
    auth.set_permissions("ada", "/", only("", "^q", "")).await.unwrap();
    assert!(!writes("logs") && writes("q1"));
    auth.clear_permissions("ada", "/").await.unwrap();
    assert!(!writes("q1") && !auth.may_enter("ada", "/"));
    assert!(auth.allowed("guest", "/", Access::Write, "q1"));
}

#[tokio::test]
async fn deleting_a_user_or_a_vhost_takes_their_permissions_along() {
    let running = start().await;
    let auth = &running.auth;
    auth.add_user("ada", "x", vec![]).await.unwrap();
    auth.add_user("ada2", "x", vec![]).await.unwrap();
    auth.add_vhost("lab").await.unwrap();
    auth.add_vhost("lab").await.unwrap();
    for (user, vhost) in [("ada", "/"), ("ada", "lab"), ("ada2", "lab")] {
        auth.set_permissions(user, vhost, Permissions::full()).await.unwrap();
    }
    auth.delete_user("ada").await.unwrap();
    let left = |auth: &Auth| -> Vec<(String, String)> {
        auth.permissions().unwrap().into_iter().map(|entry| (entry.user, entry.vhost)).collect()
    };
    assert_eq!(left(auth), [("ada2".into(), "lab".into()), ("guest".into(), "/".into())]);
    let mut vhosts = auth.watch_vhosts();
    auth.delete_vhost("lab").await.unwrap();
    assert!(vhosts.has_changed().unwrap());
    vhosts.mark_unchanged();
    assert_eq!(left(auth), [("guest".into(), "/".into())]);
    assert!(!auth.may_enter("ada2", "lab"));
    let names: Vec<String> = auth.vhosts().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["/"]);
}

#[tokio::test]
async fn changes_that_make_no_sense_are_refused_with_the_reason() {
    let running = start().await;
    let auth = &running.auth;
    let taken = auth.add_user("guest", "x", vec![]).await;
    assert_eq!(rejection(taken), Rejection::UserExists("guest".into()));
    for name in ["", "a\0b", &"x".repeat(256)] {
        assert!(matches!(rejection(auth.add_user(name, "x", vec![]).await), Rejection::BadName(_)));
        assert!(matches!(rejection(auth.add_vhost(name).await), Rejection::BadName(_)));
    }
    let nobody = || Rejection::NoUser("bob".into());
    assert_eq!(rejection(auth.set_password("bob", "x").await), nobody());
    assert_eq!(rejection(auth.set_tags("bob", vec![]).await), nobody());
    assert_eq!(rejection(auth.delete_user("bob").await), nobody());
    assert_eq!(rejection(auth.set_permissions("bob", "/", Permissions::full()).await), nobody());
    assert_eq!(rejection(auth.clear_permissions("bob", "/").await), nobody());
    assert_eq!(rejection(auth.delete_vhost("v").await), Rejection::NoVhost("v".into()));
    let no_vhost = auth.set_permissions("guest", "v", Permissions::full()).await;
    assert_eq!(rejection(no_vhost).to_string(), "there is no virtual host \"v\"");
    assert!(matches!(auth.add_user("bob", "", vec![]).await, Err(AuthError::EmptyPassword(_))));
    assert!(matches!(
        auth.set_permissions("guest", "/", only("(", "", "")).await,
        Err(AuthError::Pattern(_))
    ));
    assert!(auth.allowed("guest", "/", Access::Configure, "q"), "a refused change changed something");
}

#[tokio::test]
async fn tags_are_replaced() {
    let running = start().await;
    let auth = &running.auth;
    auth.set_tags("guest", vec!["monitoring".into()]).await.unwrap();
    assert!(!auth.check_password("guest", "guest").unwrap().is_administrator());
    assert_eq!(
        auth.users().unwrap(),
        [UserInfo { name: "guest".into(), tags: vec!["monitoring".into()], loopback_only: true }]
    );
}
