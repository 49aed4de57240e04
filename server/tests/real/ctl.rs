//! Debian's etcdctl as a child process. Tests that need it say so and pass where it is not installed.

use std::process::{Command, Output};

use crate::support::PATIENCE;

const ETCDCTL: &str = "/usr/bin/etcdctl";

pub fn is_installed() -> bool {
    let is_installed = std::path::Path::new(ETCDCTL).exists();
    if !is_installed {
        println!("skipped: {ETCDCTL} is not installed");
    }
    is_installed
}

/// A command against `endpoints` that waits as long as the tests do.
pub fn etcdctl(endpoints: &str, args: &[&str]) -> Command {
    let patience = format!("{}s", PATIENCE.as_secs());
    let mut command = Command::new(ETCDCTL);
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]);
    command.args(["--dial-timeout", &patience, "--command-timeout", &patience]).args(args);
    command
}

fn output(endpoints: &str, args: &[&str]) -> Output {
    etcdctl(endpoints, args).output().expect("etcdctl runs")
}

/// Runs it; what it printed.
pub fn run(endpoints: &str, args: &[&str]) -> String {
    try_run(endpoints, args).unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
}

/// What it printed, or what it said on stderr and ended with an error.
pub fn try_run(endpoints: &str, args: &[&str]) -> Result<String, String> {
    let output = output(endpoints, args);
    let stderr = String::from_utf8(output.stderr).expect("text");
    let stdout = String::from_utf8(output.stdout).expect("text");
    if output.status.success() { Ok(format!("{stdout}{stderr}")) } else { Err(stderr) }
}
