//! Files that are right, and mistakes with their places.

use detkv_sim_world::disk::DiskModel;
use detkv_sim_world::fault::Fault;
use detkv_sim_world::rng::Distribution;
use std::time::Duration;

use super::Scenario;
use crate::place::ScenarioError;

pub(super) const HEAD: &str = "about = \"a test\"\nprofiles = [\"coupled\"]\nduration = \"5s\"\n";

pub(super) fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    let histogram = "x_seconds_bucket{le=\"1\"} 5\nx_seconds_bucket{le=\"+Inf\"} 5\n";
    Scenario::parse("t", "t.toml", text, &|path| match path {
        "good.prom" => Ok(histogram.to_owned()),
        "bad.prom" => Ok(format!("{histogram}x_seconds_sum -3\n")),
        _ => Err("no such file".to_owned()),
    })
}

/// Line, column and message of the error in `HEAD` and `rest`.
fn error(rest: &str) -> (usize, usize, String) {
    let error = parse(&format!("{HEAD}{rest}")).expect_err("the file is wrong");
    (error.line, error.column, error.message)
}

#[test]
fn defaults_are_three_members_on_fast_disks() {
    let scenario = parse(HEAD).expect("the file is right");
    assert_eq!((scenario.members, scenario.warm_up), (3, Duration::from_secs(1)));
    assert_eq!(scenario.disk, DiskModel::default());
}

#[test]
fn a_fault_keeps_its_times_and_its_parameters() {
    let text = format!(
        "{HEAD}[[fault]]\nat = \"3s\"\nkind = \"disk-stall\"\nnode = \"leader\"\nduration = \"4s\"\n"
    );
    let scenario = parse(&text).expect("the file is right");
    assert_eq!(scenario.faults[0].at, Duration::from_secs(3));
    assert!(matches!(scenario.faults[0].fault, Fault::DiskStall(_)));
}

#[test]
fn errors_name_line_column_and_what_was_expected() {
    let (line, column, message) = error("membres = 3\n");
    assert_eq!((line, column), (4, 1));
    assert!(message.contains("unknown field `membres`"), "{message}");
    assert_eq!(error("members = 4\n").0, 4);

    let (line, column, message) = error("[[fault]]\nat = \"3s\"\nkind = \"disk-stal\"\n");
    assert_eq!((line, column), (6, 9));
    assert!(message.contains("disk-stall"), "{message}");

    let (line, _, message) = error("\n[[workload]]\nkind = \"put-load\"\n\nclient = 6\n");
    assert_eq!(line, 8);
    assert!(message.contains("expected one of `clients`"), "{message}");

    let (line, column, message) = error("[expect.coupled]\nleader_changes = \"some\"\n");
    assert_eq!((line, column), (5, 18));
    assert!(message.contains("min"), "{message}");

    let (line, _, message) = error("[[fault]]\nat = \"soon\"\nkind = \"kill\"\nnode = \"m1\"\n");
    assert_eq!(line, 5);
    assert!(message.contains("expected such as"), "{message}");
}

#[test]
fn a_load_without_clients_is_refused() {
    let (line, _, message) = error("[[workload]]\nkind = \"mixed\"\nclients = 0\n");
    assert_eq!(line, 6, "{message}");
}

#[test]
fn a_misspelt_figure_option_or_profile_is_named_at_its_place() {
    let (line, column, message) = error("[expect.both]\nterms = 3\nleader_change = 1\n");
    assert_eq!((line, column), (6, 1), "{message}");
    assert!(message.contains("`leader_change`, expected one of leader_changes"), "{message}");

    let (line, column, message) = error("[member]\n[member.coupled]\npre_voting = false\n");
    assert_eq!((line, column), (6, 1), "{message}");
    assert!(message.contains("pre_vote"), "{message}");

    let (line, column, message) = error("show = [\"terms\", \"tems\"]\n");
    assert_eq!((line, column), (4, 18), "{message}");
    assert_eq!(error("[expect.hardened]\nterms = 3\n").0, 4);
}

#[test]
fn a_disk_that_is_a_file_is_read_and_its_mistakes_are_placed_in_it() {
    let good = format!("{HEAD}disk.model = \"good.prom\"\n");
    let scenario = parse(&good).expect("the file is right");
    assert!(matches!(scenario.disk.sync, Distribution::Empirical(_)));
    assert!(scenario.files.contains_key("good.prom"));

    let (line, column, message) = error("\n[disk]\nmodel = \"none.prom\"\n");
    assert_eq!((line, column), (6, 10), "{message}");
    assert!(message.contains("expected a Prometheus text file"), "{message}");

    let error = parse(&good.replace("good", "bad")).expect_err("its sum is negative");
    assert_eq!((error.path.as_str(), error.line), ("bad.prom", 3), "{error}");
}

#[test]
fn clustering_needs_a_model_and_a_bound_of_it() {
    let (line, _, message) = error("[disk]\nclustering = { above = \"1s\", run = 3 }\n");
    assert_eq!(line, 5, "{message}");
    let (line, _, message) =
        error("[disk]\nmodel = \"good.prom\"\nclustering = { above = \"2ms\", run = 3 }\n");
    assert_eq!(line, 6, "{message}");
    assert!(message.contains("bounds"), "{message}");
}
