//! How a node that belongs to no cluster yet asks to be let in.

use std::time::Duration;

use sagitta_env::Env;
use sagitta_model::ErrorKind;
use sagitta_wire::control::{Join, Joined};
use sagitta_wire::internal::control_service_client::ControlServiceClient;
use sagitta_wire::{Convert as _, Failure};
use tonic::Request;
use tonic::transport::Uri;

use crate::net::Net;
use crate::peers::{Broken, Timing, endpoint};

/// To be let in: longer than an election of the control group.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the coordinator at an address, once. Unavailable: it could not be reached or could not decide, so ask on.
pub async fn join(env: &Env, net: &Net, address: &Uri, join: Join) -> Result<Joined, Failure> {
    let asking = async {
        let connected = net.connect(endpoint(address, &Timing::default())).await;
        let channel = connected.map_err(|error| {
            let Broken { what, .. } = error.into();
            Failure::new(ErrorKind::Unavailable, format!("{address} cannot be reached: {what}"))
        })?;
        let mut request = Request::new(join.into_proto());
        request.set_timeout(JOIN_TIMEOUT);
        let answer = ControlServiceClient::new(channel).join(request).await;
        let answer = answer.map_err(|status| Failure::from_status(&status))?;
        Joined::from_proto(answer.into_inner()).map_err(|violation| {
            let message = format!("the answer of {address} is malformed: {violation}");
            Failure::new(ErrorKind::Internal, message)
        })
    };
    let late = |_| Err(Failure::new(ErrorKind::Unavailable, format!("{address} did not answer in time")));
    env.timeout(JOIN_TIMEOUT, Box::pin(asking)).await.unwrap_or_else(late)
}
