//! `ETCD_*` variables, as if they had been on the command line.

use clap::{ArgMatches, CommandFactory};

use super::unsupported::NOT_YET_SUPPORTED;
use super::{Exit, Flags, given_flags, parse_bool};

#[derive(Default)]
pub struct Environment {
    /// As if they had been on the command line.
    pub args: Vec<String>,
    pub used: Vec<String>,
    pub unknown: Vec<String>,
}

fn variable_of(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

pub fn read_environment(
    from_line: &ArgMatches,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Environment, Exit> {
    let mut environment = Environment::default();
    let given = given_flags(from_line);
    let command = Flags::command();
    let flags: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let mut variables: Vec<(String, String)> =
        variables.into_iter().filter(|(name, _)| name.starts_with("ETCD_")).collect();
    variables.sort();
    for (name, value) in variables {
        if NOT_YET_SUPPORTED.iter().any(|flag| variable_of(flag) == name) && !value.is_empty() {
            return Err(Exit::Usage(format!("detkv: {name}: not yet supported")));
        }
        let Some(flag) = flags.iter().find(|flag| variable_of(flag) == name) else {
            environment.unknown.push(name);
            continue;
        };
        if given.iter().any(|given| given == flag) {
            return Err(Exit::Value(format!(
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag): {name}={value}"
            )));
        }
        if value.is_empty() {
            continue;
        }
        match (*flag, parse_bool(&value)) {
            // A flag without a value on the command line.
            ("version", Ok(true)) => environment.args.push("--version".to_owned()),
            ("version", _) => {}
            _ => environment.args.push(format!("--{flag}={value}")),
        }
        environment.used.push(name);
    }
    Ok(environment)
}
