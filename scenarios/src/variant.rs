//! One file, several scenarios: `[variant.NAME]` tables, and `--set KEY=VALUE` on the command line.
//!
//! What they say takes the place of what the file says: tables are merged key by key; a value or a list is
//! replaced whole, and so is `expect`, because what held for the file need not hold for its variant.

use toml::{Table, Value};

use crate::place::{ScenarioError, error_at, find_cause};

/// Names of the variants of a file that parses.
pub fn names(text: &str) -> Vec<String> {
    let variants = text.parse::<Table>().ok().and_then(|mut file| file.remove("variant"));
    match variants {
        Some(Value::Table(variants)) => variants.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// The text of a file's variant.
///
/// Panics if there is no such variant: look at [`names`] first.
pub fn of(text: &str, name: &str) -> String {
    let mut file: Table = text.parse().expect("the file was read before");
    let variant = file.remove("variant").and_then(|all| match all {
        Value::Table(mut all) => all.remove(name),
        _ => None,
    });
    let Some(Value::Table(variant)) = variant else {
        panic!("the file has a variant {name:?}");
    };
    merge(&mut file, variant);
    file.to_string()
}

/// The text with one `KEY=VALUE` applied: a dotted key, a value as TOML has it; a bare word is a string.
///
/// Errors: what is wrong with the assignment.
pub fn set(text: &str, assignment: &str) -> Result<String, String> {
    let expected = || format!("{assignment:?}: expected KEY=VALUE such as disk.model=\"a.prom\"");
    let (key, value) = assignment.split_once('=').ok_or_else(expected)?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if key.is_empty() || !key.chars().all(is_key) {
        return Err(expected());
    }
    let as_toml = format!("{key} = {value}").parse::<Table>();
    let as_string = || format!("{key} = {value:?}").parse::<Table>().map_err(|_| expected());
    let assignment = as_toml.or_else(|_| as_string())?;
    let mut file: Table = text.parse().expect("the file was read before");
    merge(&mut file, assignment);
    Ok(file.to_string())
}

fn merge(file: &mut Table, over: Table) {
    for (key, value) in over {
        match (file.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if key != "expect" => merge(old, new),
            (_, value) => {
                file.insert(key, value);
            }
        }
    }
}

/// A mistake that a variant brought in, at its place in the whole file; one in a file that it names stays where it is.
pub fn error_in(path: &str, text: &str, name: &str, error: ScenarioError) -> ScenarioError {
    if error.path != path {
        return error;
    }
    let header = format!("[variant.{name}");
    let start = text.find(&header).or_else(|| text.find("[variant")).unwrap_or(0);
    // Sub-tables of the variant belong to it: up to the first header that is not its own.
    let end = text[start..].match_indices("\n[").find(|(at, _)| {
        let line = &text[start + at + 1..];
        !line.starts_with(&header) && !line.starts_with(&format!("[{header}"))
    });
    let end = end.map_or(text.len(), |(at, _)| start + at);
    let span = find_cause(text, start..end, &error.message);
    error_at(path, text, span, format!("{} (variant {name})", error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "duration = \"5s\"\n\
        [disk]\nparallelism = 1\nbytes_per_sec = 7\n\
        [[fault]]\nkind = \"kill\"\n\
        [expect.both]\nterms = 1\n\
        [variant.fast]\nfault = []\ndisk.parallelism = 4\n\
        [variant.fast.expect.coupled]\nterms = 2\n";

    #[test]
    fn a_variant_merges_tables_and_replaces_lists_and_expectations() {
        assert_eq!(names(FILE), ["fast"]);
        let fast: Table = of(FILE, "fast").parse().unwrap();
        let disk = &fast["disk"];
        assert_eq!((&disk["parallelism"], &disk["bytes_per_sec"]), (&4.into(), &7.into()));
        assert_eq!(fast["fault"].as_array().map(Vec::len), Some(0));
        assert!(fast["expect"].get("both").is_none() && !fast.contains_key("variant"));
    }

    #[test]
    fn a_value_on_the_command_line_is_toml_or_a_bare_word() {
        let get = |assignment: &str| {
            set(FILE, assignment).map(|text| text.parse::<Table>().unwrap()["disk"].clone())
        };
        assert_eq!(get("disk.parallelism=9").unwrap()["parallelism"].as_integer(), Some(9));
        assert_eq!(get("disk.model=a/b.prom").unwrap()["model"].as_str(), Some("a/b.prom"));
        let table = get("disk.sync={constant=\"1ms\"}").unwrap();
        assert_eq!(table["sync"]["constant"].as_str(), Some("1ms"));
        for wrong in ["disk", "=1", "a b=1"] {
            assert!(set(FILE, wrong).expect_err("wrong").contains("expected KEY=VALUE"), "{wrong}");
        }
    }
}
