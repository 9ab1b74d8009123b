//! The `Accept` header (RFC 9110, section 12.5.1): a client that takes nothing of what an endpoint has is told so before
//! anything is done.

use actix_web::{HttpRequest, http::header};

use crate::problem::{ApiError, ErrorCode};

/// Checks that the client takes one of the media types that an endpoint has; an endpoint without any has no body.
pub(super) fn check(request: &HttpRequest, media_types: &[String]) -> Result<(), ApiError> {
    let taken = |media_type: &String| {
        let ranges = request.headers().get_all(header::ACCEPT);
        takes(ranges.filter_map(|value| value.to_str().ok()), media_type)
    };
    if media_types.is_empty() || media_types.iter().any(taken) {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::NotAcceptable).detail(format!(
            "The `Accept` header excludes {}.",
            media_types.join(", ")
        )))
    }
}

/// Whether one of the ranges covers the type. No header takes all; the most exact range decides.
fn takes<'h>(headers: impl Iterator<Item = &'h str>, media_type: &str) -> bool {
    let mut best: Option<(u8, bool)> = None;
    let mut said_something = false;
    for range in headers.flat_map(|header| header.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        if name.is_empty() {
            continue;
        }
        said_something = true;
        let refused = parts.any(|part| {
            part.strip_prefix("q=")
                .is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        });
        let exactness = if name == media_type {
            3
        } else if name
            .strip_suffix("/*")
            .is_some_and(|kind| media_type.split('/').next() == Some(kind))
        {
            2
        } else if name == "*/*" || name == "*" {
            1
        } else {
            continue;
        };
        if best.is_none_or(|(known, _)| exactness > known) {
            best = Some((exactness, !refused));
        }
    }
    !said_something || best.is_some_and(|(_, fine)| fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(accept: &str) -> bool {
        takes(std::iter::once(accept), "application/json")
    }

    #[test]
    fn what_covers_the_type_takes_it() {
        for accept in [
            "",
            "*/*",
            "application/*",
            "Application/JSON",
            "text/html, */*;q=0.1",
            "application/json; charset=utf-8",
            "text/html;q=1, application/json;q=0.2",
        ] {
            assert!(json(accept), "{accept}");
        }
        assert!(takes(std::iter::empty(), "application/json"));
    }

    #[test]
    fn what_excludes_the_type_does_not() {
        for accept in [
            "text/html",
            "application/xml, text/*",
            "application/json;q=0",
            "application/json;q=0, */*",
            "*/*;q=0",
        ] {
            assert!(!json(accept), "{accept}");
        }
    }
}
