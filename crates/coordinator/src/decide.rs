//! What the control group is asked: by its leader itself, or through it.

use std::time::Duration;

use bytes::Bytes;
use sagitta_cluster::{Command, Effect, decode_outcome};
use sagitta_env::Deadline;
use sagitta_model::ErrorKind;

use crate::client::{Elsewhere, NodeClient, ShardError};
use crate::control::{ControlError, Decided};
use crate::{Coordinator, Error};

/// While nobody is known to lead the control group, how often it is looked whether that has changed.
const PAUSE: Duration = Duration::from_millis(50);

impl<C: NodeClient> Coordinator<C> {
    /// Agrees on a command and waits until this coordinator has applied it.
    ///
    /// A repetition must be harmless, by its request id or by what it is: it is sent again when it is not known what became of it.
    pub async fn decide(&self, command: Command, deadline: Deadline) -> Result<Effect, Error> {
        let bytes = Bytes::from(command.encode());
        let outcome = self.env.until(
            deadline,
            self.ask_leader(
                || self.control.propose(bytes.clone(), deadline),
                |leader| self.nodes.propose(leader, bytes.clone(), deadline),
            ),
        );
        let outcome = outcome.await.map_err(|_| Error::DeadlineExceeded)??;
        let outcome = decode_outcome(&outcome);
        let outcome = outcome.map_err(|error| {
            let message = format!("the control group answered what it should not: {error}");
            Error::Control(ControlError::new(ErrorKind::Internal, message))
        })?;
        // So that whoever asks here next sees it, even if another coordinator leads.
        self.catch_up(deadline).await?;
        Ok(outcome?)
    }

    /// Waits until this coordinator's state has every change that was acknowledged before.
    pub async fn catch_up(&self, deadline: Deadline) -> Result<(), Error> {
        let caught_up = async {
            let index = self
                .ask_leader(|| self.control.read_index(deadline), |leader| self.nodes.read_index(leader, deadline))
                .await?;
            self.control.wait_applied(index).await;
            Ok(())
        };
        self.env.until(deadline, caught_up).await.map_err(|_| Error::DeadlineExceeded)?
    }

    /// Asks here, or where the leader is said to be, until somebody who leads answers.
    pub(crate) async fn ask_leader<T, H, R>(&self, here: impl Fn() -> H, there: impl Fn(u64) -> R) -> Result<T, Error>
    where
        H: Future<Output = Result<Decided<T>, ControlError>>,
        R: Future<Output = Result<T, ShardError>>,
    {
        // Whatever refuses a later try says nothing of an earlier one.
        let mut in_doubt = false;
        loop {
            let leader = match here().await.map_err(|error| error.in_doubt_if(in_doubt))? {
                Decided::Done(answer) => return Ok(answer),
                Decided::NotLeader(leader) => leader.filter(|leader| *leader != self.me),
            };
            if let Some(leader) = leader {
                match there(leader).await {
                    Ok(answer) => return Ok(answer),
                    Err(ShardError {
                        elsewhere: Some(Elsewhere::NotLeader { .. } | Elsewhere::Unreachable), ..
                    }) => {}
                    Err(error) if error.kind == ErrorKind::Unavailable => in_doubt |= error.in_doubt,
                    Err(error) => {
                        in_doubt |= error.in_doubt;
                        let error = ControlError::new(error.kind, error.message);
                        return Err(Error::Control(error.in_doubt_if(in_doubt)));
                    }
                }
            }
            self.env.sleep(PAUSE).await;
        }
    }
}
