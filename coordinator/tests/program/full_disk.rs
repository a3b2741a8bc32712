//! The disk of the store is full at any write: whoever asks for a change is told so, nothing that was
//! acknowledged is lost, reads go on, and so does everything as soon as there is room; also when the
//! program is killed while the disk is full.

use std::collections::BTreeSet;
use std::future::Future;

use model::admin::{CoordinatorStatus, CreateToken, CreatedToken, TokenView};
use model::ids::TokenId;
use model::name::Labels;
use runtime::api_client::ApiError;
use tokio::time::timeout;

use crate::place::{PATIENCE, Place, Sign};

/// Room for a store that doubles in each round.
const DISK_BYTES: u64 = 64 << 20;
/// Each round leaves so much more free than the one before, so that it is another write for which
/// there is no room.
const STEP_BYTES: u64 = 20 << 10;
const ROUNDS: u64 = 4;
const KILLS: u64 = 20;
/// How many changes may still find room in what the store has already, before one does not.
const CHANGES_MAX: usize = 5000;

/// Every answer comes in time: nothing hangs because the disk is full.
async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    timeout(PATIENCE, answer).await.expect("it is answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let place = Place::on_small_disk(DISK_BYTES);
    let _program = place.start();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        place.disk().fill(round * STEP_BYTES);
        let refused = change_until_refused(&place, &mut acknowledged).await;
        let text = refused.to_string();
        assert!(text.contains("not made durable"), "{text}");
        assert!(text.contains("make room"), "{text}");
        assert_eq!(tokens(&place).await, acknowledged, "reads go on");
        place.disk().make_room();
        let made = in_time(make_token(&place)).await;
        acknowledged.insert(made.expect("there is room, and nobody started anything anew"));
    }
    assert_eq!(tokens(&place).await, acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_killed_on_a_full_disk_has_all_that_it_acknowledged() {
    let place = Place::on_small_disk(DISK_BYTES);
    let mut acknowledged = BTreeSet::new();
    for round in 0..KILLS {
        let mut program = place.start();
        assert_eq!(tokens(&place).await, acknowledged);
        place.disk().fill(round * STEP_BYTES);
        change_until_refused(&place, &mut acknowledged).await;
        program.kill();
        // On the full disk it starts, or says why not and ends; either way it spoils nothing.
        let (mut again, notify) = place.launch();
        if let Sign::Ended(status) = Sign::of(&mut again, &notify) {
            let said = place.said();
            assert_eq!(status.code(), Some(1), "{said}");
            assert!(said.contains("No space left"), "{said}");
        }
        again.kill();
        place.disk().make_room();
    }
    let _program = place.start();
    assert_eq!(tokens(&place).await, acknowledged);
}

/// Makes tokens until there is no room for one more. Returns what is said then.
async fn change_until_refused(place: &Place, acknowledged: &mut BTreeSet<TokenId>) -> ApiError {
    for _ in 0..CHANGES_MAX {
        match in_time(make_token(place)).await {
            Ok(made) => acknowledged.insert(made),
            Err(refused) => return refused,
        };
    }
    panic!("{CHANGES_MAX} changes fit on a full disk");
}

async fn make_token(place: &Place) -> Result<TokenId, ApiError> {
    let order = CreateToken {
        labels: Labels::new(),
        uses: Some(1),
        valid_for_secs: 3600,
        // Some kilobytes, so that the room that the store has is used up soon.
        names: (0..64)
            .map(|it| format!("{}-{it}", "x".repeat(50)))
            .collect(),
        comment: String::new(),
    };
    let made: CreatedToken = place.local().post("/v1/tokens", &order).await?;
    Ok(made.view.id)
}

/// Returns the tokens that there are, while the program says how it is.
async fn tokens(place: &Place) -> BTreeSet<TokenId> {
    let client = place.local();
    let status: CoordinatorStatus = in_time(client.get("/v1/status")).await.unwrap();
    assert_eq!(status.hosts, 0);
    let views: Vec<TokenView> = in_time(client.get("/v1/tokens")).await.unwrap();
    views.into_iter().map(|view| view.id).collect()
}
