//! The `daybook` binary.

fn main() -> std::process::ExitCode {
    services::cli::main()
}
