//! Applies the rules of the house to this repository. Every message says what to do.

use std::sync::LazyLock;

use tidy::House;

static HOUSE: LazyLock<House> = LazyLock::new(House::read);

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n\n  {}\n", complaints.join("\n  "));
}

#[test]
fn crates_import_downwards_only() {
    assert_none(tidy::forbidden_edges(&HOUSE.metadata));
}

#[test]
fn each_big_dependency_has_one_place() {
    assert_none(tidy::misplaced_dependencies(&HOUSE.metadata));
}

#[test]
fn pure_crates_reach_no_io() {
    assert_none(tidy::pure_crates_with_io(&HOUSE.metadata));
}

#[test]
fn versions_live_in_the_workspace_table() {
    assert_none(tidy::unnamed_versions(&HOUSE.files));
}

#[test]
fn every_crate_keeps_the_lints() {
    assert_none(tidy::crates_without_lints(&HOUSE.files));
}

#[test]
fn every_file_opens_with_its_purpose() {
    assert_none(tidy::missing_purpose(&HOUSE.files));
}

#[test]
fn every_file_has_a_name_that_says_something() {
    assert_none(tidy::banned_names(&HOUSE.files));
}

#[test]
fn no_file_outgrows_its_idea() {
    assert_none(tidy::oversized_files(&HOUSE.files));
}

#[test]
fn unsafe_stays_in_its_place() {
    assert_none(tidy::misplaced_unsafe(&HOUSE.files));
}

#[test]
fn every_unsafe_names_its_invariant() {
    assert_none(tidy::undocumented_unsafe(&HOUSE.files));
}

#[test]
fn every_decision_is_linked() {
    assert_none(tidy::unlisted_decisions(&HOUSE.files));
}

#[test]
fn every_link_leads_somewhere() {
    assert_none(tidy::broken_links(&HOUSE.files));
}

#[test]
fn every_page_is_found_from_the_first_one() {
    assert_none(tidy::unlisted_pages(&HOUSE.files));
}

#[test]
fn the_readme_names_both_commands() {
    assert_none(tidy::missing_commands(&HOUSE.files));
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    assert_none(tidy::forbidden_words(&HOUSE.files));
}

#[test]
fn every_crate_comes_from_the_public_registry() {
    assert_none(tidy::foreign_registries(&HOUSE.files));
}
