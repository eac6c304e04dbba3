//! For tests: a way to a server that can be cut and mended.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections to its address go on to the server while it is whole. A cut ends those that there
/// are, and each new one at once.
pub(super) struct Way {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Way {
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let whole = watch::Sender::new(true);
        let task = tokio::spawn(accept(listener, server.to_owned(), whole.subscribe()));
        Self {
            address,
            whole,
            task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: String, whole: watch::Receiver<bool>) {
    loop {
        let Ok((mut near, _)) = listener.accept().await else {
            continue;
        };
        let (server, mut whole) = (server.clone(), whole.clone());
        tokio::spawn(async move {
            if !*whole.borrow() {
                return;
            }
            let Ok(mut far) = TcpStream::connect(&server).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = whole.wait_for(|whole| !whole) => {}
            }
        });
    }
}
