//! The help page at `/`, and the texts that people see instead of a file.
//!
//! Somebody who opens this host in a browser has usually been told by the browser that its
//! certificate is unknown, or came by a link that does not work. The page says which certificate is
//! served, until when, and what to do.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use status_api::CertificateStatus;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;\
                     padding:0 1rem;color:#222;background:#fff}h1{font-size:1.4rem}\
                     code{overflow-wrap:anywhere}dt{font-weight:600}dd{margin:0 0 .6rem}\
                     @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}";

/// A page of our own with nothing from elsewhere.
fn html(status: StatusCode, title: &str, body: &str) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                  form-action 'none'; frame-ancestors 'none'";
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, page).into_response()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// The page at `/`.
pub fn help(certificates: &[CertificateStatus]) -> Response {
    let mut body = "<h1>CloudStack secondary storage</h1>\n<p>This host serves download links, \
                    uploads, and copies to other zones. There is nothing to browse: links are made \
                    in the CloudStack user interface.</p>\n"
        .to_owned();
    match certificates.first() {
        None => body.push_str("<p>HTTPS is not served here.</p>\n"),
        Some(_) => body.push_str("<h2>Certificate of HTTPS</h2>\n"),
    }
    for certificate in certificates {
        body.push_str(&format!(
            "<dl><dt>For</dt><dd>{}</dd><dt>Valid until</dt><dd>{}</dd><dt>From</dt><dd>{}</dd>\
             <dt>SHA-256</dt><dd><code>{}</code></dd></dl>\n",
            escaped(&certificate.names.join(", ")),
            escaped(&certificate.expires),
            escaped(&certificate.source),
            escaped(&certificate.fingerprint),
        ));
        if let Some(problem) = &certificate.problem {
            body.push_str(&format!(
                "<p>Browsers refuse it by themselves: {}. An upload from the user interface fails \
                 without a reason until the browser was told here to accept it: open this page with \
                 <code>https://</code>, compare the fingerprint, accept. Operators can give a better \
                 one: <code>certificate_file</code> in the configuration, or the management server's \
                 own certificate.</p>\n",
                escaped(problem)
            ));
        }
    }
    html(StatusCode::OK, "Secondary storage", &body)
}

/// A refusal in words, for browsers and programs alike.
pub fn text(status: StatusCode, text: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_names_the_certificate_and_escapes_it() {
        let certificate = CertificateStatus {
            source: "self-signed".to_owned(),
            names: vec!["<b>".to_owned(), "203.0.113.7".to_owned()],
            expires: "2027-01-01T00:00:00Z".to_owned(),
            fingerprint: "00:11".to_owned(),
            problem: Some("it is self-signed".to_owned()),
        };
        let response = help(std::slice::from_ref(&certificate));
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let page = String::from_utf8(bytes.to_vec()).unwrap();
        for part in ["&lt;b&gt;, 203.0.113.7", "2027-01-01T00:00:00Z", "00:11", "self-signed"] {
            assert!(page.contains(part), "{part} not in {page}");
        }
        assert!(!page.contains("<b>"), "{page}");
    }
}
