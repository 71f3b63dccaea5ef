//! Nodes as people name them: their ids have twenty digits, so the beginning of one will do, or an address.

use std::convert::Infallible;
use std::str::FromStr;

use sagitta_model::{NodeInfo, PointId};

use crate::failure::{Exit, Failure};
use crate::session::Session;

/// Digits of an id that tables show at least, more if nodes share them.
const SHORT_DIGITS: usize = 8;
/// Nodes that a hint names.
const SHOWN: usize = 10;

/// A node, named in an argument.
#[derive(Clone, Debug)]
pub struct NodeName(String);

/// The nodes of a cluster, to look names up in.
#[derive(Debug)]
pub struct Nodes {
    nodes: Vec<NodeInfo>,
    digits: usize,
}

impl FromStr for NodeName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl Nodes {
    /// All nodes of the cluster, ascending by id.
    pub async fn of(session: &Session) -> Result<Self, Failure> {
        let (mut nodes, mut token) = (Vec::new(), String::new());
        loop {
            let page = session.client.list_nodes(0, token).await;
            let page = page.map_err(|error| crate::command::cluster_failed(session, error))?;
            nodes.extend(page.nodes);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(Self::new(nodes));
            }
        }
    }

    fn new(nodes: Vec<NodeInfo>) -> Self {
        let texts: Vec<_> = nodes.iter().map(|node| node.id.to_string()).collect();
        let shared = |digits: usize| {
            let mut short: Vec<_> = texts.iter().map(|text| text.get(..digits).unwrap_or(text)).collect();
            short.sort_unstable();
            short.windows(2).any(|pair| pair[0] == pair[1])
        };
        let longest = texts.iter().map(String::len).max().unwrap_or_default();
        let digits = (SHORT_DIGITS..longest).find(|digits| !shared(*digits)).unwrap_or(longest.max(SHORT_DIGITS));
        Self { nodes, digits }
    }

    /// The nodes.
    pub fn all(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// An id as tables show it: as many digits as tell the nodes apart.
    pub fn short(&self, id: u64) -> String {
        let text = id.to_string();
        match self.nodes.iter().any(|node| node.id == id) {
            true => text.get(..self.digits).map_or(text.clone(), str::to_owned),
            // A node that the cluster does not know (any more) may share its beginning with one that it does.
            false => text,
        }
    }

    /// A node in a sentence: its short id and where it is.
    pub fn told(&self, id: u64) -> String {
        let address = self.nodes.iter().find(|node| node.id == id).map(address_of);
        match address.filter(|address| !address.is_empty()) {
            Some(address) => format!("{} ({address})", self.short(id)),
            None => self.short(id),
        }
    }

    /// The node that a name means.
    pub fn find(&self, argument: &str, name: &NodeName) -> Result<&NodeInfo, Failure> {
        let text = name.0.as_str();
        if text.is_empty() {
            return Err(Failure::usage(format!("{argument}: the name of a node is empty")).hint(self.hint(&self.nodes)));
        }
        let named = self.exactly(text).or_else(|| self.all_that(|node| begins(node, text)));
        let named = named.or_else(|| self.all_that(|node| addresses(node).any(|address| host_of(address) == text)));
        match named.as_deref() {
            Some([node]) => Ok(node),
            Some(several) => {
                let message = format!("{argument}: `{text}` may mean {} nodes", several.len());
                Err(Failure::usage(message).hint(self.hint(several.iter().copied())))
            }
            None => {
                let message = format!("{argument}: there is no node `{text}`");
                Err(Failure::new(Exit::NotFound, message).hint(self.hint(&self.nodes)))
            }
        }
    }

    /// The one that is named in full, whatever other names begin like it.
    fn exactly(&self, text: &str) -> Option<Vec<&NodeInfo>> {
        let plain = |address: &str| without_scheme(address).trim_end_matches('/').to_ascii_lowercase();
        let text = plain(text);
        self.all_that(|node| node.id.to_string() == text || incarnation(node) == text)
            .or_else(|| self.all_that(|node| addresses(node).any(|address| plain(address) == text)))
    }

    fn all_that(&self, is_meant: impl Fn(&NodeInfo) -> bool) -> Option<Vec<&NodeInfo>> {
        let found: Vec<_> = self.nodes.iter().filter(|node| is_meant(node)).collect();
        (!found.is_empty()).then_some(found)
    }

    fn hint<'a>(&'a self, nodes: impl IntoIterator<Item = &'a NodeInfo>) -> String {
        let mut told: Vec<_> = nodes.into_iter().map(|node| self.told(node.id)).collect();
        if told.is_empty() {
            return "sagitta node list shows the nodes".to_owned();
        }
        let more = if told.len() > SHOWN { ", …" } else { "" };
        told.truncate(SHOWN);
        format!("there are: {}{more}", told.join(", "))
    }
}

fn incarnation(node: &NodeInfo) -> String {
    PointId::Uuid(node.incarnation).to_string()
}

fn begins(node: &NodeInfo, text: &str) -> bool {
    // A few digits alone are those of an id.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    node.id.to_string().starts_with(text) || (!is_number && incarnation(node).starts_with(&text.to_ascii_lowercase()))
}

fn addresses(node: &NodeInfo) -> impl Iterator<Item = &str> {
    [&*node.api_address, &*node.peer_address].into_iter().filter(|address| !address.is_empty())
}

/// Where a person would look for it.
fn address_of(node: &NodeInfo) -> String {
    without_scheme(addresses(node).next().unwrap_or_default()).to_owned()
}

/// `10.0.0.7:6380` of `https://10.0.0.7:6380`.
fn without_scheme(address: &str) -> &str {
    address.split_once("://").map_or(address, |(_, address)| address)
}

/// `10.0.0.7` of `http://10.0.0.7:6380`; brackets of IP version 6 stay.
fn host_of(address: &str) -> &str {
    let address = without_scheme(address);
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use sagitta_model::NodeStatus;

    use super::*;

    fn node(id: u64, host: &str, port: u16) -> NodeInfo {
        NodeInfo {
            id,
            incarnation: u128::from(id) << 64,
            peer_address: format!("http://{host}:{}", port + 1),
            api_address: format!("http://{host}:{port}"),
            zone: String::new(),
            coordinator: true,
            shard: true,
            status: NodeStatus::Up,
            joined_unix_micros: 1,
            voter: true,
            silent_ms: None,
            wanted_replicas: 0,
            hosted_replicas: 0,
            led_shards: 0,
            waiting_searches: 0,
            problems: Vec::new(),
        }
    }

    const FIRST: u64 = 7_231_043_388_021_175_403;
    const SECOND: u64 = 7_231_043_399_000_000_001;
    const THIRD: u64 = 12_000_000_000_000_000_000;

    fn nodes() -> Nodes {
        Nodes::new(vec![node(FIRST, "10.0.0.7", 6380), node(SECOND, "10.0.0.7", 7380), node(THIRD, "db-3", 6380)])
    }

    #[test]
    fn a_node_is_named_by_whatever_tells_it_from_the_others() {
        for (text, expected) in [
            ("7231043388021175403", FIRST),
            (" 72310433880 ", FIRST),
            ("72310433990", SECOND),
            ("1", THIRD),
            ("10.0.0.7:6380", FIRST),
            ("http://10.0.0.7:6380", FIRST),
            ("https://10.0.0.7:6380", FIRST),
            ("10.0.0.7:7381", SECOND),
            ("db-3", THIRD),
            ("DB-3:6380", THIRD),
            ("00000000-0000-0000", 0),
            ("a688906b", THIRD),
            ("A688906B-D8", THIRD),
        ] {
            let nodes = nodes();
            let found = nodes.find("--node", &text.parse().expect("a name"));
            match expected {
                0 => assert_eq!(found.expect_err(text).exit, Exit::NotFound),
                id => assert_eq!(found.expect(text).id, id, "{text}"),
            }
        }
    }

    #[test]
    fn a_name_that_means_none_or_several_is_refused_with_those_that_there_are() {
        let refusal = |text: &str| nodes().find("--to", &text.parse().expect("a name")).expect_err(text);
        for several in ["72310433", "7", "10.0.0.7"] {
            let failure = refusal(several);
            assert_eq!(
                (failure.exit, &*failure.message),
                (Exit::Usage, &*format!("--to: `{several}` may mean 2 nodes"))
            );
            let hint = failure.hint.expect("a hint");
            assert!(hint.contains("723104338 (10.0.0.7:6380), 723104339 (10.0.0.7:7380)"), "{several}: {hint}");
            assert!(!hint.contains("db-3"), "{hint}");
        }
        let failure = refusal("9");
        assert_eq!((failure.exit, &*failure.message), (Exit::NotFound, "--to: there is no node `9`"));
        assert!(failure.hint.expect("a hint").contains("120000000 (db-3:6380)"));
        assert_eq!(refusal(" ").exit, Exit::Usage);
    }

    #[test]
    fn a_short_id_has_as_many_digits_as_tell_the_nodes_apart() {
        let nodes = nodes();
        assert_eq!([FIRST, SECOND, THIRD].map(|id| nodes.short(id)), ["723104338", "723104339", "120000000"]);
        assert_eq!(nodes.short(5), "5");
        let alone = Nodes::new(vec![node(FIRST, "a", 1), node(3, "b", 1)]);
        assert_eq!([FIRST, 3].map(|id| alone.short(id)), ["72310433", "3"]);
        assert_eq!(alone.short(FIRST + 1), (FIRST + 1).to_string(), "a stranger is not shortened");
    }
}
