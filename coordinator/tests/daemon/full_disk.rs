//! A whole coordinator on a disk that is really full: it says so, to who starts it and to who asks for
//! a change, loses nothing that it acknowledged, and goes on when there is room. Runs in a child, this
//! program started again with one of its ignored tests, for the disk is mounted.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use coordinator::settings::Settings;
use model::admin::{AuditPage, CreatedToken, TokenView};
use model::ids::TokenId;
use trust::audit::AuditChain;

use crate::stage::{Place, Running, soon, token_order};

const DISK_VARIABLE: &str = "FULL_DISK_DIRECTORY";

#[test]
fn a_full_disk_is_told_of_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new("unshare");
    // A mount namespace of its own, which takes the small disk along when the child ends.
    child
        .args(["--mount", "--map-root-user", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "--ignored", "full_disk::child_on_a_small_disk"])
        .env(DISK_VARIABLE, directory.path());
    assert!(child.status().expect("unshare is there").success());
}

#[tokio::test]
#[ignore = "the child of the test with a full disk"]
async fn child_on_a_small_disk() {
    let disk = SmallDisk::mount();
    let place = Place::new();
    let settings = Settings {
        state_dir: disk.path.join("state"),
        ..place.settings()
    };
    disk.fill();
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("make room"), "{refused}");

    disk.make_room();
    let running = place.try_start(&settings).await.unwrap();
    let mut acknowledged = BTreeSet::new();
    acknowledged.extend(make_token(&running).await);
    disk.fill();
    let why = fill_with_tokens(&running, &mut acknowledged).await;
    assert!(why.contains("make room"), "{why}");
    assert_eq!(
        tokens(&running).await,
        acknowledged,
        "what was refused was not done"
    );

    disk.make_room();
    acknowledged.insert(make_token(&running).await.expect("there is room again"));
    disk.fill();
    running.stop().await;
    // It may start on a full disk, or say what to do.
    if let Err(refused) = place.try_start(&settings).await.map(drop) {
        assert!(refused.contains("make room"), "{refused}");
    }
    disk.make_room();
    let running = soon(async {
        loop {
            // The one before may still be letting go of its directory.
            if let Ok(running) = place.try_start(&settings).await {
                return running;
            }
        }
    })
    .await;
    assert_eq!(tokens(&running).await, acknowledged);
    check_log(&running).await;
}

async fn make_token(running: &Running) -> Option<TokenId> {
    let made = soon(
        running
            .local()
            .post::<CreatedToken>("/v1/tokens", &token_order()),
    )
    .await;
    made.ok().map(|made| made.view.id)
}

/// Makes tokens until there is no room, and returns why.
async fn fill_with_tokens(running: &Running, acknowledged: &mut BTreeSet<TokenId>) -> String {
    loop {
        let made = soon(
            running
                .local()
                .post::<CreatedToken>("/v1/tokens", &token_order()),
        )
        .await;
        match made {
            Ok(made) => acknowledged.insert(made.view.id),
            Err(error) => return error.to_string(),
        };
    }
}

async fn tokens(running: &Running) -> BTreeSet<TokenId> {
    let views: Vec<TokenView> = soon(running.local().get("/v1/tokens")).await.unwrap();
    views.into_iter().map(|view| view.id).collect()
}

async fn check_log(running: &Running) {
    let mut after = 0;
    let mut chain = AuditChain::from(1);
    loop {
        let path = format!("/v1/audit?limit=500&after={after}");
        let page: AuditPage = soon(running.local().get(&path)).await.unwrap();
        for entry in &page.entries {
            chain.follow(entry).unwrap();
        }
        match page.next {
            Some(next) => after = next,
            None => return chain.end(page.last, page.last_hash).unwrap(),
        }
    }
}

struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount() -> Self {
        let directory = PathBuf::from(env::var_os(DISK_VARIABLE).unwrap());
        let path = directory.join("disk");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
            .arg(&path);
        assert!(mount.status().unwrap().success());
        Self { path }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves not a byte.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        for size in [1 << 16, 4096, 1] {
            let block = vec![7; size];
            while ballast.write_all(&block).is_ok() {}
        }
        drop(ballast);
        assert!(fs::write(probe(&self.path), [7; 4096]).is_err());
        let _ = fs::remove_file(probe(&self.path));
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

fn probe(disk: &Path) -> PathBuf {
    disk.join("probe")
}
