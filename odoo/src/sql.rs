//! Quoting for the statements that take no parameters: `CREATE DATABASE`, `ALTER ROLE`, `COMMENT ON` and their
//! kind. Everything else binds its values.

/// A name as SQL writes it, whatever it holds.
pub(crate) fn quote_identifier(name: &str) -> String {
    debug_assert!(!name.contains('\0'), "Postgres has no name with a zero byte");
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it, whatever it holds and whatever `standard_conforming_strings` says.
pub(crate) fn quote_literal(text: &str) -> String {
    debug_assert!(!text.contains('\0'), "Postgres has no text with a zero byte");
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_quoted_part_is_doubled() {
        assert_eq!(
            quote_identifier(r#"a"; DROP ROLE b; --"#),
            r#""a""; DROP ROLE b; --""#
        );
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"\'; --"), r" E'\\''; --'");
    }
}
