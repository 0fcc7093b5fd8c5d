//! Every corpus once more: what a fuzzer found stays found.

use std::path::Path;

#[test]
fn every_decoder_takes_its_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, decode) in fuzz::DECODERS {
        let files = std::fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus of {name}: {error}"));
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            decode(&bytes);
            // Cut short at every place as well.
            for end in 0..bytes.len().min(512) {
                decode(&bytes[..end]);
            }
            count += 1;
        }
        assert!(count >= 3, "{name} has a corpus of {count} files");
    }
}
