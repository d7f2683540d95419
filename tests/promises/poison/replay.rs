//! Replays the inputs that fuzzing found.

use pipeline_tests::properties::{ALL, INPUT_BYTES_MAX};
use std::{fs, panic, path::Path};

/// Every file of every fuzz target's corpus has its target's properties, and the corpus stays small.
#[test]
fn the_corpus_of_fuzzing_keeps_its_properties() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let (mut files, mut bytes, mut failed) = (0, 0, Vec::new());
    for (target, property) in ALL {
        let listed =
            fs::read_dir(folder.join(target)).unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
        for entry in listed {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            assert!(data.len() <= INPUT_BYTES_MAX, "{} is larger than what is looked at", path.display());
            files += 1;
            bytes += data.len();
            if panic::catch_unwind(|| property(&data)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert!((50..=250).contains(&files) && bytes <= 300_000, "{files} files, {bytes} bytes");
}
