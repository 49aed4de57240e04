//! Escaping and the few words for numbers that every page uses.

use std::fmt::Write as _;

/// Escapes `text` for HTML and SVG, both as content and inside a double-quoted attribute.
///
/// Control characters that HTML and XML forbid become U+FFFD, so that a hostile key or log line cannot
/// break the page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || is_direction_override(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Characters that reorder the text around them: a log line with one would garble its neighbours.
fn is_direction_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON for the inside of a `<script>` element: no `<`, `>` or `&` is left that could end it.
pub fn script_json(value: &serde_json::Value) -> String {
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// A coordinate with at most one decimal: a page has tens of thousands of them.
pub fn px(value: f64) -> String {
    let tenths = (value * 10.0).round() as i64;
    if tenths % 10 == 0 {
        return (tenths / 10).to_string();
    }
    let sign = if tenths < 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10)
}

/// `950 µs`, `1.42 ms`, `4.0 s`, `2 min 5 s`: three digits are enough to read.
pub fn duration_us(us: f64) -> String {
    match us {
        us if us < 1.0 => format!("{us:.2} µs"),
        us if us < 999.5 => format!("{} µs", three_digits(us)),
        us if us < 999_500.0 => format!("{} ms", three_digits(us / 1e3)),
        us if us < 120e6 => format!("{} s", three_digits(us / 1e6)),
        us => {
            let secs = (us / 1e6).round() as u64;
            format!("{} min {} s", secs / 60, secs % 60)
        }
    }
}

pub fn duration_ms(ms: u64) -> String {
    duration_us(ms as f64 * 1e3)
}

/// `1234` as `1,234`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `11.3 k`, `842`, `1.2 M`: a rate at a glance.
pub fn rate(per_sec: f64) -> String {
    match per_sec {
        r if r < 999.5 => three_digits(r),
        r if r < 999_500.0 => format!("{} k", three_digits(r / 1e3)),
        r => format!("{} M", three_digits(r / 1e6)),
    }
}

/// Three significant digits, trailing zeros of a fraction cut: `1`, `12.3`, `0.12`.
pub fn three_digits(value: f64) -> String {
    let mut out = String::new();
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    write!(out, "{value:.decimals$}").expect("writing to a String cannot fail");
    if out.contains('.') {
        out.truncate(out.trim_end_matches('0').trim_end_matches('.').len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_has_no_character_that_opens_or_closes_anything() {
        let hostile = "</script><img src=x onerror=\"alert('1')\">&\u{0}\u{202e}";
        let safe = escape(hostile);
        assert!(!safe.contains(['<', '>', '"', '\'', '\u{0}', '\u{202e}']), "{safe}");
        assert!(safe.contains("&amp;"));
    }

    #[test]
    fn script_json_cannot_end_its_element_and_still_parses() {
        let value = serde_json::json!({"a": "</script><!-- & \u{2028}"});
        let text = script_json(&value);
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("is JSON"), value);
    }

    #[test]
    fn numbers_read_with_three_digits_and_a_unit() {
        assert_eq!(duration_us(0.0), "0.00 µs");
        assert_eq!(duration_us(950.0), "950 µs");
        assert_eq!(duration_us(1420.0), "1.42 ms");
        assert_eq!(duration_us(999_700.0), "1 s");
        assert_eq!(duration_ms(4000), "4 s");
        assert_eq!(duration_ms(125_000), "2 min 5 s");
        assert_eq!(rate(11_340.0), "11.3 k");
        assert_eq!(rate(842.2), "842");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
    }

    #[test]
    fn coordinates_keep_one_decimal() {
        assert_eq!(px(12.0), "12");
        assert_eq!(px(12.34), "12.3");
        assert_eq!(px(-0.26), "-0.3");
        assert_eq!(px(-0.04), "0");
    }
}
