//! The command line and the environment: etcd's flags and `ETCD_*` variables (surface spec §12).
//!
//! Parsing only; what the values must satisfy together is in `config.rs`. `list` has the flags.

mod environment;
mod list;
mod unsupported;
mod values;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

pub use list::Flags;
pub use values::{parse_bool, parse_duration};

use environment::read_environment;
use unsupported::NOT_YET_SUPPORTED;

/// What the process was told, and what to log about it.
#[derive(Debug)]
pub struct Parsed {
    pub flags: Flags,
    /// Flags that were given, by command line or environment.
    given: Vec<String>,
    /// Variables that were used.
    pub used_variables: Vec<String>,
    /// `ETCD_*` variables that mean nothing to us.
    pub unknown_variables: Vec<String>,
}

impl Parsed {
    /// Whether `--flag` was given, or its variable set.
    pub fn is_given(&self, flag: &str) -> bool {
        self.given.iter().any(|given| given == flag)
    }
}

/// The process ends before it starts.
#[derive(PartialEq, Eq, Debug)]
pub enum Exit {
    /// Print to stdout, exit 0.
    Help(String),
    /// Print to stderr, exit 2: the command line is wrong.
    Usage(String),
    /// One line to stderr, exit 1: a value is wrong.
    Value(String),
}

/// Reads arguments (without the program's name) and environment variables.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Parsed, Exit> {
    let args: Vec<String> = args.into_iter().map(double_dash).collect();
    for arg in &args {
        let name = arg.strip_prefix("--").map(|a| a.split('=').next().unwrap_or(a));
        if let Some(name) = name.filter(|name| NOT_YET_SUPPORTED.contains(name)) {
            return Err(Exit::Usage(format!("detkv: --{name}: not yet supported")));
        }
    }
    let from_line = matches(&args)?;
    let environment = read_environment(&from_line, variables)?;
    let all = matches(&[args, environment.args].concat())?;
    let flags = Flags::from_arg_matches(&all).map_err(|e| exit_of(&e))?;
    Ok(Parsed {
        given: given_flags(&all),
        flags,
        used_variables: environment.used,
        unknown_variables: environment.unknown,
    })
}

/// Go's flag package takes `-name` for `--name`.
fn double_dash(arg: String) -> String {
    let bytes = arg.as_bytes();
    let single = bytes.len() > 2 && bytes[0] == b'-' && bytes[1].is_ascii_alphabetic();
    if single { format!("-{arg}") } else { arg }
}

fn matches(args: &[String]) -> Result<ArgMatches, Exit> {
    let line = std::iter::once("detkv".to_owned()).chain(args.iter().cloned());
    Flags::command().try_get_matches_from(line).map_err(|e| exit_of(&e))
}

fn exit_of(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp => Exit::Help(text),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let line = text.lines().next().unwrap_or_default();
            Exit::Value(line.strip_prefix("error: ").unwrap_or(line).to_owned())
        }
        _ => Exit::Usage(format!("{text}\n{}", Flags::command().render_usage())),
    }
}

fn given_flags(matches: &ArgMatches) -> Vec<String> {
    let command = Flags::command();
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    command
        .get_arguments()
        .filter(|arg| given(arg.get_id().as_str()))
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str, variables: &[(&str, &str)]) -> Result<Parsed, Exit> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(line.split_whitespace().map(str::to_owned), variables)
    }

    #[test]
    fn flags_and_variables_mean_the_same() {
        let variables = [("ETCD_ELECTION_TIMEOUT", "500"), ("ETCD_NAME", ""), ("HOME", "/")];
        let parsed = parse_line("-data-dir x --pre-vote=false --name=a --name=b", &variables[..1])
            .expect("valid");
        let flags = &parsed.flags;
        assert_eq!(flags.data_dir.as_deref(), Some("x"));
        assert_eq!(
            (flags.name.as_str(), flags.pre_vote, flags.election_timeout),
            ("b", false, 500)
        );
        assert!(parsed.is_given("election-timeout") && parsed.is_given("data-dir"));
        assert!(!parsed.is_given("heartbeat-interval"));
        assert_eq!(parsed.used_variables, ["ETCD_ELECTION_TIMEOUT"]);
        let parsed = parse_line("--pre-vote --quota-backend-bytes -1", &variables).expect("valid");
        assert!(parsed.flags.pre_vote);
        assert_eq!(parsed.flags.quota_backend_bytes, -1);
    }

    #[test]
    fn an_option_set_twice_is_a_conflict() {
        let error = parse_line("--name a", &[("ETCD_NAME", "b")]).expect_err("conflict");
        let Exit::Value(line) = error else { panic!("{error:?}") };
        assert!(line.starts_with("conflicting environment variable is shadowed"), "{line}");
        assert!(line.ends_with("ETCD_NAME=b"), "{line}");
    }

    #[test]
    fn unknown_variables_are_collected_and_unknown_flags_refused() {
        let parsed = parse_line("", &[("ETCD_FOO", "1")]).expect("a warning only");
        assert_eq!(parsed.unknown_variables, ["ETCD_FOO"]);
        assert!(
            matches!(parse_line("--foo", &[]), Err(Exit::Usage(text)) if text.contains("Usage:"))
        );
        assert!(matches!(parse_line("stray", &[]), Err(Exit::Usage(_))));
        assert!(matches!(parse_line("--help", &[]), Err(Exit::Help(_))));
        let unsupported = Exit::Usage("detkv: --cert-file: not yet supported".to_owned());
        assert_eq!(parse_line("--cert-file=x", &[]).expect_err("unsupported"), unsupported);
        let unsupported = Exit::Usage("detkv: ETCD_METRICS: not yet supported".to_owned());
        let variables = [("ETCD_METRICS", "basic")];
        assert_eq!(parse_line("", &variables).expect_err("unsupported"), unsupported);
    }

    #[test]
    fn a_bad_value_is_one_line() {
        for line in ["--election-timeout=x", "--pre-vote=maybe", "--backend-batch-interval=5"] {
            let error = parse_line(line, &[]).expect_err(line);
            let Exit::Value(text) = error else { panic!("{error:?}") };
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}
