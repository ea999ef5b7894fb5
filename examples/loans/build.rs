//! A new migration is a reason to embed them again.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
