//! The authority changes its keys under a coordinator that runs: nobody is cut off, the port shows
//! both roots and then the new one, and the keys on the disk follow.

use model::admin::{AuthorityView, RetireAuthority};
use model::control::{FromHost, ToHost};
use runtime::api_client::{ApiClient, ApiError};
use runtime::control::connect;
use runtime::tls;
use serde_json::json;

use crate::host::{Keys, join};
use crate::stage::{Place, Running, soon};

async fn rotate(running: &Running) -> AuthorityView {
    let nothing = json!({});
    soon(running.local().post("/v1/authority/rotate", &nothing))
        .await
        .unwrap()
}

async fn retire(running: &Running) -> AuthorityView {
    let force = RetireAuthority { force: true };
    soon(async {
        loop {
            let asked = running.local().post("/v1/authority/retire", &force).await;
            match asked {
                Ok(view) => return view,
                // Everything is signed again first.
                Err(ApiError::Refused { status: 503, .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
}

fn keys_on_disk(place: &Place) -> usize {
    let text = std::fs::read_to_string(place.file("authority")).unwrap();
    text.matches("root_seed").count()
}

async fn erased(place: &Place) {
    soon(async {
        while keys_on_disk(place) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn streams_live_on_and_either_root_opens_the_door_until_one_is_retired() {
    let place = Place::new();
    let running = place.start().await;
    let old = running.token().await;
    let first = join(&running.at(), &old, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let mut stream = first.open(&running.at()).await;
    let view = rotate(&running).await;
    assert_eq!((view.roots.len(), keys_on_disk(&place)), (2, 2));
    // The stream stands, and hears of the new root.
    let told = stream.find(|message| match message {
        ToHost::Map(map) if !map.trust.is_empty() => Some(map.trust),
        _ => None,
    });
    let told = told.await;
    let (last, earlier) = told.split_last().unwrap();
    let (anchors, _) = first.anchors.follow(earlier, last).unwrap().unwrap();
    let new = running.token().await;
    assert_eq!(anchors.newest_root(), new.pin);
    stream.say(first.renewal("vm-1")).await;
    let chain = stream.find(|message| match message {
        ToHost::Certificate(Ok(chain)) => Some(chain),
        _ => None,
    });
    assert_eq!(
        chain.await.len(),
        4,
        "itself, what leads to the old root, both roots"
    );
    for (name, token, seed) in [("vm-2", &old, 2), ("vm-3", &new, 3)] {
        let host = join(&running.at(), token, name, Keys::new(seed))
            .await
            .unwrap();
        // Who knows the first root alone is let in as well, and lets the coordinator in.
        host.open(&running.at()).await;
    }
    let view = retire(&running).await;
    assert_eq!(view.left_behind.len(), 3);
    erased(&place).await;
    stream.say(FromHost::Ping(7)).await;
    stream
        .find(|message| matches!(message, ToHost::Pong(7)).then_some(()))
        .await;
    // The next ones come by the new root only.
    let refused = soon(connect(&[running.at()], tls::pinned_client(old.pin))).await;
    assert!(refused.err().unwrap().untrusted);
    soon(async {
        while running.status().await.disbelieving == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    join(&running.at(), &new, "vm-4", Keys::new(4))
        .await
        .unwrap();
    drop(stream);
    running.stop().await;
    let running = place.start().await;
    assert_eq!(running.status().await.root_pin, new.pin.to_string());
    assert_eq!(running.status().await.hosts, 4);
    running.stop().await;
}

#[tokio::test]
async fn the_credential_on_the_coordinator_s_machine_follows() {
    let place = Place::new();
    let running = place.start().await;
    rotate(&running).await;
    let operator = place.operator();
    let status = soon(operator.get::<serde_json::Value>("/v1/status"));
    status.await.unwrap();
    retire(&running).await;
    erased(&place).await;
    let credential = place.credential();
    assert_eq!(
        credential.root_pin.to_string(),
        running.status().await.root_pin
    );
    let client = ApiClient::tls(
        credential.addresses,
        tls::pinned_client(credential.root_pin),
        credential.secret,
    );
    soon(client.get::<serde_json::Value>("/v1/status"))
        .await
        .unwrap();
    running.stop().await;
}

#[tokio::test]
async fn what_a_crash_left_of_the_old_keys_is_erased_by_the_next_start() {
    let place = Place::new();
    let running = place.start().await;
    running.stop().await;
    // Died with the new file in its place, before the former one was overwritten.
    let former = place.file("authority.old");
    std::fs::write(&former, "the keys that were").unwrap();
    let left = std::fs::File::open(&former).unwrap();
    let running = place.start().await;
    soon(async {
        while former.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut content = String::new();
    std::io::Read::read_to_string(&mut &left, &mut content).unwrap();
    assert!(!content.contains("keys"), "{content:?}");
    let view: AuthorityView = soon(running.local().get("/v1/authority")).await.unwrap();
    assert_eq!((view.to_erase, view.erase_trouble), (0, None));
    running.stop().await;
}

#[tokio::test]
async fn keys_that_cannot_be_erased_are_shown() {
    let place = Place::new();
    let running = place.start().await;
    running.stop().await;
    // Something that is no file, where the former one would be.
    let former = place.file("authority.old");
    std::fs::create_dir(&former).unwrap();
    let running = place.start().await;
    let view = soon(async {
        loop {
            let view: AuthorityView = running.local().get("/v1/authority").await.unwrap();
            if view.to_erase > 0 {
                return view;
            }
        }
    })
    .await;
    let why = view.erase_trouble.unwrap();
    assert!(why.contains("authority.old"), "{why}");
    running.stop().await;
}

#[tokio::test]
async fn a_backup_of_the_overlap_is_a_fleet_with_both_roots() {
    use coordinator::restore;
    use coordinator::settings::Task;
    let (place, other) = (Place::new(), Place::new());
    let running = place.start().await;
    rotate(&running).await;
    let backup: model::admin::Backup = soon(running.local().get("/v1/backup")).await.unwrap();
    let file = place.file("../backup.json");
    std::fs::write(&file, serde_json::to_vec(&backup).unwrap()).unwrap();
    running.stop().await;
    restore::run(Task::Restore { file }, &other.settings())
        .await
        .unwrap();
    let running = other.start().await;
    let view: AuthorityView = soon(running.local().get("/v1/authority")).await.unwrap();
    assert_eq!(view.roots.len(), 2);
    running.stop().await;
}
