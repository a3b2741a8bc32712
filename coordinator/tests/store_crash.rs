//! The redb store in processes that are killed, and on a disk that is really full. Both run in a
//! child: this program started again with one of its ignored tests.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use coordinator::store::{RedbStore, Store, StoreError};
use model::store::{Key, Operation, StoreRevision, Transaction};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const DIRECTORY_VARIABLE: &str = "STORE_CRASH_DIRECTORY";
const KILLS: u64 = 100;
const WRITERS: u64 = 4;

/// Held by each test that starts children: between fork and exec a child holds whatever its parent
/// has open, the lock of a store included.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn acknowledged_transactions_survive_100_kills() {
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for round in 0..KILLS {
        let mut child = start_writing(directory.path());
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        // Few or many transactions, and then some moment of the ones under way.
        let count = pseudo_random(round) % 40;
        acknowledged.read(lines, count, || {
            spin_micros(pseudo_random(round + KILLS) % 3000);
            child.kill().unwrap();
        });
        child.wait().unwrap();
        acknowledged.check(&open(directory.path())).await;
    }
    let writers = acknowledged.last.values();
    assert!(
        writers.sum::<u64>() > KILLS,
        "the writers came to nothing: {acknowledged:?}"
    );
}

#[tokio::test]
async fn first_start_survives_being_killed() {
    let _alone = ALONE.lock().await;
    for round in 0..30 {
        let directory = tempfile::tempdir().unwrap();
        let mut child = start_writing(directory.path());
        spin_micros(pseudo_random(round) % 8000);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut output = String::new();
        child
            .stdout
            .take()
            .expect("it is piped")
            .read_to_string(&mut output)
            .unwrap();
        let mut acknowledged = Acknowledged::default();
        // The last line may be torn.
        let lines = output
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        lines.for_each(|line| acknowledged.note(line));
        acknowledged.check(&open(directory.path())).await;
    }
}

#[test]
fn full_disk_fails_writes_clearly_and_nothing_else() {
    let _alone = ALONE.blocking_lock();
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new("unshare");
    // A mount namespace of its own, which takes the small disk along when the child ends.
    child
        .args(["--mount", "--map-root-user", "--"])
        .arg(env::current_exe().unwrap());
    let status = as_child(&mut child, "child_fills_its_disk", directory.path()).status();
    assert!(status.expect("unshare is there").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the tests that kill"]
async fn child_writes_until_it_is_killed() {
    let store = Arc::new(open(&child_directory()));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let from = last_number(&store, writer).await + 1;
            for number in from.. {
                write_number(&store, writer, number).await;
                // One write call, so that no line is torn by another.
                let line = format!("stored {writer} {number}\n");
                io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
#[ignore = "the child of the test with a full disk"]
async fn child_fills_its_disk() {
    let disk = child_directory().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(&disk);
    assert!(mount.status().unwrap().success());
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; 5 << 20]).unwrap();

    let store = open(&disk);
    let (stored, error) = fill(&store, "first").await;
    assert!(stored > 0);
    assert!(matches!(error, StoreError::NotStored { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("KiB more are needed); make room"),
        "{error}"
    );
    // What is there can be read, and the disk stays full without harm.
    assert_eq!(count(&store).await, stored);
    let (_, error) = fill(&store, "second").await;
    assert!(matches!(error, StoreError::NotStored { .. }), "{error}");
    let before = store.range("").await.unwrap();
    drop(store);
    let store = open(&disk);
    assert_eq!(store.range("").await.unwrap(), before);

    fs::remove_file(&ballast).unwrap();
    let committed = put(&store, "after", 64 * 1024).await.unwrap();
    assert_eq!(committed, before.revision.next());
}

/// The highest number that each writer was told is stored.
#[derive(Debug, Default)]
struct Acknowledged {
    last: BTreeMap<u64, u64>,
}

impl Acknowledged {
    /// Notes `count` lines, calls `kill`, and notes what was on its way by then.
    fn read(
        &mut self,
        lines: impl Iterator<Item = io::Result<String>>,
        count: u64,
        kill: impl FnOnce(),
    ) {
        let mut lines = lines.map(|line| line.expect("the child writes UTF-8"));
        let mut seen = 0;
        while seen < count {
            let line = lines.next().expect("the child writes until it is killed");
            seen += u64::from(line.starts_with("stored"));
            self.note(&line);
        }
        kill();
        lines.for_each(|line| self.note(&line));
    }

    fn note(&mut self, line: &str) {
        let Some(numbers) = line.strip_prefix("stored ") else {
            return;
        };
        // The kill may have torn the last line, which then names no or a smaller number.
        let Some((writer, number)) = numbers.split_once(' ') else {
            return;
        };
        let (Ok(writer), Ok(number)) = (writer.parse(), number.parse::<u64>()) else {
            return;
        };
        let last = self.last.entry(writer).or_default();
        *last = number.max(*last);
    }

    async fn check(&self, store: &RedbStore) {
        for (writer, acknowledged) in &self.last {
            let found = last_number(store, *writer).await;
            assert!(
                found >= *acknowledged,
                "writer {writer}: {found} of {acknowledged}"
            );
        }
        check_complete(store).await;
    }
}

/// Every number up to each writer's last is there, and the revision counts them all.
async fn check_complete(store: &RedbStore) {
    let listing = store.range("numbers/").await.unwrap();
    let mut total = 0;
    for writer in 0..WRITERS {
        let last = last_number(store, writer).await;
        let under = format!("numbers/{writer}/");
        let of_writer = listing
            .entries
            .iter()
            .filter(|entry| entry.key.as_str().starts_with(&under));
        assert_eq!(of_writer.count() as u64, last, "numbers of writer {writer}");
        total += last;
    }
    assert_eq!(listing.revision, StoreRevision(total));
}

async fn last_number(store: &RedbStore, writer: u64) -> u64 {
    let listing = store.range(&format!("last/{writer}")).await.unwrap();
    let value = listing.entries.first().map(|entry| entry.value.as_slice());
    value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
}

/// Stores a number and that it is the last one, together.
async fn write_number(store: &RedbStore, writer: u64, number: u64) {
    let value = vec![7; usize::try_from(pseudo_random(number) % 3000).unwrap()];
    let operations = vec![
        Operation::put(key(&format!("numbers/{writer}/{number}")), value),
        Operation::put(key(&format!("last/{writer}")), number.to_le_bytes()),
    ];
    let transaction = Transaction {
        compare: Vec::new(),
        operations,
    };
    store
        .transaction(transaction)
        .await
        .unwrap()
        .expect("nothing was compared");
}

/// Stores values until one is refused; returns how many were stored, and why no more.
async fn fill(store: &RedbStore, folder: &str) -> (usize, StoreError) {
    for number in 0.. {
        if let Err(error) = put(store, &format!("{folder}/{number}"), 64 * 1024).await {
            return (number, error);
        }
    }
    unreachable!("the disk is smaller than all numbers");
}

async fn put(store: &RedbStore, path: &str, bytes: usize) -> Result<StoreRevision, StoreError> {
    let operations = vec![Operation::put(key(path), vec![7; bytes])];
    let transaction = Transaction {
        compare: Vec::new(),
        operations,
    };
    let committed = store.transaction(transaction).await?;
    Ok(committed.expect("nothing was compared").revision)
}

async fn count(store: &RedbStore) -> usize {
    store.range("").await.unwrap().entries.len()
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

fn open(directory: &Path) -> RedbStore {
    RedbStore::open(&directory.join("store")).unwrap_or_else(|error| panic!("{error}"))
}

fn start_writing(directory: &Path) -> Child {
    let mut child = Command::new(env::current_exe().unwrap());
    as_child(&mut child, "child_writes_until_it_is_killed", directory);
    child.stdout(Stdio::piped()).spawn().unwrap()
}

fn as_child<'c>(command: &'c mut Command, test: &str, directory: &Path) -> &'c mut Command {
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY_VARIABLE, directory)
}

fn child_directory() -> PathBuf {
    env::var_os(DIRECTORY_VARIABLE)
        .expect("this test is started by another one")
        .into()
}

/// Passes some time without giving up the processor; nothing waits for its end.
fn spin_micros(micros: u64) {
    let start = Instant::now();
    while start.elapsed().as_micros() < micros.into() {
        std::hint::spin_loop();
    }
}

/// SplitMix64: the same numbers in every run.
fn pseudo_random(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
