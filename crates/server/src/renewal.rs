//! Certificates that are replaced while the process runs.

use std::time::Duration;

use sagitta_env::{Env, JoinHandle};
use sagitta_tls::{Acceptor, SettingError};

use crate::encryption::PeerEncryption;

/// How soon new files count. They are small, so reading them costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reads certificates and keys again every few seconds. Files that cannot be used change nothing and are complained of once, and so
/// are those that are half replaced when they are looked at: the next look finds the rest.
pub(crate) fn keep_all(env: &Env, api: Option<Acceptor>, peers: Option<PeerEncryption>) -> Vec<JoinHandle<()>> {
    let api = api.map(|tls| env.spawn(keep(env.clone(), move || tls.reload(), LOOK_EVERY)));
    let peers = peers.map(|tls| env.spawn(keep(env.clone(), move || tls.reload(), LOOK_EVERY)));
    api.into_iter().chain(peers).collect()
}

async fn keep<R>(env: Env, reload: R, every: Duration)
where
    R: Fn() -> Result<bool, SettingError> + Clone + Send + 'static,
{
    let mut complaint = None;
    loop {
        env.sleep(every).await;
        // One that panicked has told so.
        let Ok(read) = env.spawn_blocking(reload.clone()).await else { continue };
        tell(read, &mut complaint);
    }
}

fn tell(read: Result<bool, SettingError>, complaint: &mut Option<SettingError>) {
    match read {
        Ok(is_new) => {
            if is_new {
                tracing::info!("new certificates are in use");
            }
            *complaint = None;
        }
        Err(error) if complaint.as_ref() == Some(&error) => {}
        Err(error) => {
            let setting = error.setting.name();
            tracing::warn!(setting, why = error.why, "new certificates cannot be used; those from before stay in use");
            *complaint = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sagitta_tls::testing::{Authority, Identity};
    use sagitta_tls::{ClientTls, Connector, HandshakeError, ServerTls};

    use super::*;

    async fn meet(ca: PathBuf, acceptor: &Acceptor) -> Result<(), HandshakeError> {
        let trusting = ClientTls { ca: Some(ca), ..ClientTls::default() };
        let connector = Connector::new(trusting, &Env::real()).expect("a connector");
        let (near, far) = tokio::io::duplex(64 << 10);
        let (met, _) = tokio::join!(connector.connect("localhost", near), acceptor.accept(far));
        met.map(drop)
    }

    #[tokio::test]
    async fn new_files_are_found_by_themselves() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [old, new] = ["old", "new"].map(|name| Authority::new(folder.path(), name));
        let Identity { cert, key } = old.sign("server", &["localhost"]);
        let env = Env::real();
        let acceptor = Acceptor::new(ServerTls { cert, key, client_ca: None }, &env).expect("an acceptor");
        let keeping = env.spawn(keep(
            env.clone(),
            {
                let acceptor = acceptor.clone();
                move || acceptor.reload()
            },
            Duration::from_millis(1),
        ));
        meet(old.path(), &acceptor).await.expect("the old one");
        new.sign("server", &["localhost"]);
        while meet(new.path(), &acceptor).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(meet(old.path(), &acceptor).await, Err(HandshakeError::Untrusted));
        keeping.abort();
    }

    #[test]
    fn files_that_cannot_be_used_are_complained_of_once_until_they_change() {
        let wrong = |why: &str| SettingError { setting: sagitta_tls::Setting::Key, why: why.to_owned() };
        let mut complaint = None;
        tell(Err(wrong("cut off")), &mut complaint);
        assert_eq!(complaint, Some(wrong("cut off")));
        tell(Err(wrong("missing")), &mut complaint);
        assert_eq!(complaint, Some(wrong("missing")));
        tell(Ok(true), &mut complaint);
        assert_eq!(complaint, None);
    }
}
