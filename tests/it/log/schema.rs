//! The schema as it comes out of all migrations: a change of it is seen in the review of this snapshot.

use crate::harness::database;
use sqlx::{PgPool, query_scalar};

/// Each object with its owner, what it is made of, and what is granted on it. The bodies of functions are in their files.
const CATALOGUE: &str = r#"
WITH spaces AS (SELECT oid, nspname::text AS space, nspacl FROM pg_namespace WHERE nspname LIKE 'daybook%'),
granted AS (
    SELECT 'pg_class'::regclass AS catalog, c.oid, a.* FROM pg_class AS c, aclexplode(relacl) AS a
    UNION ALL SELECT 'pg_proc'::regclass, p.oid, a.* FROM pg_proc AS p, aclexplode(proacl) AS a
    UNION ALL SELECT 'pg_namespace'::regclass, n.oid, a.* FROM pg_namespace AS n, aclexplode(nspacl) AS a
),
rights AS (
    SELECT catalog, oid, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END AS grantee,
           string_agg(privilege_type, ', ' ORDER BY privilege_type) AS privileges
    FROM granted WHERE grantee <> to_regrole('daybook_owner') GROUP BY catalog, oid, grantee
),
relations AS (
    SELECT space || '.' || relname AS name, c.*
    FROM pg_class AS c JOIN spaces ON spaces.oid = relnamespace WHERE relkind NOT IN ('i', 'I')
),
lines AS (
    SELECT 1 AS kind, oid AS object, 'schema ' || space AS name, 0 AS part, 0 AS number, '' AS line FROM spaces
    UNION ALL
    SELECT 2, oid, name, 0, 0, CASE relkind WHEN 'v' THEN 'view' WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' ELSE relkind::text END
           || coalesce(' partitioned by ' || pg_get_partkeydef(oid), '')
           || coalesce(' ' || (SELECT 'partition of ' || inhparent::regclass FROM pg_inherits WHERE inhrelid = relations.oid)
                       || ' ' || pg_get_expr(relpartbound, oid), '')
           || coalesce(' with ' || array_to_string(reloptions, ', '), '')
           || CASE pg_get_userbyid(relowner) WHEN 'daybook_owner' THEN '' ELSE ' owned by another' END
    FROM relations
    UNION ALL
    SELECT 2, relations.oid, name, 1, attnum, attname || ' ' || format_type(atttypid, atttypmod)
           || CASE WHEN attcollation IN (0, 100) THEN '' ELSE ' collate ' || attcollation::regcollation END
           || CASE WHEN attnotnull THEN ' not null' ELSE '' END || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
           || coalesce((SELECT string_agg(' granted to ' || pg_get_userbyid(grantee) || ': ' || privilege_type, ',')
                        FROM aclexplode(attacl)), '')
    FROM relations JOIN pg_attribute ON attrelid = relations.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef ON adrelid = relations.oid AND adnum = attnum
    WHERE NOT relispartition
    UNION ALL
    SELECT 2, relations.oid, name, 2, 0, 'constraint ' || conname || ' ' || pg_get_constraintdef(c.oid)
    FROM relations JOIN pg_constraint AS c ON conrelid = relations.oid AND contype <> 'n' AND conparentid = 0
    UNION ALL
    SELECT 2, relations.oid, name, 3, 0, pg_get_indexdef(indexrelid)
    FROM relations JOIN pg_index ON indrelid = relations.oid
    WHERE NOT relispartition AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    UNION ALL
    SELECT 2, relations.oid, name, 4, 0, pg_get_triggerdef(t.oid) || CASE tgenabled WHEN 'A' THEN ' (always)' ELSE '' END
    FROM relations JOIN pg_trigger AS t ON tgrelid = relations.oid AND NOT tgisinternal
    UNION ALL
    SELECT 3, p.oid, 'function ' || space || '.' || proname, 0, 0,
           '(' || pg_get_function_arguments(p.oid) || ') returns ' || pg_get_function_result(p.oid)
           || ' language ' || (SELECT lanname FROM pg_language WHERE pg_language.oid = prolang)
           || CASE provolatile WHEN 'v' THEN ' volatile' WHEN 's' THEN ' stable' ELSE ' immutable' END
           || CASE WHEN prosecdef THEN ' security definer' ELSE '' END
           || coalesce(' set ' || array_to_string(proconfig, '; '), '')
           || CASE pg_get_userbyid(proowner) WHEN 'daybook_owner' THEN '' ELSE ' owned by another' END
    FROM pg_proc AS p JOIN spaces ON spaces.oid = pronamespace
    UNION ALL
    SELECT 4, oid, 'role ' || rolname, 0, 0, concat_ws(' ',
           CASE WHEN rolcanlogin THEN 'login' ELSE 'nologin' END, CASE WHEN rolinherit THEN 'inherit' ELSE 'noinherit' END,
           CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcreaterole THEN 'createrole' END,
           CASE WHEN rolbypassrls THEN 'bypassrls' END)
    FROM pg_roles WHERE rolname = ANY('{daybook_owner,daybook_append,daybook_project,daybook_read}')
),
all_lines AS (
    SELECT kind, name, part, number, line FROM lines
    UNION ALL
    SELECT kind, name, 9, 0, 'granted to ' || grantee || ': ' || privileges
    FROM lines JOIN rights ON (rights.oid, catalog) = (object, (CASE kind WHEN 1 THEN 'pg_namespace' WHEN 2 THEN 'pg_class'
                                                                 WHEN 3 THEN 'pg_proc' END)::regclass)
    WHERE part = 0
)
SELECT name || E'\n' || string_agg('    ' || line, E'\n' ORDER BY part, number, line COLLATE "C") FILTER (WHERE line <> '')
FROM all_lines GROUP BY kind, name ORDER BY kind, name COLLATE "C"
"#;

#[tokio::test]
async fn the_schema_is_what_was_reviewed() {
    let superuser = PgPool::connect(&database().await).await.unwrap();
    let objects: Vec<String> = query_scalar(CATALOGUE).fetch_all(&superuser).await.unwrap();
    insta::assert_snapshot!(objects.join("\n"));
}

/// Where each part begins, and which categories there are: the rows that the migrations themselves have written.
#[tokio::test]
async fn a_new_database_begins_at_the_beginning() {
    let superuser = PgPool::connect(&database().await).await.unwrap();
    let rows: Vec<String> = query_scalar(
        "SELECT 'category ' || id || ' is ' || name || ' of ' || domain FROM daybook.categories
         UNION ALL SELECT format('%s: generation %s, version %s, position %s', projection, generation, version, position)
                   FROM daybook.checkpoints
         UNION ALL SELECT format('%s: any build from migration %s on', name, least_known) FROM daybook.schema_parts
         UNION ALL SELECT format('epoch %s, imported to %s', epoch, imported_to) FROM daybook.log ORDER BY 1",
    )
    .fetch_all(&superuser)
    .await
    .unwrap();
    insta::assert_snapshot!(rows.join("\n"));
}
