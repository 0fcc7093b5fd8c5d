//! A look at JSON before it is parsed: how deep it goes and how many values it has, which is what parsing costs.

/// Why JSON is not parsed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OutlineError {
    #[error("JSON nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("JSON with more than {VALUES_MAX} values")]
    TooMany,
}

/// Counts brackets and separators outside of strings. Text that is no JSON passes: the parser tells why.
pub(super) fn check(json: &[u8]) -> Result<(), OutlineError> {
    let (mut depth, mut values, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b':' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(OutlineError::TooDeep);
        }
        if values > VALUES_MAX {
            return Err(OutlineError::TooMany);
        }
    }
    Ok(())
}

/// Deepest nesting. No kind of the mesh has half of it, free-form parts included.
const DEPTH_MAX: usize = 100;
/// Most values: keys count too. A review of 3 MiB has some 100,000; parsed, each takes about 100 bytes.
const VALUES_MAX: usize = 300_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_number_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
        assert_eq!(check(nested(DEPTH_MAX + 1).as_bytes()), Err(OutlineError::TooDeep));
        let wide = |commas: usize| format!("[{}0]", "0,".repeat(commas));
        assert_eq!(check(wide(VALUES_MAX - 1).as_bytes()), Ok(()));
        assert_eq!(check(wide(VALUES_MAX).as_bytes()), Err(OutlineError::TooMany));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!(r#"{{"a\"": "{}", "b\\": 1}}"#, "[{".repeat(1000));
        assert_eq!(check(text.as_bytes()), Ok(()));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }
}
