//! Something between client and server that changes what is asked.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub(crate) struct Proxy;

impl Proxy {
    /// A port that leads to the server's; `change` sees every command.
    pub(crate) fn before(
        server: u16,
        change: impl FnMut(&mut Vec<Vec<u8>>) + Send + 'static,
    ) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let change = Arc::new(Mutex::new(change));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server)))
                else {
                    return;
                };
                let change = Arc::clone(&change);
                let (from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let mut from = BufReader::new(from);
                    while let Some(mut words) = command(&mut from) {
                        (change.lock().unwrap())(&mut words);
                        if to.write_all(&written(&words)).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
                let (mut from, mut to) = (server, client);
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        });
        port
    }
}

fn command(from: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let count = number(from, b'*')?;
    let word = |_| {
        let mut word = vec![0; number(from, b'$')? + 2];
        from.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        Some(word)
    };
    (0..count).map(word).collect()
}

fn number(from: &mut impl BufRead, sign: u8) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    line.strip_prefix(char::from(sign))?.trim_end().parse().ok()
}

fn written(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend(format!("${}\r\n", word.len()).into_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}
