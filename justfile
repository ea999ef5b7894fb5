# Short names for common commands. `just` lists them.

_list:
    @{{ just_executable() }} --list --unsorted

# Run 200 sample orders on private servers, and check how they end.
demo *options:
    cargo run --release -- demo {{ options }}

# Run private servers and every service until Ctrl-C.
dev *options:
    cargo run --release -- dev {{ options }}

# Run all tests, or those whose name contains a filter.
test *filter:
    INSTA_UPDATE=no cargo test --locked --workspace -- {{ filter }}

# Format the code, then check it with clippy and the spelling checker.
check:
    cargo fmt --all
    cargo clippy --locked --workspace --all-targets -- -D warnings
    .ci/typos

# Write the generated documents: docs/cli.md, docs/follow-ups.md and the schemas of new events.
docs:
    UPDATE_DOCS=1 cargo test --locked -p tests -- docs::
    UPDATE_FOLLOW_UPS=1 cargo test --locked -p tests -- choreography
    UPDATE_SCHEMAS=1 cargo test --locked -p orders -- schemas

# Accept changed snapshots. Read the diff before you commit it.
accept *filter:
    INSTA_UPDATE=always cargo test --locked -p tests -- {{ filter }}

# Prepare the SQL queries after a change of a query or of the schema.
queries:
    .ci/check-queries --update

# Take a benchmark: see docs/performance.md.
bench workload *options:
    cargo run --release -- bench {{ workload }} {{ options }}

# Run what must pass on a clean checkout.
ci:
    .ci/run

# Run what takes hours.
long:
    .ci/long
