//! Leases across a change of leader.

use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::check::{Case, Checker as _, Lease};
use detkv_sim::client::Clients;
use detkv_sim::fault::{Fault, Pause, Target};
use detkv_sim::{Handle, Reply, Sim, SimConfig};

const SECOND: Duration = Duration::from_secs(1);
const ID: i64 = 7;

/// A leader that was stopped for longer than a lease's time finds, in one burst, that it is none any more and
/// that by its own clock the lease is over. It must not have the new leader revoke it (etcd 15247).
#[test]
fn a_deposed_leader_does_not_expire_a_lease_that_was_renewed_meanwhile() {
    for seed in 0..4 {
        let outcome = Sim::run(SimConfig::new(seed), |handle: Handle| async move {
            while handle.leader().is_none() {
                handle.sleep(Duration::from_millis(10)).await;
            }
            let old = handle.leader().expect("there is one");
            let others = handle.members().into_iter().filter(|member| *member != old).collect();
            let client = Clients::new(handle.clone()).client(others, SECOND);
            let grant = pb::LeaseGrantRequest { id: ID, ttl: 3 };
            client.call(Request::LeaseGrant(grant)).await.expect("all is well");
            let pause = Pause { node: Target::Member(old), duration: 4 * SECOND };
            handle.inject(Fault::Pause(pause));
            for _ in 0..12 {
                handle.sleep(Duration::from_millis(500)).await;
                let keep = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: ID });
                if let Ok(Reply::LeaseKeepAlive(answer)) = client.call(keep).await {
                    assert_eq!(answer.ttl, 3, "renewed in time, again and again");
                }
            }
        });
        assert_eq!(outcome.panics, Vec::<String>::new());
        assert_eq!(Lease.check(&Case::new(&outcome.history)), Ok(()), "seed {seed}");
    }
}
