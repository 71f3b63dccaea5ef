//! The gRPC server: services, health, reflection, and the limits on connections.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sagitta_coordinator::{Coordinator, NodeClient};
use sagitta_env::{Env, JoinHandle};
use sagitta_model::limits;
use sagitta_wire::v1;
use sagitta_wire::v1::cluster_service_server::ClusterServiceServer;
use sagitta_wire::v1::collection_service_server::CollectionServiceServer;
use sagitta_wire::v1::point_service_server::PointServiceServer;
use sagitta_wire::v1::search_service_server::SearchServiceServer;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::pb as reflection_pb;

use crate::connections::{self, Limits};
use crate::net::Door;
use crate::services::{Founding, Services, Unfounded};

/// Calls of one connection that run at once; more wait. Enough to keep every thread of a machine busy.
const STREAMS_PER_CONNECTION: u32 = 256;
/// HTTP/2 windows: room for a few large batches in flight, so that uploads are not throttled by acknowledgements.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A peer that does not answer pings is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The services whose health is reported, beside the server as a whole (the empty name).
const SERVICES: [&str; 4] = [
    "sagitta.v1.ClusterService",
    "sagitta.v1.CollectionService",
    "sagitta.v1.PointService",
    "sagitta.v1.SearchService",
];

/// What `grpc.health.v1` answers.
pub(crate) struct Health(HealthReporter);

impl Health {
    /// Calls are welcome.
    pub(crate) async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Load balancers should go elsewhere.
    pub(crate) async fn stopping(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES.into_iter().chain([""]) {
            self.0.set_service_status(service, status).await;
        }
    }
}

fn api_server() -> Server {
    connections::bounded_server()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}

/// Serves a process that belongs to no cluster yet, until `stopped`: it can found one, and does not call itself well.
pub(crate) fn serve_unfounded<F: Founding, S: Future<Output = ()> + Send + 'static>(
    founding: F,
    env: &Env,
    listener: Door,
    stopped: S,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + Send + use<F, S> {
    let (incoming, accepting) = connections::accept(env, listener, Limits::of_process());
    let server = api_server()
        .add_service(ClusterServiceServer::new(Unfounded(founding)))
        .serve_with_incoming_shutdown(incoming, stopped);
    until_closed(server, accepting)
}

/// Ends with the listener, and not only with the last call: whoever waits for it may listen there next.
async fn until_closed<T>(server: impl Future<Output = T>, accepting: JoinHandle<()>) -> T {
    let served = server.await;
    // A panic there has been told of, and has closed the listener, too.
    let _ = accepting.await;
    served
}

/// The health of a server and the future that serves until `stopped`.
pub(crate) fn serve<C: NodeClient>(
    coordinator: Option<Arc<Coordinator<C>>>,
    env: Env,
    listener: Door,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> (Health, impl Future<Output = Result<(), tonic::transport::Error>> + Send) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let services = coordinator.map(|coordinator| Arc::new(Services::new(coordinator, env.clone())));
    // Only a coordinator answers requests; any node says whether it is well.
    macro_rules! bounded {
        ($server:ident) => {
            services.as_ref().map(|services| {
                $server::from_arc(services.clone())
                    .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(limits::MAX_MESSAGE_BYTES)
            })
        };
    }
    // Each version of reflection tells of itself, and here of the other one, too.
    let reflection = |other| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(other)
    };
    let (older, newer) = (reflection_pb::v1alpha::FILE_DESCRIPTOR_SET, reflection_pb::v1::FILE_DESCRIPTOR_SET);
    let (incoming, accepting) = connections::accept(&env, listener, Limits::of_process());
    let server = api_server()
        .add_service(health)
        .add_service(reflection(older).build_v1().expect("invariant: the descriptors come from the compiler"))
        .add_service(reflection(newer).build_v1alpha().expect("invariant: the descriptors come from the compiler"))
        .add_optional_service(bounded!(ClusterServiceServer))
        .add_optional_service(bounded!(CollectionServiceServer))
        .add_optional_service(bounded!(PointServiceServer))
        .add_optional_service(bounded!(SearchServiceServer))
        .serve_with_incoming_shutdown(incoming, stopped);
    (Health(reporter), until_closed(server, accepting))
}

#[cfg(test)]
mod tests {
    use sagitta_model::NewCluster;
    use sagitta_wire::Failure;

    use super::*;
    use crate::net::Net;

    struct NeverAsked;

    impl Founding for NeverAsked {
        async fn found(&self) -> Result<NewCluster, Failure> {
            unreachable!("nobody asks")
        }
    }

    /// On one thread nothing else has run when the server's end is told.
    #[tokio::test]
    async fn an_address_is_free_when_the_server_of_a_process_without_a_cluster_has_ended() {
        let (env, net) = (Env::real(), Net::system());
        let listener = net.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        serve_unfounded(NeverAsked, &env, listener, std::future::ready(())).await.expect("served");
        net.listen(address).await.expect("free again");
    }
}
