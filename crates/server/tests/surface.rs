//! What any gRPC client meets, whatever language it is in: health, reflection, status codes with their details, limits.
//!
//! The server runs in this process over the in-memory twins of the engines; its services are those of `sagittad`.

use std::collections::BTreeSet;
use std::sync::Arc;

use sagitta_engine::index::exact::ExactEngine;
use sagitta_engine::kv::MemoryEngine;
use sagitta_env::Env;
use sagitta_server::{Config, Engines, Platform, Server};
use sagitta_wire::Codec;
use sagitta_wire::v1::collection_service_client::CollectionServiceClient;
use sagitta_wire::v1::point_service_client::PointServiceClient;
use sagitta_wire::v1::search_service_client::SearchServiceClient;
use sagitta_wire::v1::{self, search_query::Effort, vector::Data};
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::StatusExt as _;

/// What the API and its helpers are called, in the order of their names.
const SERVICES: [&str; 7] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "sagitta.v1.ClusterService",
    "sagitta.v1.CollectionService",
    "sagitta.v1.PointService",
    "sagitta.v1.SearchService",
];

struct Fixture {
    server: Server,
    endpoint: Endpoint,
    channel: Channel,
    _temp: tempfile::TempDir,
}

/// A server with the collection `c` of vectors of two dimensions and the declared field `n`.
async fn fixture() -> Fixture {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let config = Config { search_threads: 1, ..Config::new(temp.path().join("data"), listen) };
    let engines = Engines { kv: Arc::new(MemoryEngine::new()), index: Arc::new(ExactEngine) };
    let server = Server::start(config, Platform::system(engines), Env::real()).await.expect("starts");
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).expect("an endpoint");
    let channel = endpoint.connect().await.expect("connects");
    let vector = v1::VectorConfig { dimension: 2, metric: v1::Metric::L2.into(), index: 0 };
    let collection = v1::Collection {
        name: "c".into(),
        vectors: [("v".to_owned(), vector)].into(),
        fields: [("n".to_owned(), v1::FieldType::Integer.into())].into(),
        ..v1::Collection::default()
    };
    let request = v1::CreateCollectionRequest { collection: Some(collection), request_id: String::new() };
    CollectionServiceClient::new(channel.clone()).create_collection(request).await.expect("created");
    Fixture { server, endpoint, channel, _temp: temp }
}

fn status(response: HealthCheckResponse) -> ServingStatus {
    response.status()
}

#[tokio::test]
async fn health_is_checked_for_the_server_and_for_each_service() {
    let fixture = fixture().await;
    let mut health = HealthClient::new(fixture.channel.clone());
    for service in ["", "sagitta.v1.CollectionService", "sagitta.v1.PointService", "sagitta.v1.SearchService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.expect(service);
        assert_eq!(status(answer.into_inner()), ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "sagitta.v1.Nothing".into() }).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn watchers_of_health_are_told_that_the_server_stops_and_stopping_does_not_wait_for_them() {
    let fixture = fixture().await;
    let mut health = HealthClient::new(fixture.channel.clone());
    let request = HealthCheckRequest { service: "sagitta.v1.SearchService".into() };
    let mut watched = health.watch(request).await.expect("watched").into_inner();
    let first = watched.message().await.expect("an answer").expect("a status");
    assert_eq!(status(first), ServingStatus::Serving);
    let env = Env::real();
    let stopping = env.spawn(fixture.server.stop());
    let next = watched.message().await.expect("an answer").expect("a status");
    assert_eq!(status(next), ServingStatus::NotServing);
    drop(watched);
    stopping.await.expect("ends").expect("ends well");
}

/// Asks one version of the reflection service, in a macro because both are the same but for their types.
macro_rules! reflect {
    ($version:ident, $channel:expr, $ask:expr) => {{
        use pb::server_reflection_request::MessageRequest;
        use pb::server_reflection_response::MessageResponse;
        use tonic_reflection::pb::$version as pb;
        let mut client = pb::server_reflection_client::ServerReflectionClient::new($channel.clone());
        let ask = $ask;
        let request = |message: MessageRequest| pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        let questions: Vec<MessageRequest> = ask
            .into_iter()
            .map(|question: Question| match question {
                Question::Services => MessageRequest::ListServices(String::new()),
                Question::Symbol(symbol) => MessageRequest::FileContainingSymbol(symbol.to_owned()),
                Question::File(name) => MessageRequest::FileByFilename(name.to_owned()),
            })
            .collect();
        let stream = tokio_stream::iter(questions.into_iter().map(request).collect::<Vec<_>>());
        let mut answers = client.server_reflection_info(stream).await.expect("answers").into_inner();
        let mut found = Vec::new();
        while let Some(answer) = answers.message().await.expect("an answer") {
            found.push(match answer.message_response.expect("a response") {
                MessageResponse::ListServicesResponse(list) => {
                    Reflected::Services(list.service.into_iter().map(|service| service.name).collect())
                }
                MessageResponse::FileDescriptorResponse(files) => Reflected::Files(files.file_descriptor_proto),
                MessageResponse::ErrorResponse(error) => panic!("{}", error.error_message),
                other => panic!("unexpected: {other:?}"),
            });
        }
        found
    }};
}

#[derive(Clone, Copy)]
enum Question {
    Services,
    Symbol(&'static str),
    File(&'static str),
}

#[derive(Debug, PartialEq)]
enum Reflected {
    Services(BTreeSet<String>),
    Files(Vec<Vec<u8>>),
}

#[tokio::test]
async fn both_versions_of_reflection_describe_every_service_and_the_files_behind_it() {
    let fixture = fixture().await;
    let questions = || {
        let symbols = ["sagitta.v1.SearchService", "sagitta.v1.PointService.UpsertStream", "sagitta.v1.Filter"];
        let files = ["sagitta/v1/common.proto", "google/protobuf/timestamp.proto", "google/protobuf/empty.proto"];
        [Question::Services]
            .into_iter()
            .chain(symbols.map(Question::Symbol))
            .chain([Question::Symbol("grpc.health.v1.Health")])
            .chain(files.map(Question::File))
            .collect::<Vec<_>>()
    };
    let newer = reflect!(v1, fixture.channel, questions());
    let older = reflect!(v1alpha, fixture.channel, questions());
    for (version, answers) in [("v1", newer), ("v1alpha", older)] {
        assert_eq!(answers.len(), questions().len(), "{version}");
        let mut answers = answers.into_iter();
        let Some(Reflected::Services(services)) = answers.next() else { panic!("{version}: services come first") };
        assert_eq!(services.iter().map(String::as_str).collect::<Vec<_>>(), SERVICES, "{version}");
        for answer in answers {
            let Reflected::Files(files) = answer else { panic!("{version}: the others are files") };
            assert!(!files.is_empty() && files.iter().all(|file| !file.is_empty()), "{version}");
        }
    }
}

fn point(id: u64, vector: Vec<f32>) -> v1::Point {
    let vector = v1::Vector { data: Some(Data::Dense(v1::DenseVector { values: vector })) };
    v1::Point {
        id: Some(v1::PointId { id: Some(v1::point_id::Id::Num(id)) }),
        vectors: [("v".to_owned(), vector)].into(),
        ..v1::Point::default()
    }
}

fn upsert(points: Vec<v1::Point>) -> v1::UpsertRequest {
    v1::UpsertRequest { collection: "c".into(), points, ..v1::UpsertRequest::default() }
}

/// Asserts what every error of the service carries, and returns the fields that it blames.
#[track_caller]
fn check(status: &Status, code: Code, reason: &str) -> Vec<String> {
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("sagitta", reason), "{status:?}");
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    let passing = matches!(code, Code::ResourceExhausted | Code::Unavailable);
    assert_eq!(retry.is_some_and(|delay| !delay.is_zero()), passing, "{status:?}");
    let violations = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn errors_carry_the_details_that_programs_act_on() {
    let fixture = fixture().await;
    let mut points = PointServiceClient::new(fixture.channel.clone());
    let wrong = points.upsert(upsert(vec![point(1, vec![1.0, 2.0]), point(2, vec![1.0])])).await;
    let fields = check(&wrong.expect_err("wrong"), Code::InvalidArgument, "INVALID");
    assert_eq!(fields, ["points[1].vectors[\"v\"]"]);

    let request = v1::CountRequest { collection: "nowhere".into(), ..v1::CountRequest::default() };
    let missing = points.count(request).await.expect_err("missing");
    check(&missing, Code::NotFound, "NOT_FOUND");
    let resource = missing.get_error_details().resource_info().cloned().expect("a resource");
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("collection", "nowhere"));

    let request_id = "0195f7a2-6c1e-7b32-9d2a-3f6f8f5f2c11".to_owned();
    let first = v1::UpsertRequest { request_id, ..upsert(vec![point(1, vec![1.0, 2.0])]) };
    points.upsert(first.clone()).await.expect("written");
    points.upsert(first.clone()).await.expect("the same again");
    let other = v1::UpsertRequest { points: vec![point(2, vec![1.0, 2.0])], ..first };
    check(&points.upsert(other).await.expect_err("another"), Code::AlreadyExists, "REQUEST_ID_REUSED");

    let page = v1::ScrollRequest { collection: "c".into(), page_token: "x".into(), ..v1::ScrollRequest::default() };
    let fields = check(&points.scroll(page).await.expect_err("no token"), Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    assert_eq!(fields, ["page_token"]);
}

#[tokio::test]
async fn a_message_that_is_no_such_message_is_the_callers_mistake() {
    let fixture = fixture().await;
    // Field 1 of `SearchKnobs` is a number, where `UpsertRequest` has a text.
    let foreign = v1::SearchKnobs { ef_search: Some(7), ..v1::SearchKnobs::default() };
    let mut client = Grpc::new(fixture.channel.clone());
    client.ready().await.expect("ready");
    let path = PathAndQuery::from_static("/sagitta.v1.PointService/Upsert");
    let codec = Codec::<v1::SearchKnobs, v1::WriteResponse>::default();
    let refused = client.unary(Request::new(foreign), path, codec).await.expect_err("foreign");
    check(&refused, Code::InvalidArgument, "MALFORMED_MESSAGE");
    let path = PathAndQuery::from_static("/sagitta.v1.PointService/Nothing");
    client.ready().await.expect("ready");
    let codec = Codec::<v1::SearchKnobs, v1::WriteResponse>::default();
    let unknown = client.unary(Request::new(v1::SearchKnobs::default()), path, codec).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_by_its_size_and_the_server_stays_up() {
    let fixture = fixture().await;
    let mut points = PointServiceClient::new(fixture.channel.clone());
    let mut large = point(1, vec![1.0, 2.0]);
    let text = v1::Value { kind: Some(v1::value::Kind::StringValue("x".repeat(65 << 20))) };
    large.payload.insert("text".into(), text);
    let refused = points.upsert(upsert(vec![large])).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert!(refused.message().contains(&(64 << 20).to_string()), "names the limit: {}", refused.message());
    let written = points.upsert(upsert(vec![point(1, vec![1.0, 2.0])])).await.expect("still up").into_inner();
    assert_eq!(written.applied, 1);
}

#[tokio::test]
async fn searches_beyond_the_queue_are_refused_at_once_with_when_to_come_back() {
    let fixture = fixture().await;
    let points = (0..4_000).map(|id| point(id, vec![id as f32, 1.0])).collect();
    PointServiceClient::new(fixture.channel.clone()).upsert(upsert(points)).await.expect("written");
    let vector = v1::Vector { data: Some(Data::Dense(v1::DenseVector { values: vec![1.0, 2.0] })) };
    let effort = Some(Effort::Exact(v1::ExactSearch {}));
    let search = v1::SearchQuery { vector: Some(vector), k: 100, effort, ..v1::SearchQuery::default() };
    let request = v1::SearchBatchRequest {
        collection: "c".into(),
        searches: vec![search; 256],
        ..v1::SearchBatchRequest::default()
    };
    let env = Env::real();
    let (answers, mut answered) = mpsc::unbounded_channel();
    for _connection in 0..3 {
        let channel = fixture.endpoint.connect().await.expect("connects");
        for _call in 0..250 {
            let (mut client, request) = (SearchServiceClient::new(channel.clone()), request.clone());
            let answers = answers.clone();
            env.spawn(async move { answers.send(client.search_batch(request).await.map(|_| ())) });
        }
    }
    drop(answers);
    let mut served = 0;
    while let Some(answer) = answered.recv().await {
        match answer {
            Ok(()) => served += 1,
            Err(refused) => {
                check(&refused, Code::ResourceExhausted, "OVERLOADED");
                assert!(refused.message().contains("waiting"), "{refused:?}");
                println!("refused after {served} were served");
                return;
            }
        }
    }
    panic!("all {served} were served: none was refused");
}
