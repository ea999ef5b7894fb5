//! Logins for Postgres: one for each role that a process can run, one for a process that runs them all, and one for the
//! operator. Each is a member of what it needs, and its settings are its own: a pooler cannot drop them.

use order_services::process::Role;
use sqlx::{AssertSqlSafe, Connection};
use store::connect::{self, Role as Database, SETTINGS};

/// A login, and what it may do.
struct Login {
    name: String,
    may: Vec<Database>,
    /// Whether it has these rights at once. The operator takes them on one by one.
    inherits: bool,
}

fn logins() -> Vec<Login> {
    let of =
        |role: &Role| Login { name: format!("daybook_{}", role.name()), may: role.database().to_vec(), inherits: true };
    // The simulated payment provider keeps its books here.
    let provider =
        Login { name: "daybook_provider".into(), may: vec![Database::Project, Database::Read], inherits: true };
    let services = Login { name: "daybook_services".into(), may: Role::databases(&Role::ALL), inherits: true };
    let all = vec![Database::Append, Database::Project, Database::Read, Database::Owner];
    let operator = Login { name: "daybook_operator".into(), may: all, inherits: false };
    Role::ALL.iter().map(of).chain([provider, services, operator]).collect()
}

/// Makes the logins that there are not, sees to the rights and settings of all, and returns their names. Passwords are left
/// as they are.
///
/// # Errors
/// When the login of `url` may not make roles, or Postgres fails.
pub async fn make(url: &str) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = connect::to_migrate(url).await?;
    let logins = logins();
    let statements: String = logins.iter().map(statements).collect();
    // All of it is a constant of this program; one message is one transaction.
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(logins.into_iter().map(|login| login.name).collect())
}

fn statements(Login { name, may, inherits }: &Login) -> String {
    let may: Vec<&str> = may.iter().map(|role| role.name()).collect();
    let settings: String =
        SETTINGS.iter().map(|(setting, value)| format!("ALTER ROLE {name} SET {setting} = '{value}';\n")).collect();
    format!(
        "DO $$
         BEGIN
             -- Roles belong to the server: another Daybook may have made it.
             CREATE ROLE {name} LOGIN;
         EXCEPTION WHEN duplicate_object OR unique_violation THEN
             NULL;
         END
         $$;
         GRANT {} TO {name} WITH INHERIT {inherits}, SET TRUE;
         DO $$
         BEGIN
             EXECUTE format('GRANT CONNECT ON DATABASE %I TO {name}', current_database());
         END
         $$;
         {settings}",
        may.join(", ")
    )
}
