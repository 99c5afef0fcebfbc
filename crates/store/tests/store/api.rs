//! What a service may rely on, on the machine's own disk.

use crate::common::{Bank, Bench, Command, Rejection, accounts, count};
use futures_util::future::join_all;
use kiln_store::{COMMAND_BYTES_MAX, Machine, OpenError, ReadError, Revision, Store, SubmitError, Tables};
use kiln_types::Timestamp;
use kiln_world::RealDisk;

fn bench() -> (tempfile::TempDir, Bench) {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::new(RealDisk::new(dir.path()).unwrap());
    (dir, bench)
}

#[tokio::test]
async fn a_reply_means_that_a_snapshot_shows_it() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    assert_eq!(running.bank.submit(Command::Deposit { account: 1, amount: 5 }).await.unwrap(), 5);
    let before = running.bank.read();
    assert_eq!(running.bank.submit(Command::Deposit { account: 1, amount: 2 }).await.unwrap(), 7);
    assert_eq!(accounts(&before), [(1, 5)]);
    assert_eq!(accounts(&running.bank.read()), [(1, 7)]);
    assert_eq!(before.revision().unwrap(), Revision(1));
    assert_eq!(running.bank.read().revision().unwrap(), Revision(2));
    assert_eq!(running.bank.submit(Command::Audit).await.unwrap(), 7);
}

#[tokio::test]
async fn a_refused_command_changes_nothing() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Deposit { account: 1, amount: 5 }).await.unwrap();
    let refused = running.bank.submit(Command::Transfer { from: 1, to: 2, amount: 6 }).await;
    assert!(matches!(refused, Err(SubmitError::Rejected(Rejection::TooLittle(1, 5)))));
    let refused = running.bank.submit(Command::Close { account: 9 }).await.unwrap_err();
    assert_eq!(refused.to_string(), "account 9 does not exist");
    assert_eq!(accounts(&running.bank.read()), [(1, 5)]);
    assert_eq!(count(&running.bank.read()), 1);
}

#[tokio::test]
async fn commands_are_there_after_a_close_and_after_a_kill() {
    let (dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Deposit { account: 1, amount: 5 }).await.unwrap();
    running.close();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Deposit { account: 1, amount: 1 }).await.unwrap();
    // The files as a killed process leaves them.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    running.close();
    let killed = Bench::new(RealDisk::new(copy.path()).unwrap()).open().unwrap();
    assert_eq!(accounts(&killed.bank.read()), [(1, 6)]);
    assert_eq!(killed.bank.read().revision().unwrap(), Revision(2));
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test]
async fn many_callers_share_rounds_and_none_is_lost() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    let deposit = |n: u32| running.bank.submit(Command::Deposit { account: (n % 7) as u8, amount: n });
    let replies = join_all((0..5_000).map(deposit)).await;
    assert!(replies.iter().all(Result::is_ok));
    assert_eq!(count(&running.bank.read()), 5_000);
    let total: u64 = accounts(&running.bank.read()).iter().map(|(_, balance)| balance).sum();
    assert_eq!(total, (0..5_000).sum::<u64>());
    running.close();
    assert_eq!(count(&bench.open().unwrap().bank.read()), 5_000);
}

#[tokio::test]
async fn time_does_not_run_backwards() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Audit).await.unwrap();
    bench.clock.set(Timestamp(5));
    running.bank.submit(Command::Audit).await.unwrap();
    let last: Option<Timestamp> = running.bank.read().get("journal", b"last").unwrap();
    assert_eq!(last, Some(Timestamp(1_000_000)));
}

#[tokio::test]
async fn watches_hear_of_their_own_keys_only() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    let mut one = running.bank.watch("accounts", &[1]);
    let mut all = running.store.watch("bank", "accounts", &[]);
    running.bank.submit(Command::Deposit { account: 2, amount: 1 }).await.unwrap();
    assert!(!one.has_changed().unwrap());
    assert!(all.has_changed().unwrap());
    assert_eq!(*all.borrow_and_update(), Revision(1));
    running.bank.submit(Command::Close { account: 7 }).await.unwrap_err();
    assert!(!all.has_changed().unwrap(), "told of a refused command");
    running.bank.submit(Command::Deposit { account: 1, amount: 1 }).await.unwrap();
    assert_eq!(*one.borrow_and_update(), Revision(3));
    running.close();
    assert!(one.changed().await.is_err());
}

#[tokio::test]
async fn limits_and_the_end_are_told() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    let bank = running.bank.clone();
    let large = Command::Fill { account: 1, bytes: vec![0; COMMAND_BYTES_MAX] };
    assert!(matches!(bank.submit(large).await, Err(SubmitError::TooLarge { .. })));
    running.close();
    assert!(matches!(bank.submit(Command::Audit).await, Err(SubmitError::Closed)));
    assert!(matches!(bank.read().get::<u64>("accounts", &[1]), Err(ReadError::Closed)));
}

#[tokio::test]
async fn a_row_of_another_type_is_named() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Deposit { account: 1, amount: 300 }).await.unwrap();
    let error = running.bank.read().get::<u8>("accounts", &[1]).unwrap_err();
    assert!(error.to_string().contains("row \\x01 of table accounts"), "{error}");
}

#[tokio::test]
async fn rows_can_be_paged() {
    let (_dir, bench) = bench();
    let running = bench.open().unwrap();
    for account in [3, 1, 2] {
        running.bank.submit(Command::Deposit { account, amount: 1 }).await.unwrap();
    }
    let snapshot = running.bank.read();
    let keys = |rows: kiln_store::Rows<u64>| rows.map(|row| row.unwrap().0).collect::<Vec<_>>();
    assert_eq!(keys(snapshot.rows_from("accounts", &[2]).unwrap()), [[2], [3]]);
    assert_eq!(keys(snapshot.rows("accounts", &[2]).unwrap()), [[2]]);
    assert_eq!(keys(snapshot.rows("account", &[]).unwrap()), Vec::<Vec<u8>>::new());
}

/// Panics at every command.
struct Broken;

impl Machine for Broken {
    const NAME: &'static str = "broken";
    type Command = ();
    type Reply = ();
    type Rejection = std::convert::Infallible;

    fn apply(&self, _: &mut Tables<'_>, (): (), _: Timestamp) -> Result<(), Self::Rejection> {
        panic!("expected in this test");
    }
}

#[tokio::test]
async fn a_panicking_machine_stops_the_store_and_everybody_hears_why() {
    let (_dir, bench) = bench();
    let volume = kiln_log::Volume::start(bench.disk.clone(), bench.clock.clone());
    let store = Store::builder(volume.clone(), "store").machine(Bank).machine(Broken).open().unwrap();
    let error = store.handle::<Broken>().submit(()).await.unwrap_err();
    assert!(matches!(error, SubmitError::Failed(_)), "{error}");
    let error = store.handle::<Bank>().submit(Command::Audit).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(store.close().is_err());
    volume.close();
}

#[tokio::test]
async fn a_logged_command_of_an_unknown_machine_is_not_skipped() {
    let (dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Audit).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    running.close();
    let killed = Bench::new(RealDisk::new(copy.path()).unwrap());
    let volume = kiln_log::Volume::start(killed.disk.clone(), killed.clock.clone());
    let Err(error) = Store::builder(volume, "store").machine(Broken).open() else { panic!("it was skipped") };
    assert!(matches!(error, OpenError::Replay { .. }));
    assert!(error.to_string().contains("no machine \"bank\""), "{error}");
}

#[tokio::test]
async fn a_log_of_another_store_is_refused() {
    let (dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Audit).await.unwrap();
    running.close();
    std::fs::remove_dir_all(dir.path().join("store/commands")).unwrap();
    let Err(error) = bench.open() else { panic!("it was opened") };
    assert!(matches!(error, OpenError::Apart { .. }), "{error}");
}

#[tokio::test]
async fn a_state_moves_to_another_store() {
    let (_dir, first) = bench();
    let running = first.open().unwrap();
    for account in 0..50 {
        running.bank.submit(Command::Deposit { account, amount: 9 }).await.unwrap();
    }
    let mut stream = Vec::new();
    assert_eq!(running.store.export(&mut stream).unwrap(), Revision(50));

    let (_dir, second) = bench_with_other_rows().await;
    let copy = second.open().unwrap();
    let mut watch = copy.bank.watch("accounts", &[200]);
    let bad = {
        let mut bad = stream.clone();
        *bad.last_mut().unwrap() ^= 1;
        bad
    };
    copy.store.import(std::io::Cursor::new(bad)).await.unwrap_err();
    assert_eq!(accounts(&copy.bank.read()), [(200, 1)], "a damaged stream changed something");
    copy.store.import(std::io::Cursor::new(stream)).await.unwrap();
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), Revision(50));
    assert_eq!(accounts(&copy.bank.read()), accounts(&running.bank.read()));
    copy.bank.submit(Command::Deposit { account: 1, amount: 1 }).await.unwrap();
    copy.close();
    let copy = second.open().unwrap();
    assert_eq!(copy.bank.read().revision().unwrap(), Revision(51));
    assert_eq!(accounts(&copy.bank.read())[1], (1, 10));
}

async fn bench_with_other_rows() -> (tempfile::TempDir, Bench) {
    let (dir, bench) = bench();
    let running = bench.open().unwrap();
    running.bank.submit(Command::Deposit { account: 200, amount: 1 }).await.unwrap();
    running.close();
    (dir, bench)
}

#[tokio::test]
async fn checkpoints_let_the_log_go() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::small(RealDisk::new(dir.path()).unwrap(), 10);
    let running = bench.open().unwrap();
    for n in 0..100 {
        running.bank.submit(Command::Fill { account: n, bytes: vec![n; 1_000] }).await.unwrap();
    }
    let files = std::fs::read_dir(dir.path().join("store/commands")).unwrap();
    let kept: u64 = files.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(kept < 20_000, "{kept} bytes of the last 10 of 100 kB of commands are kept");
    running.close();
    assert_eq!(count(&bench.open().unwrap().bank.read()), 100);
}
