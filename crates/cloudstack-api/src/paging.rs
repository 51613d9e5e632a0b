//! Lists, page after page.
//!
//! The server counts anew for every page, and between two pages machines come and go. What was
//! gathered is therefore told together with whether it is one consistent view: whoever deletes by
//! what is *not* in a list must not do so after a drift.

use crate::client::{CallError, Client};
use crate::commands::{Command, ListCommand};
use crate::sign::Parameters;
use crate::xml::{Element, Object, ReadError};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// How many there are in all, as of this page.
    pub count: u64,
    /// Those of this page; none behind the last one.
    pub items: Vec<T>,
}

impl<T: Object> Page<T> {
    pub(crate) fn read(root: Element<'_, '_>, name: &str) -> Result<Self, ReadError> {
        let items: Vec<T> = root.field(name)?;
        // An empty list says no count.
        let count: Option<u64> = root.field("count")?;
        match count {
            Some(count) => Ok(Self { count, items }),
            None if items.is_empty() => Ok(Self { count: 0, items }),
            None => Err(ReadError::Missing { path: root.path("count") }),
        }
    }
}

/// A whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    pub items: Vec<T>,
    /// The list is not one view: the count changed between pages, or does not fit the items.
    pub drifted: bool,
}

/// A list command with its page.
struct Paged<'a, C> {
    command: &'a C,
    page: u32,
    page_size: u32,
}

impl<C: ListCommand> Command for Paged<'_, C> {
    const NAME: &'static str = C::NAME;
    type Answer = Page<C::Item>;

    fn parameters(&self, parameters: &mut Parameters) {
        self.command.parameters(parameters);
        // Only together, and at most `default.page.size`.
        parameters.set("page", self.page.to_string());
        parameters.set("pagesize", self.page_size.to_string());
    }

    fn read(root: Element<'_, '_>) -> Result<Self::Answer, ReadError> {
        C::read(root)
    }
}

/// Pages of one list; 4000 pages of 500 are two million objects.
const PAGES: u32 = 4000;

impl Client {
    /// One page of a list; `page` counts from 1.
    pub async fn page<C: ListCommand>(
        &mut self,
        command: &C,
        page: u32,
        page_size: u32,
    ) -> Result<Page<C::Item>, CallError> {
        self.call(&Paged { command, page, page_size }).await
    }

    /// A whole list, one page after the other. Any page that fails fails the list.
    pub async fn list<C: ListCommand>(
        &mut self,
        command: &C,
    ) -> Result<Listing<C::Item>, CallError> {
        let page_size = self.page_size();
        let mut listing = Listing { items: Vec::new(), drifted: false };
        let mut first_count = None;
        for number in 1..=PAGES {
            let page = self.page(command, number, page_size).await?;
            let first = *first_count.get_or_insert(page.count);
            listing.drifted |= page.count != first;
            let received = page.items.len();
            listing.items.extend(page.items);
            let gathered = listing.items.len() as u64;
            if received == 0 || gathered >= page.count {
                listing.drifted |= gathered != page.count;
                return Ok(listing);
            }
        }
        Err(CallError::Endless { command: C::NAME, pages: PAGES })
    }
}
