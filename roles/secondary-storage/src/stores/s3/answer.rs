//! What the XML of an answer says.

use roxmltree::{Document, Node};

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    pub objects: Vec<Object>,
    /// Beginnings of keys up to the delimiter.
    pub prefixes: Vec<String>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<String>,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    pub key: String,
    pub upload: String,
    pub initiated: i64,
}

/// The answer of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    /// The region that it should have been signed for.
    pub region: Option<String>,
}

/// The text is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not understood: {0}")]
pub struct AnswerError(String);

fn parse<'a>(text: &'a str, root: &str) -> Result<Document<'a>, AnswerError> {
    let document = Document::parse(text).map_err(|error| AnswerError(error.to_string()))?;
    let found = document.root_element().tag_name().name();
    if found == root { Ok(document) } else { Err(AnswerError(format!("{found} is not {root}"))) }
}

fn child(node: Node<'_, '_>, name: &str) -> Option<String> {
    let found = node.children().find(|child| child.tag_name().name() == name)?;
    Some(found.text().unwrap_or_default().to_owned())
}

fn seconds(node: Node<'_, '_>, name: &str) -> i64 {
    let time = child(node, name).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or(0, jiff::Timestamp::as_second)
}

/// Of a listing of the second version. A page that says there is more and not where is an error: what
/// is missing would be taken for deleted.
pub fn page(text: &str) -> Result<Page, AnswerError> {
    let document = parse(text, "ListBucketResult")?;
    let root = document.root_element();
    let mut page = Page::default();
    for node in root.children() {
        match node.tag_name().name() {
            "Contents" => {
                let key = child(node, "Key").ok_or_else(|| AnswerError("no key".to_owned()))?;
                let size = child(node, "Size").and_then(|size| size.parse().ok());
                let size = size.ok_or_else(|| AnswerError(format!("{key:?} has no size")))?;
                page.objects.push(Object { key, size, modified: seconds(node, "LastModified") });
            }
            "CommonPrefixes" => page.prefixes.extend(child(node, "Prefix")),
            _ => {}
        }
    }
    if child(root, "IsTruncated").is_some_and(|text| text == "true") {
        let next = child(root, "NextContinuationToken").filter(|token| !token.is_empty());
        page.next = Some(next.ok_or_else(|| AnswerError("a page has no next one".to_owned()))?);
    }
    Ok(page)
}

/// The name of an upload that was begun now.
pub fn upload(text: &str) -> Result<String, AnswerError> {
    let document = parse(text, "InitiateMultipartUploadResult")?;
    let name = child(document.root_element(), "UploadId").filter(|name| !name.is_empty());
    name.ok_or_else(|| AnswerError("it names no upload".to_owned()))
}

/// Uploads that are not complete.
pub fn uploads(text: &str) -> Result<Vec<Begun>, AnswerError> {
    let document = parse(text, "ListMultipartUploadsResult")?;
    let nodes = document.root_element().children();
    let nodes = nodes.filter(|node| node.tag_name().name() == "Upload");
    Ok(nodes
        .filter_map(|node| {
            let (key, upload) = (child(node, "Key")?, child(node, "UploadId")?);
            Some(Begun { key, upload, initiated: seconds(node, "Initiated") })
        })
        .collect())
}

/// What a refusal says; nothing when it is no XML. A completion may fail with the status of a success.
pub fn refusal(text: &str) -> Option<Refusal> {
    let document = parse(text, "Error").ok()?;
    let root = document.root_element();
    Some(Refusal {
        code: child(root, "Code").unwrap_or_default(),
        message: child(root, "Message").unwrap_or_default(),
        region: child(root, "Region").filter(|region| !region.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_to_their_end() {
        let text = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <IsTruncated>true</IsTruncated><Contents><Key>a &amp; b</Key><Size>5</Size>\
            <LastModified>2026-11-28T08:00:00.000Z</LastModified></Contents>\
            <CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes>\
            <NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
        let found = page(text).unwrap();
        assert_eq!(found.objects[0].key, "a & b");
        assert_eq!(found.objects[0].modified, 1_795_852_800);
        assert_eq!((found.prefixes, found.next), (vec!["x/".to_owned()], Some("t".to_owned())));
        let cut = text.replace("<NextContinuationToken>t</NextContinuationToken>", "");
        assert!(page(&cut).is_err(), "the rest would be taken for deleted");
        assert!(page("<html/>").is_err() && page("").is_err());
        assert!(page(&text.replace("<Size>5</Size>", "")).is_err());
    }

    #[test]
    fn refusals_are_told_by_their_code() {
        let text = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-1</Region></Error>";
        let found = refusal(text).unwrap();
        assert_eq!(found.region.as_deref(), Some("eu-1"));
        assert_eq!(refusal("<CompleteMultipartUploadResult/>"), None);
        let begun = uploads(
            "<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId>\
            <Initiated>2026-11-28T08:00:00Z</Initiated></Upload></ListMultipartUploadsResult>",
        );
        assert_eq!(begun.unwrap()[0].upload, "u");
        assert_eq!(upload("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>").unwrap(), "u");
        assert!(upload("<InitiateMultipartUploadResult/>").is_err());
    }
}
