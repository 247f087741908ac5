//! The class path of the server.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// The Java that runs the server: that of `JAVA_HOME`, else the first on the path.
pub(crate) fn java() -> OsString {
    std::env::var_os("JAVA_HOME")
        .map(|home| Path::new(&home).join("bin/java"))
        .filter(|java| java.is_file())
        .map_or_else(|| "java".into(), PathBuf::into_os_string)
}

/// Whether there are a Java and the server's artifacts; fetches them where they are missing.
///
/// # Errors
/// What is missing, for people.
pub fn available() -> Result<(), String> {
    let ran = Command::new(java()).arg("-version").output();
    if !ran.is_ok_and(|output| output.status.success()) {
        return Err("Neo4j needs Java 17 or later, and there is none".to_owned());
    }
    class_path().map(drop).map_err(|e| format!("Neo4j's artifacts are not here: {e}"))
}

/// The class path of server and `neo4j-admin`, made by Maven and kept beside what cargo builds.
///
/// # Errors
/// Maven is missing or cannot fetch the artifacts.
pub fn class_path() -> io::Result<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pom = here.join("pom.xml");
    let target = here.join("../../target");
    fs::create_dir_all(&target)?;
    let kept = target.join("neo4j.classpath");
    // Test binaries run one after the other, but their tests do not.
    let lock = File::create(target.join("neo4j.lock"))?;
    lock.lock()?;
    let current = |path: &str| {
        let newer = fs::metadata(&kept)?.modified()? >= fs::metadata(&pom)?.modified()?;
        Ok::<_, io::Error>(newer && path.split(':').all(|jar| Path::new(jar).is_file()))
    };
    if let Ok(path) = fs::read_to_string(&kept)
        && current(&path)?
    {
        return Ok(path);
    }
    let made = Command::new("mvn")
        .args(["-q", "-B", "dependency:build-classpath", "-f"])
        .arg(&pom)
        .arg(format!("-Dmdep.outputFile={}", kept.display()))
        .arg("-Dmdep.overwriteIfNotExists=true")
        .arg("-Dmdep.regenerateFile=true")
        .output()?;
    if !made.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&made.stdout).into_owned()));
    }
    fs::read_to_string(&kept)
}
