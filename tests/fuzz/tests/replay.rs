//! Every target on its seeds, on the committed corpus, and on damage done to both.

use std::fs;
use std::path::Path;

use fuzz::{TARGETS, Target, corpus, replay};

fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("every name below is a target's")
}

macro_rules! holds {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                let failures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-failures");
                let target = target(stringify!($target));
                assert!(replay::replay(target, &failures) > target.mutations);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($target)),*];
            assert_eq!(replayed.to_vec(), TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
        }
    };
}

holds! {
    admin_json
    agent_messages
    bequests
    certificates
    control_messages
    conversations
    datagrams
    dns_queries
    join_tokens
    overlay_packets
    packet_headers
    packet_runs
    policy_changes
    policy_documents
    service_calls
    service_requests
    settings_files
    super_packets
    trust_payloads
    wireguard_messages
}

#[test]
fn the_corpora_stay_small() {
    for target in TARGETS {
        let directory = corpus::directory(target);
        let files: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(!files.is_empty(), "{} has no committed input", target.name);
        assert!(
            files.len() <= corpus::INPUTS_MAX,
            "{} has {} committed inputs, at most {} are replayed quickly: keep the telling ones",
            target.name,
            files.len(),
            corpus::INPUTS_MAX
        );
        for file in files {
            let bytes = file.metadata().unwrap().len();
            assert!(
                bytes <= corpus::INPUT_BYTES_MAX,
                "{} has {bytes} bytes, more than {}: minimise it",
                file.path().display(),
                corpus::INPUT_BYTES_MAX
            );
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpora).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_str().unwrap();
        assert!(TARGETS.iter().any(|target| target.name == name), "{name}");
    }
}

/// libFuzzer's programs are found by name.
#[test]
fn every_target_has_a_program_under_libfuzzer() {
    let manifest = include_str!("../libfuzzer/Cargo.toml");
    for target in TARGETS {
        let program = format!("libfuzzer/fuzz_targets/{}.rs", target.name);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text.contains(&format!("targets::{}::target", target.name)),
            "{path:?}"
        );
        assert!(
            manifest.contains(&format!("name = \"{}\"", target.name)),
            "{}",
            target.name
        );
    }
}
