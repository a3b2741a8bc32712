//! Killed in the middle of things: nothing that it acknowledged is lost.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::admin::{CoordinatorStatus, CreateToken, CreatedToken, TokenView};
use model::ids::TokenId;
use model::name::Labels;
use runtime::clock::random_seed;
use tokio::sync::watch;

use crate::place::{PATIENCE, Place, Program};

const KILLS: usize = 100;
const FIRST_START_KILLS: usize = 50;
/// Operators who make tokens at one time.
const OPERATORS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_token_is_lost_to_a_kill() {
    let place = Place::new();
    let acknowledged: Arc<Mutex<BTreeSet<TokenId>>> = Arc::default();
    for _ in 0..KILLS {
        let mut program = place.start();
        let kept: Vec<TokenView> = place.local().get("/v1/tokens").await.unwrap();
        let kept: BTreeSet<TokenId> = kept.into_iter().map(|view| view.id).collect();
        let missing: Vec<_> = acknowledged
            .lock()
            .unwrap()
            .difference(&kept)
            .copied()
            .collect();
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
        kill_among_changes(&place, &mut program, &acknowledged).await;
    }
    assert!(acknowledged.lock().unwrap().len() >= KILLS);
}

/// Lets operators make tokens, and kills the program when some were acknowledged.
async fn kill_among_changes(
    place: &Place,
    program: &mut Program,
    acknowledged: &Arc<Mutex<BTreeSet<TokenId>>>,
) {
    let (count, mut counted) = watch::channel(0usize);
    let count = Arc::new(count);
    let operators: Vec<_> = (0..OPERATORS)
        .map(|_| {
            let (client, acknowledged, count) =
                (place.local(), Arc::clone(acknowledged), Arc::clone(&count));
            tokio::spawn(async move {
                while let Ok(made) = client.post::<CreatedToken>("/v1/tokens", &order()).await {
                    acknowledged.lock().unwrap().insert(made.view.id);
                    count.send_modify(|count| *count += 1);
                }
            })
        })
        .collect();
    let enough = 1 + usize::from(random_byte() % 24);
    tokio::time::timeout(PATIENCE, counted.wait_for(|count| *count >= enough))
        .await
        .unwrap()
        .unwrap();
    program.kill();
    for operator in operators {
        operator.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_is_killed_anywhere_is_continued() {
    for _ in 0..FIRST_START_KILLS {
        let place = Place::new();
        let (mut program, _) = place.launch();
        // Anywhere between nothing and ready: chance is the point, nothing waits for it.
        std::thread::sleep(Duration::from_micros(u64::from(random_byte()) * 100));
        program.kill();
        let before = place.pin_on_disk();
        let _program = place.start();
        let status: CoordinatorStatus = place.local().get("/v1/status").await.unwrap();
        if let Some(before) = before {
            assert_eq!(
                status.root_pin,
                before.to_string(),
                "a second authority was made"
            );
        }
        let operator: CoordinatorStatus = place.operator().get("/v1/status").await.unwrap();
        assert_eq!(operator.fleet, status.fleet);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_program_on_one_state_directory_ends_with_a_sentence() {
    let place = Place::new();
    let _first = place.start();
    let second = place.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains("another mesh-coordinator uses the state directory"),
        "{said}"
    );
    place
        .local()
        .get::<CoordinatorStatus>("/v1/status")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_program_ends_well_and_leaves_no_socket() {
    let place = Place::new();
    let mut program = place.start();
    let id = rustix::process::Pid::from_child(&program.0);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let status = program.0.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(!place.socket().exists());
}

fn order() -> CreateToken {
    CreateToken {
        labels: Labels::new(),
        uses: Some(1),
        valid_for_secs: 3600,
        names: Vec::new(),
        comment: String::new(),
    }
}

fn random_byte() -> u8 {
    random_seed().unwrap()[0]
}
