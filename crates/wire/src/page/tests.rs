use sagitta_model::Consistency;

use super::*;
use crate::points::Scroll;
use crate::v1;

fn request(collection: &str, consistency: Consistency) -> Scroll {
    Scroll { collection: collection.parse().unwrap(), filter: None, selection: Default::default(), consistency }
}

fn token() -> String {
    let first = request("docs", Consistency::Eventual).into_proto(10, String::new());
    let (_, page) = Scroll::from_proto(first).unwrap();
    page.next_token(&PointId::Num(0x0102_0304))
}

fn read_back(token: &str) -> Result<Option<PointId>, WireError> {
    let request = request("docs", Consistency::Eventual).into_proto(10, token.to_owned());
    Scroll::from_proto(request).map(|(_, page)| page.after)
}

fn fault(result: Result<Option<PointId>, WireError>) -> TokenFault {
    match result {
        Err(WireError::PageToken(fault)) => fault,
        other => panic!("expected a refused token, got {other:?}"),
    }
}

#[test]
fn a_token_continues_after_its_place_whatever_the_size_of_the_page_and_the_freshness() {
    assert_eq!(read_back(&token()), Ok(Some(PointId::Num(0x0102_0304))));
    let changed = request("docs", Consistency::Strong).into_proto(77, token());
    let (_, page) = Scroll::from_proto(changed).unwrap();
    assert_eq!((page.size, page.after), (77, Some(PointId::Num(0x0102_0304))));
}

#[test]
fn version_1_keeps_its_bytes() {
    assert_eq!(token(), "AQE0uwlMNsI-kQEAAAAAAQIDBJVTG9y9nu8q");
    let page: Page<CollectionName> = Page::new(1, "", &v1::ListCollectionsRequest::default()).unwrap();
    assert_eq!(page.next_token(&"docs".parse().unwrap()), "AQLClNM4BYAGLWRvY3NZ9PUfFP_WCg");
}

#[test]
fn a_token_of_another_query_is_refused() {
    let other = request("other", Consistency::Eventual).into_proto(10, token());
    assert_eq!(fault(Scroll::from_proto(other).map(|(_, page)| page.after)), TokenFault::Foreign);
    let mut filtered = request("docs", Consistency::Eventual).into_proto(10, token());
    filtered.filter = Some(v1::Filter::default());
    assert_eq!(fault(Scroll::from_proto(filtered).map(|(_, page)| page.after)), TokenFault::Foreign);
    let list = v1::ListCollectionsRequest { page_token: token(), ..Default::default() };
    let refused = crate::collections::ListCollections::from_proto(&list).unwrap_err();
    assert_eq!(refused, WireError::PageToken(TokenFault::Foreign));
    assert!(refused.to_string().contains("another request"), "{refused}");
}

#[test]
fn a_damaged_token_is_refused() {
    let good = token();
    for cut in 1..good.len() {
        assert_eq!(fault(read_back(&good[..cut])), TokenFault::Damaged, "cut to {cut} characters");
    }
    let bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(fault(read_back(&URL_SAFE_NO_PAD.encode(changed))), TokenFault::Damaged, "bit {bit}");
    }
    for garbage in ["x", "next", "AAAA", "not base64!", &"A".repeat(MAX_TOKEN_BYTES + 1), "ünïcode"] {
        assert_eq!(fault(read_back(garbage)), TokenFault::Damaged, "{garbage}");
    }
}

#[test]
fn a_token_of_another_version_says_so() {
    let sealed = seal(TokenKind::Page, VERSION + 1, &[1; 20]);
    assert_eq!(fault(read_back(&URL_SAFE_NO_PAD.encode(sealed))), TokenFault::Version);
    let empty = seal(TokenKind::Page, VERSION, &[]);
    assert_eq!(fault(read_back(&URL_SAFE_NO_PAD.encode(empty))), TokenFault::Damaged);
}

#[test]
fn sizes_are_defaulted_and_capped() {
    let size = |size| Page::<PointId>::new(size, "", &v1::ScrollRequest::default()).unwrap().size;
    assert_eq!([size(0), size(1), size(u32::MAX)], [DEFAULT_PAGE, 1, limits::MAX_PAGE]);
}
