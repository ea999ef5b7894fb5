//! What is missing or misconfigured on the servers, by the checks that a process makes when it connects.

use order_services::process::Role;
use runtime::nats::{self, Nats};
use std::time::Duration;
use store::connect::{self, Role as Database};
use store::{Finding, clock};

/// What there is to say of the servers for a process of these roles, whose clock may be so far from Postgres'.
pub(crate) async fn findings(url: &str, nats: Option<&Nats>, roles: &[Role], tolerance: Duration) -> Vec<Finding> {
    let mut findings = postgres(url, roles).await;
    // Who cannot be asked has been told by now.
    if !findings.iter().any(Finding::is_wrong)
        && let Ok(pool) = connect::pool(url, Database::Read, 1)
    {
        match clock::faults(&pool, tolerance).await {
            Ok(faults) if faults.is_empty() => findings.push(Finding::ok("clock", "it agrees with this machine's")),
            Ok(faults) => findings.extend(faults.into_iter().map(Finding::from)),
            Err(e) => findings.push(unreachable(&e)),
        }
    }
    match nats {
        Some(nats) => findings.extend(nats::check(nats).await),
        None => findings.push(Finding::warning("nats", "it was not asked", "set NATS_URL")),
    }
    findings
}

/// What there is to say of Postgres for a process of these roles; what is true for all of them is said once.
pub(crate) async fn postgres(url: &str, roles: &[Role]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for role in Role::databases(roles) {
        match connect::findings(url, role).await {
            Ok(found) => findings.extend(found),
            Err(e) => {
                findings.push(unreachable(&e));
                break;
            }
        }
    }
    if let Err(e) = connect::check_pooler(url).await {
        findings.push(connect::Unusable::finding(e).unwrap_or_else(|e| unreachable(&e)));
    }
    let mut told = Vec::new();
    for finding in findings {
        if !told.contains(&finding) {
            told.push(finding);
        }
    }
    told
}

fn unreachable(error: &sqlx::Error) -> Finding {
    Finding::wrong(
        "postgres",
        format!("no connection can be made ({error})"),
        "see that it runs, and check DATABASE_URL",
    )
}
