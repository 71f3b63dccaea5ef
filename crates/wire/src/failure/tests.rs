use super::*;

const KINDS: [ErrorKind; 8] = [
    ErrorKind::Invalid,
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Denied,
    ErrorKind::Overloaded,
    ErrorKind::Unavailable,
    ErrorKind::Corrupt,
    ErrorKind::Internal,
];

#[test]
fn each_kind_has_its_code_and_comes_back() {
    let codes = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::Aborted,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::Unavailable,
        Code::DataLoss,
        Code::Internal,
    ];
    for (kind, code) in KINDS.into_iter().zip(codes) {
        let sent = Failure::new(kind, "what happened");
        let status = Status::from(sent.clone());
        assert_eq!(status.code(), code);
        let info = status.get_details_error_info().expect("every error has its ErrorInfo");
        assert_eq!((info.domain.as_str(), &*info.reason), ("sagitta", &*sent.reason));
        let arrived = Failure::from_status(&status);
        assert_eq!((arrived.kind, &arrived.message, &arrived.reason), (kind, &sent.message, &sent.reason));
        assert_eq!(arrived.code(), code);
        assert_eq!(arrived.is_retryable(), sent.is_retryable());
    }
}

#[test]
fn every_code_is_a_kind() {
    for number in 0..=16 {
        let code = Code::from_i32(number);
        let arrived = Failure::from_status(&Status::new(code, "from elsewhere"));
        let retryable = [Code::Aborted, Code::ResourceExhausted, Code::Unavailable, Code::Cancelled];
        let expected = retryable.contains(&code) || code == Code::DeadlineExceeded;
        assert_eq!(arrived.is_retryable(), expected, "{code:?}");
        assert!(!arrived.reason.is_empty());
    }
}

#[test]
fn details_tell_field_resource_and_delay() {
    let violation = Violation::new("points[3].vectors[\"title\"]", "has 3 dimensions, the collection expects 4");
    let status = Status::from(Failure::invalid(violation.clone()));
    assert_eq!(status.message(), "points[3].vectors[\"title\"]: has 3 dimensions, the collection expects 4");
    assert_eq!(Failure::from_status(&status).violations, [violation]);

    let missing = Failure::from_status(&Failure::no_collection("docs").into());
    assert_eq!(missing.kind, ErrorKind::NotFound);
    assert_eq!(missing.resource, Some(Box::new(Resource { kind: "collection".into(), name: "docs".into() })));

    let exists = Failure::from_status(&Failure::collection_exists("docs").into());
    assert_eq!((exists.code(), exists.is_retryable()), (Code::AlreadyExists, false));

    let settled = Failure::new(ErrorKind::Conflict, "node 3 is active, and only a lost one can be given up").lasting();
    let arrived = Failure::from_status(&settled.clone().into());
    assert_eq!((arrived.code(), arrived.is_retryable()), (Code::FailedPrecondition, false));
    assert_eq!(arrived, settled);

    let reused = Failure::from_status(&Failure::request_id_reused(crate::RequestId(7)).into());
    assert_eq!((&*reused.reason, reused.code()), (reason::REQUEST_ID_REUSED, Code::AlreadyExists));

    let busy = Failure::new(ErrorKind::Overloaded, "busy").with_retry_after(Duration::from_millis(250));
    assert_eq!(Failure::from_status(&busy.into()).retry_after, Some(Duration::from_millis(250)));
    let away = Failure::from_status(&Failure::new(ErrorKind::Unavailable, "away").into());
    assert_eq!(away.retry_after, Some(DEFAULT_RETRY_AFTER));

    let late = Failure::from_status(&Failure::deadline_exceeded().into());
    assert_eq!((late.code(), &*late.reason), (Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED));
}

#[test]
fn errors_of_tokens_have_their_own_reasons() {
    use crate::error::TokenFault;
    let page = Failure::from(WireError::PageToken(TokenFault::Damaged));
    assert_eq!((&*page.reason, &*page.violations[0].field), (reason::PAGE_TOKEN_INVALID, "page_token"));
    let field = "consistency.session.version_tokens[1]".to_owned();
    let version = Failure::from(WireError::VersionToken { field: field.clone(), fault: TokenFault::Damaged });
    assert_eq!((&*version.reason, &version.violations[0].field), (reason::VERSION_TOKEN_INVALID, &field));
}

#[test]
fn a_connection_that_broke_is_worth_a_retry_whatever_its_code() {
    let broken = std::io::Error::other("reset by peer");
    let status = Status::from_error(Box::new(broken));
    assert_eq!(status.code(), Code::Unknown);
    assert!(Failure::from_status(&status).is_retryable());
    assert!(!Failure::from_status(&Status::unknown("said by a server")).is_retryable());
    let late = Status::from_error(Box::new(tonic::TimeoutExpired(())));
    assert_eq!(Failure::from_status(&late).reason, reason::DEADLINE_EXCEEDED);
}

#[test]
fn the_longest_error_fits_into_headers() {
    const HEADER_LIMIT: usize = 16 << 10;
    // What takes the most room: every character is escaped, and every field is there.
    let long = "é".repeat(10_000);
    let violations = vec![Violation::new(long.clone(), long.clone()); 100];
    let failure = Failure { violations, ..Failure::new(ErrorKind::Invalid, long.clone()) };
    let failure = failure.with_resource("collection", long);
    let response = Status::from(failure.clone()).into_http::<()>();
    let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    assert!(bytes < HEADER_LIMIT, "{bytes} bytes of headers");
    let arrived = Failure::from_status(&failure.into());
    assert_eq!(arrived.violations.len(), MAX_VIOLATIONS);
    assert!(arrived.violations[0].reason.ends_with("..."));
}
