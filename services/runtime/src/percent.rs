//! Percent-encoding (RFC 3986, section 2.1) of text that comes from outside and goes into a NATS header. A header is one
//! line of ASCII: some clients lose all headers of a message that has a byte beyond it.

use std::fmt::Write as _;

/// Encodes what is not visible ASCII, and the percent sign.
pub fn encode_word(text: &str, to: &mut String) {
    encode(text, |byte| matches!(byte, b'!'..=b'~'), to);
}

/// The same, but blanks stay: for a sentence.
pub fn encoded_sentence(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode(text, |byte| matches!(byte, b' '..=b'~'), &mut encoded);
    encoded
}

fn encode(text: &str, is_plain: impl Fn(u8) -> bool, to: &mut String) {
    for byte in text.bytes() {
        match byte {
            _ if is_plain(byte) && byte != b'%' => to.push(char::from(byte)),
            // Writing to a String does not fail.
            _ => _ = write!(to, "%{byte:02X}"),
        }
    }
}

/// The text that was encoded; `None` if it is not well-formed.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The text of a header that may be encoded or not.
pub fn decoded_or_raw(text: &str) -> String {
    decoded(text).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_ascii_and_comes_back() {
        for text in ["Zoë", "", " a b ", "100 %", "%41", "line\nbreak", "\u{202E}", "日本"] {
            let mut word = String::new();
            encode_word(text, &mut word);
            assert!(word.bytes().all(|byte| byte.is_ascii_graphic()), "{word}");
            assert_eq!(decoded(&word).as_deref(), Some(text));
            let sentence = encoded_sentence(text);
            assert!(sentence.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{sentence}");
            assert_eq!(decoded(&sentence).as_deref(), Some(text));
        }
    }

    /// Others write headers as they like.
    #[test]
    fn a_header_that_is_not_encoded_is_read_as_it_is() {
        for raw in ["Zoë", "50% off", "%", "%f", "%ff", "a b"] {
            assert_eq!(decoded_or_raw(raw), raw);
        }
        assert_eq!(decoded_or_raw("Zo%C3%AB"), "Zoë");
    }
}
