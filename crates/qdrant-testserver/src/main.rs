//! The server in a process of its own: `qdrant-testserver [--dir D] [--grpc-port P]
//! [--rest-port P]`. Prints the URLs of gRPC and REST in one line, and runs until its standard
//! input ends.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use qdrant_testserver::{Options, TestServer};

#[derive(Default)]
struct Arguments {
    dir: Option<PathBuf>,
    ports: (u16, u16),
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        let port = || value.parse().map_err(|_| format!("{value} is no port"));
        match name.as_str() {
            "--dir" => arguments.dir = Some(value.into()),
            "--grpc-port" => arguments.ports.0 = port()?,
            "--rest-port" => arguments.ports.1 = port()?,
            _ => return Err(format!("{name} is unknown: --dir, --grpc-port or --rest-port")),
        }
    }
    Ok(arguments)
}

fn main() -> io::Result<()> {
    let arguments = arguments().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let options = Options { ports: Some(arguments.ports), ..Options::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = match &arguments.dir {
            Some(dir) => TestServer::start_in(dir, options).await?,
            None => TestServer::start_with(options).await?,
        };
        let mut out = io::stdout();
        writeln!(out, "{} {}", server.grpc_url(), server.rest_url())?;
        out.flush()?;
        tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()))
            .await
            .map_err(io::Error::other)??;
        server.stop().await;
        Ok(())
    })
}
