//! A connection to a cluster and how its errors are told.

use std::time::Duration;

use sagitta_client::{Client, ClientConfig, ClientError, ClientTls, View};
use sagitta_env::Env;
use sagitta_model::{CollectionInfo, CollectionName, ErrorKind, Violation};

use crate::cli::{Global, TlsArgs};
use crate::failure::{Exit, Failure};
use crate::humane;
use crate::output::Output;

/// What a command works with.
#[derive(Clone, Debug)]
pub struct Session {
    /// The cluster. Connects when it is first used.
    pub client: Client,
    /// Clock, chance and tasks.
    pub env: Env,
    /// Where results go.
    pub output: Output,
    config: ClientConfig,
}

impl Session {
    /// Prepares a connection to the endpoint.
    pub fn new(global: &Global) -> Result<Self, Failure> {
        let env = Env::real();
        let TlsArgs { tls_ca: ca, tls_cert: cert, tls_key: key, tls_name: name } = global.tls.clone();
        let tls = ClientTls { ca, cert, key, name };
        let config = ClientConfig { deadline: global.timeout, tls, ..ClientConfig::new(global.endpoint.trim()) };
        let client = Client::connect_in(env.clone(), config.clone()).map_err(|error| unusable(&error))?;
        Ok(Self { client, env, output: Output::detect(global.output), config })
    }

    /// A further connection to the same cluster.
    pub fn another_client(&self) -> Result<Client, Failure> {
        Client::connect_in(self.env.clone(), self.config.clone()).map_err(|error| self.failed(error))
    }

    /// The addresses as they were given, of which any answers for the cluster.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.config.endpoint.split(',').map(str::trim)
    }

    /// The address that is asked at present, as a URL with its port.
    pub fn endpoint(&self) -> &str {
        self.client.endpoint()
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.config.deadline
    }

    /// Shows a collection, or says which ones there are.
    pub async fn collection(&self, name: &CollectionName, view: View) -> Result<CollectionInfo, Failure> {
        let answer = self.client.get_collection(name.clone(), view).await;
        self.told(name, answer).await
    }

    /// An answer about a collection, or why there is none; if there is no such collection, with those that exist.
    pub async fn told<T>(&self, name: &CollectionName, answer: Result<T, ClientError>) -> Result<T, Failure> {
        match answer {
            Err(error) if error.kind == ErrorKind::NotFound => Err(self.no_collection(name).await),
            other => other.map_err(|error| self.failed(error)),
        }
    }

    /// The failure that a collection does not exist, with the names of those that do.
    async fn no_collection(&self, name: &CollectionName) -> Failure {
        const SHOWN: usize = 10;
        let failure = Failure::new(Exit::NotFound, format!("there is no collection `{name}`"));
        match self.client.list_collections(View::Basic, SHOWN, String::new()).await {
            Ok(page) if page.collections.is_empty() => failure
                .hint(format!("there are no collections yet: create it with sagitta collection create {name} --dim N")),
            Ok(page) => {
                let names: Vec<_> = page.collections.iter().map(|info| info.name.to_string()).collect();
                let more = if page.next_page_token.is_empty() { "" } else { ", …" };
                failure.hint(format!("there are: {}{more}", names.join(", ")))
            }
            Err(_) => failure.hint("list those that exist with sagitta collection list"),
        }
    }

    /// Tells a client's error, naming the endpoint where it cannot be reached.
    pub fn failed(&self, error: ClientError) -> Failure {
        let exit = Exit::from(error.kind);
        match error.kind {
            ErrorKind::Unavailable if error.unreached.len() > 1 => {
                let message = format!("none of the {} endpoints that were asked answers", error.unreached.len());
                let excerpt =
                    error.unreached.iter().map(|tried| format!("  {}: {}", tried.endpoint, tried.why)).collect();
                let hint = "are the servers running there? --endpoint or SAGITTA_ENDPOINT name others, --timeout 2m waits longer";
                Failure { excerpt, ..Failure::new(exit, message) }.hint(hint)
            }
            ErrorKind::Unavailable if error.reason == "DEADLINE_EXCEEDED" => {
                let time = humane::duration(self.timeout());
                let failure = Failure::new(exit, format!("{} did not answer within {time}", self.endpoint()));
                let excerpt = error.told_before.iter().map(|told| format!("  before that: {told}")).collect();
                Failure { excerpt, ..failure }
                    .hint("wait longer with --timeout 2m, or see whether the server is well with sagitta status")
            }
            ErrorKind::Unavailable => {
                let message = format!("cannot reach {}: {}", self.endpoint(), error.message);
                Failure::new(exit, message).hint(help(&error.reason))
            }
            ErrorKind::Overloaded => Failure::new(exit, error.message)
                .hint("the server has too much to do: try again later, or with less at once"),
            ErrorKind::Corrupt => Failure::new(exit, error.message)
                .hint("stored data is damaged and was not served: look at the server's log"),
            ErrorKind::Internal => {
                Failure::new(exit, format!("a defect of the server: {}", error.message)).hint("please report it")
            }
            ErrorKind::Invalid if error.reason == "UNIMPLEMENTED" => {
                let message = format!("{} does not answer like Sagitta: {}", self.endpoint(), error.message);
                Failure::new(exit, message)
                    .hint("is another server or an older version listening there? --endpoint or SAGITTA_ENDPOINT name another")
            }
            ErrorKind::Invalid => invalid(&error),
            ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Denied => Failure::new(exit, error.message),
        }
    }
}

/// What helps against a server that cannot be reached, by the word for why.
fn help(reason: &str) -> &'static str {
    match reason {
        "TLS_NOT_SPOKEN" => {
            "start the server with --tls-cert and --tls-key, or do without encryption: http:// and no option --tls-..."
        }
        "TLS_SPOKEN" => "https:// or --tls-ca FILE (SAGITTA_TLS_CA) encrypts the connection",
        "TLS_UNTRUSTED" => {
            "--tls-ca FILE (SAGITTA_TLS_CA) names the authorities to trust; is it the one that signed the server's certificate?"
        }
        "TLS_OTHER_NAME" => {
            "ask by a name that the certificate is for, or say which with --tls-name NAME; make sure that it is the right server"
        }
        "TLS_EXPIRED" => "the server needs a new certificate, unless this machine's clock is wrong",
        "TLS_CERTIFICATE_DEMANDED" => {
            "show one with --tls-cert FILE and --tls-key FILE (SAGITTA_TLS_CERT, SAGITTA_TLS_KEY)"
        }
        "TLS_CERTIFICATE_REFUSED" => {
            "--tls-cert and --tls-key need a certificate of an authority that the server's --tls-client-ca names"
        }
        "TLS_FAILED" => "is it the API of Sagitta that listens there? --endpoint or SAGITTA_ENDPOINT name another",
        _ => "is the server running there? `sagittad dev` starts one; --endpoint or SAGITTA_ENDPOINT name another",
    }
}

/// Why there can be no client: the option that is wrong, and what would be right.
fn unusable(error: &ClientError) -> Failure {
    let violation = error.violations.first();
    let reason = violation.map_or_else(|| error.message.clone(), |violation| violation.reason.clone());
    let Some(setting) = violation.and_then(|violation| violation.field.strip_prefix("tls.")) else {
        let hint = "such as 10.0.0.7, db.example.org:6380 or https://[::1]:6380, several separated by commas, by --endpoint or SAGITTA_ENDPOINT";
        return Failure::usage(format!("--endpoint: {reason}")).hint(hint);
    };
    let hint = match setting {
        "cert" | "key" => "--tls-cert and --tls-key belong together; SAGITTA_TLS_CERT and SAGITTA_TLS_KEY say the same",
        "ca" => "--tls-ca or SAGITTA_TLS_CA name a file with certificates of authorities, in PEM",
        _ => "--tls-name or SAGITTA_TLS_NAME name what the certificate is for, such as db.example.org",
    };
    Failure::usage(format!("--tls-{setting}: {reason}")).hint(hint)
}

/// A request that the server refused: each offending field on a line, by the argument that it comes from.
fn invalid(error: &ClientError) -> Failure {
    let text = |violation: &Violation| {
        Violation { field: argument(&violation.field), reason: violation.reason.clone() }.to_string()
    };
    let mut lines = error.violations.iter().map(text);
    let first = lines.next().unwrap_or_else(|| error.message.clone());
    let excerpt = lines.map(|line| format!("       {line}")).collect();
    Failure { excerpt, ..Failure::usage(first) }
}

/// The argument that a field of a request comes from; the field without what only the API knows if there is none.
fn argument(field: &str) -> String {
    const ARGUMENTS: [(&str, &str); 12] = [
        ("k", "-k"),
        ("vector_name", "--vector-name"),
        ("score_threshold", "--threshold"),
        ("knobs.ef_search", "--ef-search"),
        ("knobs.nprobe", "--nprobe"),
        ("knobs.rerank", "--rerank"),
        ("group_by.field", "--group-by"),
        ("group_by.group_size", "--group-size"),
        ("filter", "--filter"),
        ("collection.shards", "--shards"),
        ("collection.replication", "--replication"),
        ("to", "--to"),
    ];
    let plain = field.strip_prefix("search.").unwrap_or(field);
    // The searches of a batch differ in their vectors alone.
    let shared = plain.strip_prefix("searches[").and_then(|rest| rest.split_once("].")).map_or(plain, |(_, rest)| rest);
    if let Some(condition) = shared.strip_prefix("filter.") {
        return format!("--filter ({condition})");
    }
    let known = ARGUMENTS.iter().find(|(name, _)| *name == shared);
    known.map_or(plain, |(_, argument)| argument).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagitta_console::Format;

    #[test]
    fn fields_of_requests_are_told_as_arguments() {
        for (field, expected) in [
            ("search.k", "-k"),
            ("search.knobs.ef_search", "--ef-search"),
            ("search.filter.must[0].field", "--filter (must[0].field)"),
            ("filter.must_not[1].match", "--filter (must_not[1].match)"),
            ("searches[3].group_by.field", "--group-by"),
            ("searches[3].vector", "searches[3].vector"),
            ("search.vector", "vector"),
            ("collection", "collection"),
        ] {
            assert_eq!(argument(field), expected, "{field}");
        }
    }

    #[test]
    fn what_answers_without_being_sagitta_is_told_as_such() {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        let _within = runtime.enter();
        let endpoint = "http://127.0.0.1:80".to_owned();
        let (output, timeout) = (Format::Table, Duration::from_secs(1));
        let global = Global { endpoint, output, timeout, tls: TlsArgs::default() };
        let session = Session::new(&global).expect("an endpoint");
        // What the transport makes of a page that does not exist.
        let error = ClientError {
            kind: ErrorKind::Invalid,
            reason: "UNIMPLEMENTED".to_owned(),
            message: "grpc-status header missing, mapped from HTTP status code 404".to_owned(),
            violations: Vec::new(),
            retry_after: None,
            attempts: 1,
            told_before: None,
            unreached: Vec::new(),
        };
        let failure = session.failed(error);
        assert!(failure.message.starts_with("http://127.0.0.1:80 does not answer like Sagitta: "), "{failure}");
        assert!(failure.hint.is_some_and(|hint| hint.contains("--endpoint")));
    }
}
