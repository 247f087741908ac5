//! A way to a server that can be cut at any request.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

/// Forwards connections, until it is cut; then it closes all, and every new one.
pub(crate) struct Proxy {
    address: String,
    way: Arc<Way>,
}

struct Way {
    server: String,
    /// Requests that still go through.
    left: AtomicI64,
    seen: AtomicI64,
    /// Whether the request at which it is cut still arrives.
    arrives: AtomicBool,
}

impl Proxy {
    pub(crate) fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let way = Arc::new(Way {
            server,
            left: AtomicI64::new(i64::MAX),
            seen: AtomicI64::new(0),
            arrives: AtomicBool::new(false),
        });
        let ways = Arc::clone(&way);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let way = Arc::clone(&ways);
                thread::spawn(move || way.connect(client));
            }
        });
        Self { address, way }
    }

    pub(crate) fn url(&self) -> String {
        format!("bolt://{}", self.address)
    }

    /// Lets so many requests through; `arrives`: the next reaches the server, and its answer
    /// nobody.
    pub(crate) fn cut_after(&self, requests: i64, arrives: bool) {
        self.way.arrives.store(arrives, Ordering::SeqCst);
        self.way.seen.store(0, Ordering::SeqCst);
        self.way.left.store(requests, Ordering::SeqCst);
    }

    /// Whether it came to that.
    pub(crate) fn is_cut(&self) -> bool {
        self.way.left.load(Ordering::SeqCst) < 0
    }

    /// Requests since the last call of [`cut_after`](Self::cut_after).
    pub(crate) fn seen(&self) -> i64 {
        self.way.seen.load(Ordering::SeqCst)
    }
}

impl Way {
    fn connect(&self, mut client: TcpStream) {
        if self.left.load(Ordering::SeqCst) < 0 {
            return;
        }
        let Ok(mut server) = TcpStream::connect(&self.server) else { return };
        let (Ok(mut answers), Ok(mut to)) = (server.try_clone(), client.try_clone()) else {
            return;
        };
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut answers, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let mut buffer = vec![0; 1 << 20];
        while let Ok(len) = client.read(&mut buffer) {
            if len == 0 {
                break;
            }
            self.seen.fetch_add(1, Ordering::SeqCst);
            let left = self.left.fetch_sub(1, Ordering::SeqCst);
            if left <= 0 {
                // The client hears no more, whatever the server does.
                let _ = client.shutdown(Shutdown::Both);
                if left == 0 && self.arrives.load(Ordering::SeqCst) {
                    let _ = server.write_all(&buffer[..len]);
                    // Time to do it: a connection that ends takes back what is under way.
                    thread::sleep(std::time::Duration::from_millis(100));
                }
                break;
            }
            if server.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
        let _ = back.join();
    }
}
