//! `detkv`: the real driver of a member.
//!
//! | Module | What |
//! |---|---|
//! | `flags`, `config`, `url` | etcd's flags and variables, and their checks |
//! | `start` | ports, data directory, threads, signals, exit code |
//! | `driver`, `inbox`, `clock` | the thread that owns the member |
//! | `disk`, `files` | the disk lanes; the data directory |
//! | `peer` | connections to the other members |
//! | `client`, `serve`, `workers`, `grpc`, `http` | the client port |
//! | `logs`, `metrics`, `process`, `slow` | what the operator sees |

mod client;
mod clock;
mod config;
mod disk;
mod driver;
mod files;
mod flags;
mod grpc;
mod http;
mod inbox;
mod join;
mod logs;
mod metrics;
mod peer;
mod process;
mod serve;
mod slow;
mod start;
mod url;
mod workers;

use std::process::ExitCode;

use flags::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let parsed = match flags::parse(std::env::args().skip(1), std::env::vars()) {
        Ok(parsed) => parsed,
        Err(Exit::Help(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Exit::Usage(text)) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
        Err(Exit::Value(line)) => return refuse(&line),
    };
    if parsed.flags.version {
        print_version();
        return ExitCode::SUCCESS;
    }
    let config = match config::validate(&parsed) {
        Ok(config) => config,
        Err(line) => return refuse(&line),
    };
    if let Err(line) = logs::init(&config.log) {
        return refuse(&line);
    }
    abort_when_the_member_panics();
    for name in parsed.used_variables {
        logs::info("recognized and used environment variable", &[("variable-name", name)]);
    }
    for name in parsed.unknown_variables {
        logs::warn("unrecognized environment variable", &[("environment-variable", name)]);
    }
    for warning in &config.warnings {
        logs::warn(warning, &[]);
    }
    let core = &config.core;
    let fields = [
        ("etcd-version", core.version.clone()),
        ("detkv-version", env!("CARGO_PKG_VERSION").to_owned()),
        ("name", core.name.clone()),
        ("local-member-id", core.id.to_string()),
        ("cluster-id", format!("{:x}", core.cluster_id)),
        ("data-dir", config.data_dir.display().to_string()),
        ("raft-loop", parsed.flags.raft_loop.clone()),
    ];
    logs::info("starting an etcd server", &fields);
    start::run(config)
}

/// One line on stderr, exit code 1.
fn refuse(line: &str) -> ExitCode {
    eprintln!("detkv: {line}");
    ExitCode::FAILURE
}

/// In etcd's form, because tools read the first line.
fn print_version() {
    println!("etcd Version: {}", detkv_core::config::VERSION);
    println!("detkv Version: {}", env!("CARGO_PKG_VERSION"));
    println!("OS/Arch: {}/{}", std::env::consts::OS, std::env::consts::ARCH);
}

/// A member or a disk lane that panicked must not leave a process behind that looks alive.
fn abort_when_the_member_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let vital = name == "member" || name.starts_with("disk-");
        let fields = [("thread", name), ("error", panic.to_string())];
        logs::fatal("panic", &fields);
        if vital {
            std::process::abort();
        }
    }));
}
