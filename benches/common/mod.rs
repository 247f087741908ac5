//! What the benches share: shell commands and processes of our own, timed, in a table.
#![allow(dead_code, clippy::print_stdout)]

use std::{env, fs, path::PathBuf, process::Command, time::Instant};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A new folder beside the build, not in a small `/tmp`.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The number among the arguments, if there is one.
pub(crate) fn number() -> Option<u64> {
    env::args().find_map(|arg| arg.parse().ok())
}

/// Whether `bash` knows a command.
pub(crate) fn has(command: &str) -> bool {
    Command::new(command).arg("--version").output().is_ok()
}

/// One line of a table: seconds, megabytes, how often it fits into another's seconds, peak
/// memory.
pub(crate) struct Row {
    pub(crate) seconds: f64,
    pub(crate) bytes: Option<u64>,
    pub(crate) against: Option<f64>,
    pub(crate) peak: Option<f64>,
}

pub(crate) fn head() {
    println!("{:<44} {:>8} {:>9} {:>8} {:>9}", "", "seconds", "MB", "ratio", "peak MiB");
}

pub(crate) fn row(name: &str, row: &Row) {
    let bytes = row.bytes.map_or(String::new(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
    let ratio = row.against.map_or(String::new(), |other| format!("{:.2}×", other / row.seconds));
    let peak = row.peak.map_or(String::new(), |peak| format!("{peak:.0}"));
    println!("{name:<44} {:>8.3} {bytes:>9} {ratio:>8} {peak:>9}", row.seconds);
}

/// The least of `runs` times.
pub(crate) fn least(runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}

pub(crate) fn shell(command: &str) -> Result<()> {
    let status = Command::new("bash").args(["-ec", command]).status()?;
    if status.success() { Ok(()) } else { Err(format!("failed: {command}").into()) }
}

/// Runs this program again as `worker <args>`: the least seconds and the highest peak memory in
/// MiB, as [`worker`] measures them.
pub(crate) fn ours(runs: usize, args: &[&str]) -> Result<(f64, f64)> {
    let (mut least, mut peak) = (f64::MAX, 0_f64);
    for _ in 0..runs {
        let out = Command::new(env::current_exe()?).arg("worker").args(args).output()?;
        let text = String::from_utf8(out.stdout)?;
        let mut figures = text.split_whitespace().map(str::parse::<f64>);
        match (figures.next(), figures.next()) {
            (Some(Ok(seconds)), Some(Ok(mib))) if out.status.success() => {
                least = least.min(seconds);
                peak = peak.max(mib);
            }
            _ => return Err(String::from_utf8_lossy(&out.stderr).into_owned().into()),
        }
    }
    Ok((least, peak))
}

/// In such a process: does `work` with the arguments and prints what it took. `false` where
/// this is not such a process.
pub(crate) fn worker(work: impl FnOnce(&[String]) -> Result<()>) -> Result<bool> {
    let args: Vec<String> = env::args().collect();
    let Some(at) = args.iter().position(|arg| arg == "worker") else { return Ok(false) };
    let start = Instant::now();
    work(&args[at + 1..])?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds} {}", peak()?);
    Ok(true)
}

/// The highest memory of this process so far, in MiB.
pub(crate) fn peak() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().split(' ').next()?.parse::<f64>().ok());
    Ok(peak.unwrap_or(f64::NAN) / 1024.0)
}
