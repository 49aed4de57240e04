//! `detkv-sim faults`: every kind of fault by family, with its parameters, their units and defaults, and an example.

use std::fmt::Write as _;

use detkv_sim_world::fault::{Family, Fault, KindInfo, Parameter};

const FAMILIES: [Family; 6] =
    [Family::Disk, Family::Network, Family::Process, Family::Cpu, Family::Clock, Family::Cluster];

/// Keys that every `[[fault]]` has besides its kind's own.
const COMMON: [Parameter; 5] = [
    Parameter::required("at", "duration", "when, after the warm-up"),
    Parameter::optional("times", "number", "1", "how often"),
    Parameter::optional("every", "duration", "needed with times", "between two times"),
    Parameter::optional(
        "jitter",
        "duration",
        "\"0ns\"",
        "each later by up to this, drawn from the seed",
    ),
    Parameter::optional("restart_after", "duration", "never", "kill, power-loss: it starts again"),
];

/// A parameter that so many kinds have is explained once.
const SHARED_BY: usize = 4;

/// Width of the text.
const WIDTH: usize = 110;

/// The list as a person reads it.
pub fn table() -> String {
    let mut out = String::from(
        "Kinds of fault: a [[fault]] table each in a scenario file, or all in one: fault = [{ … }, { … }].\n\
         [brackets]: may be left out. A member that stopped because of a disk fault is started again at its end.\n\nEvery fault has:\n",
    );
    COMMON.iter().for_each(|common| parameter(&mut out, common));
    out.push_str("\nMany kinds have:\n");
    let shared = shared();
    shared.iter().for_each(|shared| parameter(&mut out, shared));
    for family in FAMILIES {
        let kinds: Vec<&KindInfo> = Fault::KINDS.iter().filter(|k| k.family == family).collect();
        if kinds.is_empty() {
            continue;
        }
        let _ = write!(out, "\n{}\n", family.to_string().to_uppercase());
        kinds.into_iter().for_each(|kind| describe(&mut out, kind, &shared));
    }
    out
}

/// The parameters that many kinds have in the same sense, in the order in which they first come.
fn shared() -> Vec<Parameter> {
    let all = || Fault::KINDS.iter().flat_map(|kind| kind.parameters);
    let mut shared: Vec<Parameter> = Vec::new();
    for parameter in all() {
        let count = all().filter(|other| *other == parameter).count();
        if count >= SHARED_BY && !shared.contains(parameter) {
            shared.push(*parameter);
        }
    }
    shared
}

fn describe(out: &mut String, kind: &KindInfo, shared: &[Parameter]) {
    let _ = writeln!(out, "\n  {}", kind.name);
    wrap(out, 4, kind.what);
    if !kind.survivable {
        wrap(
            out,
            4,
            "The member forgets what it had promised: no store can keep every promise then.",
        );
    }
    let names = kind.parameters.iter().map(|parameter| match parameter.default {
        Some(_) => format!("[{}]", parameter.name),
        None => parameter.name.to_owned(),
    });
    wrap(out, 4, &names.collect::<Vec<_>>().join(" "));
    for own in kind.parameters.iter().filter(|parameter| !shared.contains(parameter)) {
        parameter(out, own);
    }
    let _ = writeln!(out, "    e.g. {}", example(kind));
}

/// Name, form and default, then what it is.
fn parameter(out: &mut String, parameter: &Parameter) {
    let Parameter { name, form, default, what } = parameter;
    let default = default.map_or(String::new(), |default| format!(", else {default}"));
    let name = if default.is_empty() { (*name).to_owned() } else { format!("[{name}]") };
    let mut text = String::new();
    wrap(&mut text, 22, &format!("{form}{default}: {what}"));
    let _ = write!(out, "      {name:<15} {}", text.trim_start());
}

/// The parameters of the example, behind the kind; some have none.
fn rest(kind: &KindInfo) -> String {
    if kind.example.is_empty() { String::new() } else { format!(", {}", kind.example) }
}

/// One line of TOML.
fn example(kind: &KindInfo) -> String {
    format!("{{ at = \"3s\", kind = \"{}\"{} }}", kind.name, rest(kind))
}

/// Words in lines of at most `WIDTH`, each indented.
fn wrap(out: &mut String, indent: usize, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{:indent$}{line}", "");
}

/// The list for programs: an array of kinds, each as the registry has it.
pub fn json() -> serde_json::Result<String> {
    serde_json::to_string_pretty(Fault::KINDS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::{FAULT_TIMES, Scenario};

    #[test]
    fn no_parameter_is_taken_for_a_time_of_the_schedule() {
        assert_eq!(COMMON.map(|common| common.name).len(), FAULT_TIMES.len());
        for kind in Fault::KINDS {
            let own = kind.parameters.iter().find(|p| FAULT_TIMES.contains(&p.name));
            assert_eq!(own, None, "{}", kind.name);
        }
    }

    fn parse(kind: &KindInfo) -> Fault {
        let text = format!(
            "about = \"a test\"\nprofiles = [\"coupled\"]\nduration = \"5s\"\nfault = [{}]\n[[workload]]\nkind = \"put-load\"\n",
            example(kind)
        );
        let scenario = Scenario::parse("t", "t.toml", &text, &|_| Err("no file".to_owned()));
        let scenario = scenario.unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        scenario.faults[0].fault.clone()
    }

    #[test]
    fn every_example_is_a_right_fault_of_its_kind() {
        for kind in Fault::KINDS {
            assert_eq!(parse(kind).name(), kind.name);
        }
    }

    #[test]
    fn every_parameter_is_listed_and_every_listed_one_is_taken() {
        for kind in Fault::KINDS {
            let known: BTreeSet<&str> = kind.parameters.iter().map(|p| p.name).collect();
            let error =
                toml::from_str::<Fault>(&format!("kind = {:?}\nno_such_parameter = 1", kind.name))
                    .expect_err("there is no such parameter")
                    .to_string();
            // serde's own list of what it takes.
            let quoted: BTreeSet<&str> = error.split('`').skip(1).step_by(2).collect();
            let taken: BTreeSet<&str> =
                quoted.into_iter().filter(|name| *name != "no_such_parameter").collect();
            assert_eq!(taken, known, "{}: {error}", kind.name);
        }
    }

    #[test]
    fn a_parameter_without_a_default_is_required_and_no_other() {
        for kind in Fault::KINDS {
            let mut all: toml::Table =
                toml::from_str(&format!("f = {{ kind = \"{}\"{} }}", kind.name, rest(kind)))
                    .expect("the example is a table");
            let toml::Value::Table(all) = all.remove("f").expect("it has this key") else {
                panic!("an inline table")
            };
            for parameter in kind.parameters {
                let mut without = all.clone();
                without.remove(parameter.name);
                let taken = toml::Value::Table(without).try_into::<Fault>().is_ok();
                assert_eq!(taken, parameter.default.is_some(), "{} {}", kind.name, parameter.name);
            }
        }
    }

    #[test]
    fn the_list_names_every_kind() {
        let table = table();
        for kind in Fault::KINDS {
            assert!(table.contains(&format!("\n  {}\n", kind.name)), "{}", kind.name);
        }
        assert!(table.lines().all(|line| line.chars().count() <= 200));
        let json: serde_json::Value =
            serde_json::from_str(&json().expect("it is plain data")).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(Fault::KINDS.len()));
    }

    #[test]
    fn the_scenario_every_fault_has_every_kind_that_can_be_survived() {
        let text = include_str!("../every-fault.toml");
        let scenario = Scenario::parse("t", "t.toml", text, &|_| Err("no file".to_owned()));
        let faults = scenario.expect("it is committed").faults;
        let kinds = Fault::KINDS.iter().filter(|k| k.survivable && k.family != Family::Cluster);
        for kind in kinds {
            assert!(faults.iter().any(|plan| plan.fault.name() == kind.name), "{}", kind.name);
        }
    }

    /// Line, column and message of the error in a file with this fault; its header is in line 5.
    fn refused(fault: &str) -> (usize, usize, String) {
        let head = "about = \"a test\"\nprofiles = [\"coupled\"]\nduration = \"5s\"\n\n";
        let text = format!("{head}[[fault]]\nat = \"1s\"\n{fault}");
        let error = Scenario::parse("t", "t.toml", &text, &|_| Err("no file".to_owned()))
            .expect_err("the fault is wrong");
        (error.line, error.column, error.message)
    }

    #[test]
    fn a_wrong_parameter_is_refused_where_it_stands_with_what_was_expected() {
        for (fault, line, column, expected) in [
            ("kind = \"link-loss\"\nppm = 2000000\nduration = \"1s\"\n", 8, 1, "at most 1000000"),
            ("kind = \"link-loss\"\nppm = \"some\"\nduration = \"1s\"\n", 8, 8, "u32"),
            ("kind = \"link-loss\"\nduration = \"1s\"\npm = 5\n", 9, 1, "expected one of"),
            (
                "kind = \"kill-at\"\nnode = \"m1\"\nsite = \"before lunch\"\nduration = \"1s\"\n",
                9,
                9,
                "expected before, during or after",
            ),
            (
                "kind = \"disk-full\"\nnode = \"m1\"\nduration = \"1s\"\nops = [\"remove\"]\n",
                10,
                9,
                "needs no room: expected",
            ),
            (
                "kind = \"disk-error\"\nnode = \"m1\"\ncount = 0\nduration = \"1s\"\n",
                9,
                1,
                "expected at least 1",
            ),
            (
                "kind = \"clock-drift\"\nnode = \"m1\"\nppm = 9000000\nduration = \"1s\"\n",
                9,
                1,
                "expected -100000 to 100000",
            ),
            (
                "kind = \"bit-rot\"\nnode = \"boss\"\nduration = \"1s\"\n",
                8,
                9,
                "expected \"leader\"",
            ),
        ] {
            let (at_line, at_column, message) = refused(fault);
            assert_eq!((at_line, at_column), (line, column), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}
