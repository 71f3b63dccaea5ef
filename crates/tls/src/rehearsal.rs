//! What others would make of a certificate.

use tokio::io::AsyncWriteExt as _;

use crate::{Acceptor, Connector, HandshakeError};

/// More than a handshake takes.
const PIPE_BYTES: usize = 64 << 10;

/// Has both sides of a process, which others are to meet with files of the same kind, meet each other by the name that it is known by: what
/// is wrong with its own certificate shows at once, and not when somebody needs it.
pub async fn rehearse(connector: &Connector, acceptor: &Acceptor, host: &str) -> Result<(), HandshakeError> {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let accept = async {
        let mut accepted = acceptor.accept(far).await?;
        // The other side waits for the verdict on its certificate.
        accepted.write_all(&[0]).await?;
        accepted.flush().await
    };
    let (connected, _) = tokio::join!(connector.connect(host, near), accept);
    connected.map(drop)
}
