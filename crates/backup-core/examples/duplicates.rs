//! The measurements of `docs/DUPLICATES.md`: which thresholds tell copies from neighbours.
//!
//! `cargo run --release -p backup-core --example duplicates [-- FOLDER]`, where the folder holds
//! `points.jsonl` (`{"id":…,"payload":{"content":…}}`) and `vectors.npy` (float32); default: the
//! passages of the quickstart. With a third word `pairs`, pairs near the thresholds are shown.
#![allow(clippy::print_stdout)]

use std::{collections::HashMap, fs, path::PathBuf, time::Instant};

use backup_core::{
    DuplicateKind, DuplicateOptions, DuplicateReport, Error, ErrorKind, Finder, Result,
    manifest::FieldMapping,
    record::{BatchBuilder, ElementType, Key, RecordBatch},
};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/data")
    });
    let pairs = std::env::args().nth(2).is_some_and(|word| word == "pairs");
    let (batches, texts) = read(&folder)?;
    println!(
        "{} passages, {} characters",
        texts.len(),
        texts.values().map(String::len).sum::<usize>()
    );

    println!("\nexact, what counts       surplus  seconds");
    let place = ["/chunk", "/document", "/title", "/category", "/tags", "/importance"];
    let content = place.into_iter().fold(DuplicateOptions::default(), DuplicateOptions::ignore);
    for (what, options) in [("all", DuplicateOptions::default()), ("the text", content)] {
        let (report, seconds) = search(&options, &batches)?;
        println!("{what:<22} {:>9} {seconds:>8.2}", report.surplus(DuplicateKind::Exact));
    }
    let alone = || {
        let mut options = DuplicateOptions::default();
        options.exact = false;
        options
    };
    println!("\nfuzzy, similarity        surplus  seconds");
    for threshold in [0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6] {
        let (report, seconds) = search(&alone().fuzzy(threshold), &batches)?;
        println!("{threshold:<22} {:>9} {seconds:>8.2}", report.surplus(DuplicateKind::Fuzzy));
        if pairs {
            show(&report, &texts);
        }
    }
    println!("\nsemantic, cosine         surplus  seconds");
    for threshold in [0.999, 0.99, 0.98, 0.97, 0.96, 0.95, 0.93, 0.9] {
        let (report, seconds) = search(&alone().semantic("text", threshold), &batches)?;
        println!("{threshold:<22} {:>9} {seconds:>8.2}", report.surplus(DuplicateKind::Semantic));
        if pairs {
            show(&report, &texts);
        }
    }
    planted(&texts)?;
    large(&texts)
}

fn fields() -> FieldMapping {
    let mut fields = FieldMapping::default();
    fields.content = Some("/content".into());
    fields.created_at = Some("/created_at".into());
    fields.updated_at = Some("/updated_at".into());
    fields
}

fn search(options: &DuplicateOptions, batches: &[RecordBatch]) -> Result<(DuplicateReport, f64)> {
    let start = Instant::now();
    let mut finder = Finder::new(options, &fields())?;
    batches.iter().try_for_each(|batch| finder.add(batch))?;
    Ok((finder.finish(), start.elapsed().as_secs_f64()))
}

fn read(folder: &std::path::Path) -> Result<(Vec<RecordBatch>, HashMap<Key, String>)> {
    let bad = |what: &str| Error::new(ErrorKind::InvalidInput, what);
    let points = fs::read_to_string(folder.join("points.jsonl"))?;
    let array = fs::read(folder.join("vectors.npy"))?;
    // A header whose length stands in bytes 8 and 9, then the rows.
    let start = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
    let width = (array.len() - start) / points.lines().count();
    let (mut batches, mut texts) = (Vec::new(), HashMap::new());
    let lines: Vec<_> = points.lines().zip(array[start..].chunks_exact(width)).collect();
    for lines in lines.chunks(1000) {
        let mut builder = BatchBuilder::new("passages");
        let vector = builder.dense("text", ElementType::F32, width / 4);
        for (line, values) in lines {
            let point: Value = serde_json::from_str(line).map_err(|e| bad("no JSON").because(e))?;
            let key = Key::from(point["id"].as_str().ok_or_else(|| bad("no id"))?);
            builder.push(&key, |json| json.value(&point["payload"]))?;
            builder.set(vector, values)?;
            let text = point["payload"]["content"].as_str().ok_or_else(|| bad("no content"))?;
            texts.insert(key, text.to_owned());
        }
        batches.push(builder.finish()?);
    }
    Ok((batches, texts))
}

// The pairs that are the least alike, for a person to judge.
fn show(report: &DuplicateReport, texts: &HashMap<Key, String>) {
    let mut groups: Vec<_> = report.groups.iter().collect();
    groups.sort_by(|a, b| a.score.total_cmp(&b.score));
    for group in groups.iter().take(4) {
        println!("    {:.3}", group.score);
        for key in &group.keys[..2] {
            println!(
                "      | {}",
                texts[key].chars().take(200).collect::<String>().replace('\n', " ")
            );
        }
    }
}

fn batch(texts: impl Iterator<Item = (u64, String)>) -> Result<RecordBatch> {
    let mut builder = BatchBuilder::new("passages");
    for (key, text) in texts {
        builder.push(&Key::from(key), |json| json.value(&json!({"content": text})))?;
    }
    builder.finish()
}

// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

// Each kind of change to every tenth passage: how many are found again?
fn planted(texts: &HashMap<Key, String>) -> Result<()> {
    let mut sorted: Vec<_> = texts.values().filter(|text| text.len() > 200).cloned().collect();
    sorted.sort();
    sorted.dedup();
    let mut random = Random(1);
    let mut typos = |text: &str, percent: usize| {
        let letter = |random: &mut Random| (b'a' + random.below(26) as u8) as char;
        text.chars()
            .flat_map(|c| match (random.below(100) < percent, random.below(3)) {
                (false, _) => vec![c],
                (true, 0) => vec![],
                (true, 1) => vec![letter(&mut random)],
                (true, _) => vec![c, letter(&mut random)],
            })
            .collect::<String>()
    };
    let cut = |text: &str, percent: usize| {
        let chars: Vec<char> = text.chars().collect();
        chars[chars.len() * percent / 100..].iter().collect::<String>()
    };
    println!(
        "\nplanted copies           of      found at 0.95      at 0.9     at 0.85      at 0.8"
    );
    let chosen: Vec<_> = sorted.iter().step_by(10).cloned().collect();
    let kinds: [(&str, Vec<String>); 7] = [
        (
            "case, punctuation",
            chosen.iter().map(|t| t.to_uppercase().replace([',', '.'], " ")).collect(),
        ),
        ("1 % typing errors", chosen.iter().map(|t| typos(t, 1)).collect()),
        ("3 % typing errors", chosen.iter().map(|t| typos(t, 3)).collect()),
        ("6 % typing errors", chosen.iter().map(|t| typos(t, 6)).collect()),
        ("5 % cut off", chosen.iter().map(|t| cut(t, 5)).collect()),
        ("9 % cut off", chosen.iter().map(|t| cut(t, 9)).collect()),
        ("15 % cut off", chosen.iter().map(|t| cut(t, 15)).collect()),
    ];
    for (name, copies) in kinds {
        print!("{name:<22} {:>5}", copies.len());
        for threshold in [0.95, 0.9, 0.85, 0.8] {
            let mut options = DuplicateOptions::default().fuzzy(threshold);
            options.exact = false;
            let mut finder = Finder::new(&options, &fields())?;
            finder.add(&batch((0..).zip(chosen.iter().cloned()))?)?;
            let planted = batch((0..).zip(copies.iter().cloned()))?;
            let mut found = 0;
            for record in planted.iter() {
                let duplicate = finder.seen(record)?;
                found += usize::from(duplicate.is_some_and(|d| d.of == record.key()));
            }
            print!(" {:>10.1} %", 100.0 * found as f64 / copies.len() as f64);
        }
        println!();
    }
    Ok(())
}

// A hundred thousand texts, made of the sentences of the real ones.
fn large(texts: &HashMap<Key, String>) -> Result<()> {
    let mut sentences: Vec<&str> = texts.values().flat_map(|text| text.split(". ")).collect();
    sentences.sort_unstable();
    let mut random = Random(2);
    println!("\nfuzzy, 0.9, made texts   surplus  seconds");
    for count in [25_000, 50_000, 100_000_u64] {
        let mut made = (0..count).map(|key| {
            let picked: Vec<_> = (0..6).map(|_| sentences[random.below(sentences.len())]).collect();
            (key, picked.join(". "))
        });
        let batches = (0..count / 1000).map(|_| batch(made.by_ref().take(1000)));
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let options = DuplicateOptions::default().fuzzy(0.9);
        let (report, seconds) = search(&options, &batches)?;
        println!("{count:<22} {:>9} {seconds:>8.2}", report.surplus(DuplicateKind::Fuzzy));
    }
    Ok(())
}
