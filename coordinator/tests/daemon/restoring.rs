//! Backups of a coordinator that runs, and what becomes of them on another machine.

use std::fs;

use coordinator::restore;
use coordinator::settings::{StoreTask, Task};
use model::admin::{Backup, HostView, RecoveryStatus};
use model::control::{FromHost, Hello, ToHost};
use model::memory::Memory;

use crate::host::{Host, Keys, Stream, join};
use crate::stage::{Place, Running, soon};

async fn take_backup(running: &Running, place: &Place) -> std::path::PathBuf {
    let backup: Backup = soon(running.local().get("/v1/backup")).await.unwrap();
    let file = place.file("../backup.json");
    fs::write(&file, serde_json::to_vec(&backup).unwrap()).unwrap();
    file
}

async fn do_restore(place: &Place, file: &std::path::Path) -> Result<String, String> {
    let task = Task::Restore { file: file.into() };
    restore::run(task, &place.settings()).await
}

/// A host with what it was told last.
struct Told {
    host: Host,
    memory: Memory,
    hello: Hello,
}

impl Told {
    async fn new(host: Host, running: &Running) -> Self {
        let mut stream = host.open(&running.at()).await;
        let trust = stream
            .find(|message| match message {
                ToHost::Welcome(welcome) => Some(welcome.trust),
                _ => None,
            })
            .await;
        let map = stream
            .find(|message| match message {
                ToHost::Map(map) => Some(map),
                _ => None,
            })
            .await;
        let memory = Memory {
            trust,
            record: map.record.unwrap(),
            records: map.peers.into_iter().map(|peer| peer.record).collect(),
            tombstones: map.tombstones,
            policy: map.policy,
            last: true,
        };
        let hello = Hello {
            trust: None,
            have: Some(map.revision),
            software_version: "test".into(),
            features: vec!["recall".into()],
            boot_counter: 2,
        };
        Self {
            host,
            memory,
            hello,
        }
    }

    async fn greet(&self, running: &Running) -> Stream {
        let stream = self.host.connect(&running.at()).await;
        stream.say(FromHost::Hello(self.hello.clone())).await;
        stream
    }

    /// Tells what it is asked; returns when it is sent away.
    async fn tell(&self, running: &Running) {
        let mut stream = self.greet(running).await;
        stream
            .find(|message| matches!(message, ToHost::Recall).then_some(()))
            .await;
        let memory = FromHost::Memory(Box::new(self.memory.clone()));
        stream.say(memory).await;
        stream
            .find(|message| matches!(message, ToHost::Goodbye(_)).then_some(()))
            .await;
    }
}

async fn recovery(running: &Running) -> RecoveryStatus {
    soon(running.local().get("/v1/recovery")).await.unwrap()
}

#[tokio::test]
async fn a_backup_is_restored_and_the_hosts_bring_back_what_came_after_it() {
    let (old, new) = (Place::new(), Place::new());
    let running = old.start().await;
    let token = running.token().await;
    let first = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let backup = take_backup(&running, &old).await;
    let second = join(&running.at(), &token, "vm-2", Keys::new(2))
        .await
        .unwrap();
    let hosts = [first, second];
    let mut told = Vec::new();
    for host in hosts {
        told.push(Told::new(host, &running).await);
    }
    let before: Vec<HostView> = soon(running.local().get("/v1/hosts")).await.unwrap();
    running.stop().await;

    let said = do_restore(&new, &backup).await.unwrap();
    assert!(
        said.contains("1 hosts") && said.contains("meshctl recovery"),
        "{said}"
    );
    let running = new.start().await;
    assert!(recovery(&running).await.under_way);
    for host in &told {
        host.tell(&running).await;
    }
    soon(async {
        while recovery(&running).await.under_way {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(recovery(&running).await.epoch, 2);
    let after: Vec<HostView> = soon(running.local().get("/v1/hosts")).await.unwrap();
    let places = |hosts: &[HostView]| -> Vec<_> {
        hosts
            .iter()
            .map(|it| (it.id, it.name.clone(), it.addresses))
            .collect()
    };
    assert_eq!(places(&after), places(&before));
    for host in &told {
        let mut stream = host.greet(&running).await;
        let map = stream
            .find(|message| match message {
                ToHost::Map(map) => Some(map),
                _ => None,
            })
            .await;
        assert!(Some(map.revision) > host.hello.have);
        assert_eq!(map.peers.len(), 1);
    }
    running.stop().await;
    let task = Task::Store(StoreTask::Verify { backup: None });
    let verified = restore::run(task, &new.settings()).await.unwrap();
    assert!(verified.contains("epoch 2, 2 hosts"), "{verified}");
}

#[tokio::test]
async fn a_backup_that_was_changed_or_cut_off_is_refused() {
    let (old, new) = (Place::new(), Place::new());
    let running = old.start().await;
    let file = take_backup(&running, &old).await;
    running.stop().await;
    let whole = fs::read_to_string(&file).unwrap();

    fs::write(&file, whole.replacen("\"revision\":1", "\"revision\":9", 1)).unwrap();
    let refused = do_restore(&new, &file).await.unwrap_err();
    assert!(
        refused.contains("changed after it was written"),
        "{refused}"
    );
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = do_restore(&new, &file).await.unwrap_err();
    assert!(refused.contains("cut off"), "{refused}");
    fs::write(&file, whole.replacen("\"format\":1", "\"format\":7", 1)).unwrap();
    let refused = do_restore(&new, &file).await.unwrap_err();
    assert!(refused.contains("format 7"), "{refused}");
    assert!(!new.file("store").exists() && !new.file("authority").exists());

    fs::write(&file, &whole).unwrap();
    let task = Task::Store(StoreTask::Verify {
        backup: Some(file.clone()),
    });
    let verified = restore::run(task, &new.settings()).await.unwrap();
    assert!(
        verified.contains("0 hosts") && verified.contains("everything holds"),
        "{verified}"
    );
}

#[tokio::test]
async fn a_fleet_that_is_there_is_never_overwritten() {
    let place = Place::new();
    let running = place.start().await;
    let file = take_backup(&running, &place).await;
    running.stop().await;
    let refused = do_restore(&place, &file).await.unwrap_err();
    assert!(refused.contains("there is a fleet"), "{refused}");
    place.start().await.stop().await;
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_begun_again() {
    let (old, new) = (Place::new(), Place::new());
    let running = old.start().await;
    let file = take_backup(&running, &old).await;
    running.stop().await;
    do_restore(&new, &file).await.unwrap();
    // As after a power cut just before the end.
    fs::write(new.file("restoring"), "x").unwrap();
    let refused = new.try_start(&new.settings()).await.err().unwrap();
    assert!(refused.contains("mesh-coordinator restore"), "{refused}");
    do_restore(&new, &file).await.unwrap();
    let running = new.start().await;
    assert!(recovery(&running).await.under_way);
    running.stop().await;
}

#[tokio::test]
async fn no_backup_is_given_out_over_the_network() {
    let place = Place::new();
    let running = place.start().await;
    let asked = soon(place.operator().get::<Backup>("/v1/backup")).await;
    assert!(asked.is_err());
    running.stop().await;
}
