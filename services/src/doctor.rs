//! What is missing or misconfigured on the servers, by the checks that a process makes when it connects.

use crate::config::Role;
use store::Finding;
use store::connect;

/// What there is to say of Postgres for a process of these roles; what is true for all of them is said once.
pub async fn postgres(url: &str, roles: &[Role]) -> Vec<Finding> {
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
