//! Core uses no clock, thread, file, socket, async runtime or OS randomness (rules 24). Clippy's
//! bans (`core/clippy.toml`) say so of our own source; these tests of what is linked and what runs.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "plants what is forbidden, to see it caught"
)]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use detkv_core::Profile;
use support::Cluster;

/// Linking something new is a decision: it goes into the list with its reason.
#[test]
fn linked_crates_are_the_allowed_ones() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "detkv-core", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let linked: BTreeSet<String> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    let allowed: BTreeSet<String> = include_str!("../allowed-dependencies.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(linked, allowed, "core/allowed-dependencies.txt must match, reasons included");
    for line in include_str!("../allowed-dependencies.txt").lines() {
        assert!(line.contains("# "), "no reason given: {line}");
    }
}

/// Features of core in a build of one package.
fn features_of_core(package: &str) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", package, "-e", "features,no-dev", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let features = text.lines().filter_map(|line| line.strip_prefix("detkv-core feature "));
    features.filter_map(|rest| rest.split('"').nth(1).map(str::to_owned)).collect()
}

#[test]
fn the_server_is_built_without_in_code_faults_and_the_simulator_with_them() {
    assert!(!features_of_core("detkv-server").contains("probes"));
    assert!(features_of_core("detkv-sim").contains("probes"));
}

const CHILD: &str = "DETKV_SECCOMP_CHILD";

/// Ten thousand steps of a member in a process that the kernel kills for any forbidden call.
/// `getrandom` is allowed: raft-rs draws election timeouts from it, and core overrides them.
#[test]
fn ten_thousand_steps_make_no_forbidden_system_call() {
    if std::env::var_os(CHILD).is_some() {
        child();
    }
    let run = |forbidden: &str| {
        Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "ten_thousand_steps_make_no_forbidden_system_call", "--nocapture"])
            .env(CHILD, forbidden)
            .output()
            .expect("the child starts")
    };
    let clean = run("no");
    assert!(
        clean.status.success(),
        "{:?} {}",
        clean.status,
        String::from_utf8_lossy(&clean.stderr)
    );
    // The check has teeth: the same child is killed for each planted call.
    for call in ["open", "clock", "thread", "socket"] {
        let planted = run(call);
        assert!(!planted.status.success(), "a planted {call} went unnoticed");
    }
}

fn child() -> ! {
    // What the harness itself needs is set up before the door closes.
    let mut cluster = Cluster::new(3, Profile::Decoupled, 3);
    forbid();
    match std::env::var(CHILD).as_deref() {
        Ok("open") => drop(std::fs::File::open("/dev/null")),
        Ok("clock") => drop(std::time::Instant::now()),
        Ok("thread") => drop(std::thread::spawn(|| {}).join()),
        Ok("socket") => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
        _ => {}
    }
    let leader = cluster.elect();
    while cluster.steps < 10_000 {
        cluster.put(leader, &format!("k{}", cluster.steps % 100), "v");
        cluster.ms(10);
    }
    // SAFETY: ends the process without running exit handlers, which may do what is forbidden.
    unsafe { libc::_exit(0) }
}

fn forbid() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let calls = [
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_creat,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_execve,
        libc::SYS_clock_gettime,
        libc::SYS_gettimeofday,
        libc::SYS_time,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_pwrite64,
        libc::SYS_epoll_create1,
        libc::SYS_io_uring_setup,
    ];
    let rules = calls.into_iter().map(|c| (c, vec![])).collect();
    let arch = std::env::consts::ARCH.try_into().expect("an architecture seccomp knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch);
    let program: BpfProgram = filter.expect("rules are valid").try_into().expect("compiles");
    seccompiler::apply_filter(&program).expect("the kernel takes the filter");
    // The vDSO reads the clock without a system call, from the time-stamp counter: forbid that too.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: only changes what the rdtsc instruction does in this thread.
    unsafe {
        libc::prctl(libc::PR_SET_TSC, libc::PR_TSC_SIGSEGV);
    }
}
