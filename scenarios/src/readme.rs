//! What `scenarios/README.md` says of the vocabulary is what is read, and all of it.

use detkv_sim_world::Fault;
use detkv_sim_world::check;
use detkv_sim_world::fault::KindInfo;

use crate::figures;
use crate::library::read_incident;
use crate::scenario::{FAULT_TIMES, Scenario};

const README: &str = include_str!("../README.md");

/// "The whole vocabulary": one file with every key.
pub fn vocabulary() -> &'static str {
    let (_, block) = README.split_once("```toml\n").expect("the README shows the vocabulary");
    block.split_once("```").expect("the block ends").0
}

/// The keys that are taken where `text` has a wrong one: what its error lists.
fn taken(text: &str) -> Vec<String> {
    let head = "about = \"\"\nprofiles = [\"coupled\"]\nduration = \"1s\"\n";
    let error = Scenario::parse("t", "t.toml", &format!("{head}{text}"), &read_incident);
    let error = error.expect_err("there is no such key").message;
    let (said, names) = error.split_once("expected").expect("the error says what was expected");
    assert!(said.contains("unknown field"), "{error}");
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// From the line that begins so up to the next header.
fn section(header: &str) -> &'static str {
    let block = vocabulary();
    let start = block.find(&format!("\n{header}")).map(|at| at + 1);
    let start = start.unwrap_or_else(|| panic!("{header} is not in the README"));
    let from = &block[start..];
    &from[..from
        .find(
            "
[",
        )
        .unwrap_or(from.len())]
}

fn has_word(text: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_letter(c)).any(|other| other == word)
}

#[test]
fn the_vocabulary_has_every_key_where_it_belongs() {
    for (header, wrong) in [
        ("[member]", "member.no = 1"),
        ("[disk]", "disk.no = 1"),
        ("[disk]", "disk.crash.no = 1"),
        ("[disk]", "disk.episodes.no = 1"),
        ("[disk]", "disk.clustering.no = 1"),
        ("[disk]", "disk.sync.histogram = [{ no = 1 }]"),
        ("[net]", "net.no = 1"),
        ("[net]", "net.peer.no = 1"),
        ("[cpu]", "cpu.no = 1"),
        ("[clocks.m2]", "clocks.m2.no = 1"),
        ("[versions.m2]", "versions.m2.no = 1"),
    ] {
        for key in taken(&format!("{wrong}\n")) {
            assert!(has_word(section(header), &key), "{key} of {header}");
        }
    }
    // Sections have their names in a header.
    for key in taken("no = 1\n") {
        assert!(has_word(vocabulary(), &key), "{key}");
    }
    for key in FAULT_TIMES {
        assert!(has_word(section("[[fault]]"), key), "{key} of a fault");
    }
}

#[test]
fn the_vocabulary_has_every_load_with_every_key() {
    let workload = |rest: &str| format!("[[workload]]\n{rest}\n");
    let kinds = "unknown variant: the error lists all";
    let error = Scenario::parse(
        "t",
        "t.toml",
        &format!(
            "about = \"\"\nprofiles = [\"coupled\"]\nduration = \"1s\"\n{}",
            workload("kind = \"no\"")
        ),
        &read_incident,
    );
    let error = error.expect_err(kinds).message;
    let (_, names) = error.split_once("expected").expect(kinds);
    let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 10, "{error}");
    for kind in names {
        let section = section(&format!("[[workload]]\nkind = \"{kind}\""));
        let mut keys = taken(&workload(&format!("kind = {kind:?}\nno = 1")));
        if keys.iter().any(|key| key == "weights") {
            keys.extend(taken(&workload(&format!("kind = {kind:?}\nweights.no = 1"))));
        }
        if kind == "script" {
            keys.extend(taken(&workload("kind = \"script\"\nsteps = [{ do = \"put\", no = 1 }]")));
        }
        for key in keys {
            assert!(has_word(section, &key), "{key} of {kind}");
        }
    }
}

/// A row of the table of faults.
fn row(kind: &KindInfo) -> String {
    let parameters = kind.parameters.iter().map(|parameter| match parameter.default {
        Some(default) => format!("`{}` ({default})", parameter.name),
        None => format!("`{}`", parameter.name),
    });
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    let survivable =
        if kind.survivable { "" } else { ". **No store can keep every promise then**" };
    format!("| `{}` | {parameters} | {}{survivable} |\n", kind.name, kind.what)
}

#[test]
fn the_table_of_faults_is_the_registry() {
    let rows: String = Fault::KINDS.iter().map(row).collect();
    let (_, table) = README.split_once("| Fault | ").expect("there is a table");
    let (_, table) = table.split_once("|---|---|---|\n").expect("with a head");
    let table = &table[..table.find("\n\n").map_or(table.len(), |end| end + 1)];
    assert!(table == rows, "expected:\n{rows}");
}

#[test]
fn every_checker_and_figure_is_named() {
    for checker in check::all() {
        let name = format!("`{}`", checker.name());
        let (_, judged) = README.split_once("Every run is judged by").expect("it says so");
        let (judged, _) = judged.split_once("\n\n").expect("a paragraph");
        assert!(judged.contains(&name), "{name}");
    }
    for figure in figures::FIGURES {
        assert!(
            README.contains(&format!("| `{}` | {}", figure.name, figure.what)),
            "{}",
            figure.name
        );
    }
}
