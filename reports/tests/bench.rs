//! The bench page: complete with several stores, safe from what it shows, sound without data.

use detkv_reports::bench::{
    BenchReport, BenchRow, FsyncProbe, Machine, Ratio, Ratios, Repeat, Stat, Store, StoreResult,
    bench_page,
};

fn stat(median: f64) -> Stat {
    Stat { median, min: median / 2.0, max: 2.0 * median, sd: Some(median / 8.0) }
}

fn result(ops_per_sec: f64) -> StoreResult {
    let repeat = Repeat {
        ops: (3.0 * ops_per_sec) as u64,
        errors: 0,
        seconds: 3.0,
        p50_us: 900,
        p99_us: 4_000,
        p999_us: 9_000,
        max_us: 20_000,
        server_cpu_secs: 1.5,
        client_cpu_secs: 0.4,
        written_bytes: Some(100_000_000),
    };
    StoreResult {
        repeats: vec![repeat.clone(), repeat],
        ops_per_sec: stat(ops_per_sec),
        p50_us: stat(900.0),
        p99_us: stat(4_000.0),
        server_cpu_secs_per_1000: stat(0.05),
        client_cpu_secs_per_1000: stat(0.01),
        write_amplification: Some(stat(9.5)),
        errors: 0,
        error_example: None,
    }
}

fn report() -> BenchReport {
    let ratio = |value| Ratio { value, spread: Some(0.05) };
    let store = |label: &str| Store { label: label.into(), version: "1".into(), path: "/x".into() };
    BenchReport {
        date: "2026-11-22".into(),
        command: "detkv-bench --compare /usr/bin/etcd".into(),
        machine: Machine {
            cpu: "some CPU".into(),
            cores: 2,
            memory_bytes: 24 << 30,
            kernel: "6.1".into(),
            filesystem: "ext4".into(),
            disk: "/dev/vda".into(),
            load_average: 0.1,
        },
        fsync_probe: FsyncProbe { writes: 400, p50_us: 120, p99_us: 1_700, max_us: 2_000 },
        stores: vec![store("detkv"), store("etcd 3.4.23")],
        repeats: 2,
        seconds: 3.0,
        warm_up_seconds: 1.0,
        client_threads: 2,
        rows: vec![BenchRow {
            name: "put/members=3 clients=64 value_bytes=256".into(),
            title: "256 B put, 64 clients".into(),
            clients: 64,
            connections: 9,
            payload_bytes: 272,
            results: vec![result(30_000.0), result(10_000.0)],
            ratios: vec![Ratios {
                against: "etcd 3.4.23".into(),
                ops_per_sec: ratio(3.0),
                p50_us: ratio(1.02),
                p99_us: ratio(1.4),
                server_cpu: ratio(0.4),
                write_amplification: None,
            }],
        }],
    }
}

#[test]
fn wins_and_losses_are_both_marked_and_noise_is_not() {
    let page = bench_page(&report());
    assert!(page.contains("✓ 3.00 ± 0.05"), "more throughput is a win");
    assert!(page.contains("✗ 1.40 ± 0.05"), "a longer p99 is a loss, and shown");
    assert!(page.contains("<td>1.02 ± 0.05</td>"), "a difference within the spread is neither");
    assert!(page.contains("put/members=3 clients=64 value_bytes=256"));
    assert!(page.contains("30 k") && page.contains("10 k"));
}

#[test]
fn a_busy_machine_is_said_first() {
    let mut report = report();
    assert!(!bench_page(&report).contains("was busy"));
    report.machine.load_average = 5.2;
    assert!(bench_page(&report).contains("was busy with other work (load average 5.2 on 2 cores)"));
}

#[test]
fn hostile_names_stay_text() {
    let hostile = "<img src=x onerror=alert(1)>\"'&";
    let mut report = report();
    report.stores[1].label = hostile.into();
    report.stores[1].version = hostile.into();
    report.machine.cpu = hostile.into();
    report.command = hostile.into();
    report.rows[0].title = hostile.into();
    report.rows[0].ratios[0].against = hostile.into();
    report.rows[0].results[0].errors = 3;
    report.rows[0].results[0].error_example = Some(hostile.into());
    let page = bench_page(&report);
    assert!(!page.contains("<img"));
    assert!(!page.contains("<script"), "the page needs no script");
}

#[test]
fn a_report_without_rows_or_with_zeros_still_gives_a_page() {
    let mut report = report();
    let nothing = StoreResult {
        ops_per_sec: stat(0.0),
        repeats: vec![Repeat {
            ops: 0,
            seconds: 0.0,
            ..report.rows[0].results[0].repeats[0].clone()
        }],
        ..result(0.0)
    };
    report.rows[0].results = vec![nothing];
    let page = bench_page(&report);
    assert!(!page.contains("NaN") && !page.contains("inf "), "a division by zero reached the page");
    report.rows.clear();
    report.stores.clear();
    assert!(bench_page(&report).contains("Machine and method"));
}

#[test]
fn the_record_survives_a_trip_through_json() {
    let text = serde_json::to_string(&report()).expect("serialises");
    assert_eq!(serde_json::from_str::<BenchReport>(&text).expect("parses"), report());
}
