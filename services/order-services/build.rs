//! Gives the code that folds events a number, for snapshots: a change of any of it makes another number.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    let mut hash = DefaultHasher::new();
    // The domain folds. Upcasters and codec decide what it is given of an older event.
    for source in [
        "../../domain/orders/src",
        "../../projections/order-views/src/domain.rs",
        "../../projections/engine/src/codec.rs",
    ] {
        println!("cargo::rerun-if-changed={source}");
        for file in files(Path::new(source))? {
            file.hash(&mut hash);
            fs::read(&file)?.hash(&mut hash);
        }
    }
    println!("cargo::rustc-env=DAYBOOK_SNAPSHOT_VERSION={}", hash.finish().cast_signed());
    Ok(())
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable();
    let mut all = Vec::new();
    for entry in entries {
        all.extend(files(&entry)?);
    }
    Ok(all)
}
