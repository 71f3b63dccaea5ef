//! A connection that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;

use sagitta_env::Env;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Forwards connections until they are cut; new ones may follow.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    cut: Arc<Notify>,
}

impl Proxy {
    pub(super) async fn before(env: &Env, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(Notify::new());
        let (task, cuts) = (env.clone(), cut.clone());
        env.spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let cuts = cuts.clone();
                task.spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = cuts.notified() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// Cuts all connections that there are.
    pub(super) fn cut(&self) {
        self.cut.notify_waiters();
    }
}
