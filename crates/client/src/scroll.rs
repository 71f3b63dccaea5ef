//! All points of a collection, page by page.

use std::collections::VecDeque;

use sagitta_model::Record;
use sagitta_wire::points::Scroll;

use crate::client::Client;
use crate::error::ClientError;

/// Walks all points that a filter passes, ascending by id. After an error the walk can be continued where it was.
#[derive(Debug)]
pub struct Scroller {
    client: Client,
    scroll: Scroll,
    page_size: usize,
    /// Of the next page; `None` after the last one.
    token: Option<String>,
    read: VecDeque<Record>,
}

impl Scroller {
    pub(crate) fn new(client: Client, scroll: Scroll, page_size: usize) -> Self {
        Self { client, scroll, page_size, token: Some(String::new()), read: VecDeque::new() }
    }

    /// The next point, or `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Record, ClientError>> {
        while self.read.is_empty() {
            match self.next_page().await? {
                Ok(page) => self.read.extend(page),
                Err(error) => return Some(Err(error)),
            }
        }
        self.read.pop_front().map(Ok)
    }

    /// The points that were read ahead, or else the next page, which may be empty; `None` after the last.
    pub async fn next_page(&mut self) -> Option<Result<Vec<Record>, ClientError>> {
        if !self.read.is_empty() {
            return Some(Ok(self.read.drain(..).collect()));
        }
        let token = self.token.clone()?;
        match self.client.scroll_page(self.scroll.clone(), self.page_size, token).await {
            Ok(page) => {
                self.token = Some(page.next_page_token).filter(|token| !token.is_empty());
                Some(Ok(page.points))
            }
            Err(error) => Some(Err(error)),
        }
    }
}
