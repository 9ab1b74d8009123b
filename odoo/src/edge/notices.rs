//! What the edge answers by itself: one table of statuses, from which both the pages for browsers and the problem
//! details for programs (RFC 9457) are made. Nothing of the request is repeated in them but its id.

use std::fmt::Write as _;

/// One answer of the edge's own. The texts stand in Nginx's configuration, in HTML and in JSON: no quotes, no `$`,
/// no `<`.
pub(super) struct Notice {
    pub(super) status: u16,
    /// Stable word for programs. Where the API has one for the same cause, it is the API's.
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: &'static str,
}

const fn notice(status: u16, code: &'static str, title: &'static str, detail: &'static str) -> Notice {
    Notice {
        status,
        code,
        title,
        detail,
    }
}

pub(super) const NOTICES: &[Notice] = &[
    notice(
        400,
        "malformed_request",
        "Bad request",
        "The request is malformed, or carries two sessions. Deleting the cookies of this site helps in the second case.",
    ),
    notice(
        402,
        "tenant_suspended",
        "Suspended",
        "This Odoo was suspended. Its data is kept. Whoever administers the subscription can have it resumed.",
    ),
    notice(
        403,
        "forbidden",
        "Forbidden",
        "Another site may not use this one on behalf of its visitors.",
    ),
    notice(
        404,
        "not_found",
        "Nothing here",
        "There is no site at this address. It may be mistyped, or the site may have been removed.",
    ),
    notice(
        405,
        "method_not_allowed",
        "Method not allowed",
        "This method is not supported.",
    ),
    notice(
        408,
        "request_timeout",
        "Request timeout",
        "The request took too long to arrive.",
    ),
    notice(
        411,
        "length_required",
        "Length required",
        "The request needs a Content-Length.",
    ),
    notice(
        413,
        "body_too_large",
        "Too large",
        "The request is larger than what is accepted here.",
    ),
    notice(
        414,
        "uri_too_long",
        "Address too long",
        "The address of the request is longer than what is accepted here.",
    ),
    notice(
        416,
        "range_not_satisfiable",
        "Range not satisfiable",
        "The requested range does not exist.",
    ),
    notice(
        421,
        "misdirected_request",
        "Misdirected request",
        "The request was sent to the wrong host.",
    ),
    notice(
        429,
        "rate_limited",
        "Too many requests",
        "Too many requests are being answered at the moment.",
    ),
    notice(
        431,
        "headers_too_large",
        "Headers too large",
        "The headers of the request, often its cookies, are larger than what is accepted here.",
    ),
    notice(
        500,
        "internal",
        "Internal error",
        "Something went wrong on our side.",
    ),
    notice(
        501,
        "not_implemented",
        "Not implemented",
        "The request uses a transfer coding that is not supported.",
    ),
    notice(
        502,
        "bad_gateway",
        "Not reachable",
        "The service behind this address is restarting or cannot be reached. Please try again in a moment.",
    ),
    notice(
        503,
        "unavailable",
        "Maintenance",
        "This service is under maintenance and will be back soon.",
    ),
    notice(
        504,
        "gateway_timeout",
        "No answer in time",
        "The service behind this address did not answer in time.",
    ),
    notice(
        505,
        "http_version_not_supported",
        "HTTP version not supported",
        "This version of HTTP is not supported.",
    ),
];

/// Status, code, title and detail of each answer of the edge's own, for the reference of errors.
pub fn own_answers() -> impl Iterator<Item = (u16, &'static str, &'static str, &'static str)> {
    NOTICES
        .iter()
        .map(|notice| (notice.status, notice.code, notice.title, notice.detail))
}

/// Statuses that are answered the same way whoever asks; 404 differs by server.
pub(super) fn statuses() -> String {
    let statuses: Vec<_> = NOTICES
        .iter()
        .filter(|notice| notice.status != 404)
        .map(|notice| notice.status.to_string())
        .collect();
    statuses.join(" ")
}

/// The rows of a `map $status` for one column of the table.
pub(super) fn rows(column: fn(&Notice) -> &'static str) -> String {
    NOTICES.iter().fold(String::new(), |mut rows, notice| {
        writeln!(rows, "        {} \"{}\";", notice.status, column(notice))
            .expect("a String takes everything");
        rows
    })
}

/// What both kinds of answer have in common. `return` would say 500, but inside an `error_page` the status of the
/// error is kept.
const HEADERS: &str = "\
add_header X-Request-Id $edge_request_id always;
add_header Retry-After $edge_retry_after always;
add_header Allow $edge_allow always;
add_header Cache-Control no-store always;
add_header X-Content-Type-Options nosniff always;
";

/// Directives of a location that answers problem details.
pub(super) fn problem() -> String {
    let body = concat!(
        r#"{"type":"about:blank","title":"$edge_title","status":$status,"detail":"$edge_detail","#,
        r#""code":"$edge_code","request_id":"$edge_request_id"}"#
    );
    format!("default_type application/problem+json;\n{HEADERS}return 500 '{body}';\n")
}

/// Directives of a location that answers a page.
pub(super) fn page() -> String {
    let body = concat!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><title>$edge_title</title>"#,
        r#"<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">"#,
        r#"<style>body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f5f5f7;color:#222;"#,
        r#"font:17px/1.5 system-ui,sans-serif}main{max-width:30rem;padding:2rem}h1{font-size:1.6rem;margin:0 0 .5rem}"#,
        r#"small{color:#6b6b70}</style></head><body><main><h1>$edge_title</h1><p>$edge_detail</p>"#,
        r#"<small>$status &middot; $edge_request_id</small></main></body></html>"#
    );
    format!(
        "default_type text/html;\ncharset utf-8;\n{HEADERS}\
         add_header Content-Security-Policy \"default-src 'none'; style-src 'unsafe-inline'\" always;\n\
         return 500 '{body}';\n"
    )
}

#[cfg(test)]
mod tests {
    use super::NOTICES;

    #[test]
    fn texts_need_no_escape_in_nginx_html_or_json() {
        for notice in NOTICES {
            for text in [notice.code, notice.title, notice.detail] {
                assert!(
                    text.is_ascii() && !text.contains(['"', '\'', '\\', '$', '<', '&', '\n']),
                    "{text}"
                );
            }
        }
    }
}
