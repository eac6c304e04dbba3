//! What `ca revoke` and `pin remove` tell of servers that have not heard of it in time.

use countersign::registry::Store as _;

use crate::support::authority::CaServer;

#[test]
fn who_waits_for_servers_hears_of_those_that_do_not_confirm() {
    let ca = CaServer::made();
    let issued = ca.run(&["ca", "issue", "agent", "--grant", "tools:a", "--json"]);
    let print = issued.json()["fingerprint"].as_str().unwrap().to_owned();
    let beat = |applied: u64| {
        ca.with_store(async |store| store.heartbeat("north/1", applied).await.unwrap());
    };
    beat(0);
    let said = ca.run(&["ca", "revoke", &print, "--wait", "100ms", "--json"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(
        said.err.contains("error: ") && said.err.contains("`north/1`"),
        "{}",
        said.err
    );
    assert!(said.err.contains("hint: "), "{}", said.err);
    // It is recorded all the same, and the answer says all that there is to say.
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["status"], "revoked");
    assert_eq!(answer["servers"]["waiting_for"][0], "north/1");

    // Again: it is waited for again, and what was revoked stays as it was.
    beat(0);
    let said = ca.run(&["ca", "revoke", &print, "--wait", "100ms"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.out.contains("was revoked before"), "{}", said.out);
    // Who does not wait is not told off.
    beat(0);
    ca.run(&["ca", "revoke", &print, "--wait", "0s"]).ok();
    let newest = ca.with_store(async |store| store.newest().await.unwrap());
    beat(newest);
    ca.run(&["ca", "revoke", &print, "--wait", "5s"]).ok();
}
