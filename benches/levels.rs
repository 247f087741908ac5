//! Codecs and levels on real text and real embeddings.
//!
//! `cargo bench --bench levels [-- MiB]` prints, for each, speed over all cores and ratio.
#![allow(clippy::print_stdout, missing_docs)]

use std::{fs, io, path::Path, time::Instant};

use backup_kit::{
    ArchiveId, Result, Timestamp,
    archive::{ArchiveWriter, Codec, WriterOptions},
    manifest::{Application, Manifest, Preamble},
};

fn main() -> Result<()> {
    let size =
        std::env::args().filter_map(|arg| arg.parse::<usize>().ok()).next().unwrap_or(128) << 20;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/data");
    let text = fs::read(data.join("points.jsonl"))?;
    let vectors = fs::read(data.join("vectors.npy"))?;
    println!("{:<10} {:<8} {:>9} {:>7}", "data", "codec", "MB/s", "ratio");
    let mut mixed = text.clone();
    mixed.extend_from_slice(&vectors);
    for (name, sample) in [("text", text), ("vectors", vectors), ("mixed", mixed)] {
        for (codec, level) in [
            (Codec::None, 0),
            (Codec::Gzip, 1),
            (Codec::Gzip, 3),
            (Codec::Gzip, 4),
            (Codec::Gzip, 5),
            (Codec::Gzip, 6),
            (Codec::Gzip, 9),
            #[cfg(feature = "zstd")]
            (Codec::Zstd, 1),
            #[cfg(feature = "zstd")]
            (Codec::Zstd, 3),
        ] {
            let (speed, ratio) = write(&sample, size, codec, level)?;
            println!("{name:<10} {:<8} {speed:>9.0} {ratio:>7.3}", format!("{codec:?} {level}"));
        }
    }
    Ok(())
}

// One blob of `size` bytes, the sample again and again, each time in other segments.
fn write(sample: &[u8], size: usize, codec: Codec, level: u32) -> Result<(f64, f64)> {
    let preamble = Preamble::new(ArchiveId::random(), Timestamp::now(), Application::default());
    let mut options = WriterOptions::default();
    options.codec = codec;
    options.level = Some(level);
    let start = Instant::now();
    let mut writer = ArchiveWriter::new(io::sink(), &preamble, &options)?;
    writer.begin_blob("bench", "data", size as u64, &[], &Default::default())?;
    let mut left = size;
    while left > 0 {
        let now = left.min(sample.len());
        writer.data(&sample[..now])?;
        left -= now;
    }
    writer.end()?;
    let finished = writer.finish(Manifest::new(&preamble, codec))?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((size as f64 / 1e6 / seconds, size as f64 / finished.size as f64))
}
