//! Numbers and names as people read them.

use crate::ops::Part;

/// A count with commas between thousands: `11,689,512`.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A length in bytes, in decimal units: `46.8 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 99.95) + usize::from(unit > 0 && value < 9.995);
    format!("{value:.decimals$} {}", UNITS.get(unit).copied().unwrap_or_default())
}

/// A share in percent, `-` of nothing. Only all is `100.0 %` and only nothing is `0.0 %`.
pub fn percent(part: u64, whole: u64) -> String {
    match (part, 100.0 * part as f64 / whole as f64) {
        (_, _) if whole == 0 => "-".to_owned(),
        (1.., share) if share < 0.05 => "< 0.1 %".to_owned(),
        (_, share) if part < whole && share >= 99.95 => "> 99.9 %".to_owned(),
        (_, share) => format!("{share:.1} %"),
    }
}

/// A duration: `0.42 s`, `310 ms`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.9995 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

/// What channels are in an attention product: `heads`, `head dimensions`.
pub fn part(part: Part) -> &'static str {
    match part {
        Part::Heads => "heads",
        Part::HeadDimensions => "head dimensions",
    }
}

/// A name of at most `width` characters (at least 5), its middle left out where it is longer. Names in a model may hold
/// anything, also what steers a terminal, so control characters become `\u{fffd}`.
pub fn shorten(name: &str, width: usize) -> String {
    let characters: Vec<char> = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let width = width.max(5);
    if characters.len() <= width {
        return characters.into_iter().collect();
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    let (first, last) = (characters.iter().take(head), characters.iter().skip(characters.len() - tail));
    first.chain(std::iter::once(&'…')).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(11_689_512), "11,689,512");
        assert_eq!(thousands(512), "512");
        assert_eq!(thousands(0), "0");
        assert_eq!(bytes(46_800_000), "46.8 MB");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000_000), "1.00 MB");
        assert_eq!(bytes(999_700), "1.00 MB");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(9999, 10_000), "> 99.9 %");
        assert_eq!(percent(1, 10_000), "< 0.1 %");
        assert_eq!(seconds(0.31), "310 ms");
        assert_eq!(seconds(2.04), "2.0 s");
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shorten("backbone.layer1.0.conv1.weight", 11), "backb…eight");
        assert_eq!(shorten("short", 5), "short");
        assert_eq!(shorten("a\u{1b}[31mb", 20), "a\u{fffd}[31mb");
    }
}
