//! The table of promises names every checker, every promise that a checker's file lists, and tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use detkv_sim::check;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Cells of a row of a table; `None` for any other line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// What stands in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// (checker, promise, tests) of the table.
fn table() -> Vec<(String, String, Vec<String>)> {
    let text = read(&root().join("src/check/README.md"));
    let mut checker = String::new();
    let mut rows = Vec::new();
    for row in text.lines().filter_map(cells).filter(|row| row.len() == 3) {
        let Some(promise) = quoted(row[1]).next() else { continue };
        if !row[0].is_empty() {
            checker = row[0].to_owned();
        }
        rows.push((
            checker.clone(),
            promise.to_owned(),
            quoted(row[2]).map(str::to_owned).collect(),
        ));
    }
    rows
}

/// Promises that a checker's file lists above its code.
fn promises(checker: &str) -> BTreeSet<String> {
    let places = [format!("src/check/{checker}.rs"), format!("src/check/{checker}/mod.rs")];
    let file = places.iter().map(|place| root().join(place)).find(|path| path.exists());
    let text = read(&file.expect("each checker is a file"));
    let docs = text.lines().filter_map(|line| line.strip_prefix("//!"));
    let rows = docs.filter_map(cells).map(|row| row[0].to_owned());
    rows.filter(|promise| promise != "Promise" && promise != "---").collect()
}

#[test]
fn the_table_lists_every_promise_of_every_checker() {
    let table = table();
    let listed: BTreeSet<&str> = table.iter().map(|(checker, ..)| checker.as_str()).collect();
    let all = check::all();
    assert_eq!(listed, all.iter().map(|checker| checker.name()).collect());
    for checker in listed {
        let rows = table.iter().filter(|row| row.0 == checker);
        let in_table: BTreeSet<String> = rows.map(|row| row.1.clone()).collect();
        assert_eq!(in_table, promises(checker), "promises of {checker}");
    }
}

#[test]
fn every_promise_has_a_test_that_plants_its_breach() {
    // As in the table, a name without a file is in that of the name before it.
    let mut tests: Vec<String> = Vec::new();
    for (checker, promise, planted) in table() {
        assert!(!planted.is_empty(), "{checker}: nothing plants a breach of {promise:?}");
        for name in planted {
            let name = match name.split_once("::") {
                Some((file, name)) => {
                    let text = read(&root().join(format!("tests/{file}.rs")));
                    let names = text.lines().filter_map(|line| line.strip_prefix("fn "));
                    tests = names
                        .filter_map(|line| line.strip_suffix("() {"))
                        .map(str::to_owned)
                        .collect();
                    name.to_owned()
                }
                None => name,
            };
            let is_there = match name.strip_prefix('…') {
                Some(end) => {
                    tests.iter().any(|test| test.starts_with("checker_") && test.ends_with(end))
                }
                None => tests.contains(&name),
            };
            assert!(is_there, "{checker}, {promise:?}: there is no test {name}");
        }
    }
}
