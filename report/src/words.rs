//! How numbers are written: the same in every form of a report.

use minijinja::Environment;

/// Bytes as MiB with one decimal.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// The difference of two numbers of bytes, in MiB or KiB, with its sign.
pub fn bytes_more(now: u64, before: u64) -> String {
    let difference = now as f64 - before as f64;
    let sign = match difference {
        d if d > 0.0 => "+",
        d if d < 0.0 => "−",
        _ => "±",
    };
    let size = difference.abs();
    if size >= f64::from(1 << 20) / 10.0 {
        format!("{sign}{:.1} MiB", size / f64::from(1 << 20))
    } else if size >= 1024.0 {
        format!("{sign}{:.1} KiB", size / 1024.0)
    } else {
        format!("{sign}{size:.0} B")
    }
}

/// Three significant digits.
pub fn figure(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".into();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    match usize::try_from(digits.min(9)) {
        Ok(decimals) => format!("{value:.decimals$}"),
        Err(_) => format!("{value:.0}"),
    }
}

/// How much more the second is than the first, in percent.
pub fn percent_more(before: f64, after: f64) -> String {
    if before == 0.0 {
        return "from nothing".into();
    }
    format!("{:+.0} %", (after / before - 1.0) * 100.0)
}

/// `2026-01-31 12:00` of a time in RFC 3339.
pub fn moment(rfc3339: &str) -> String {
    let short: String = rfc3339.chars().take(16).collect();
    short.replacen('T', " ", 1)
}

/// The words of a report for an outcome.
pub fn outcome(word: &str) -> &'static str {
    match word {
        "pass" => "passed",
        "fail" => "failed",
        "skip" => "skipped",
        _ => "could not run",
    }
}

/// Makes them known to templates.
pub(super) fn register(engine: &mut Environment) {
    engine.add_filter("mib", mib);
    engine.add_filter("figure", figure);
    engine.add_filter("moment", |text: String| moment(&text));
    engine.add_filter("outcome", |word: String| outcome(&word));
    engine.add_function("bytes_more", bytes_more);
    engine.add_function("percent_more", percent_more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(mib(228_589_568), "218.0");
        assert_eq!(bytes_more(10 << 20, 8 << 20), "+2.0 MiB");
        assert_eq!(bytes_more(0, 2048), "−2.0 KiB");
        assert_eq!(bytes_more(5, 5), "±0 B");
        let figures = [
            (0.0, "0"),
            (0.012_345, "0.0123"),
            (1.0, "1.00"),
            (98.76, "98.8"),
        ];
        for (value, text) in figures {
            assert_eq!(figure(value), text);
        }
        assert_eq!(figure(12_345.6), "12346");
        assert_eq!(percent_more(10.0, 11.5), "+15 %");
        assert_eq!(moment("2026-01-31T12:00:59Z"), "2026-01-31 12:00");
    }
}
