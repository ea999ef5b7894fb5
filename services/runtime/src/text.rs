//! What others may have written into a text: what does not show, or looks like something else.

use unicode_normalization::UnicodeNormalization;

/// Whether it is a control or format character, or breaks a line: the categories Cc, Cf, Zl and Zp of Unicode 17. These can
/// steer a terminal, or turn the order of what is read.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}'..='\u{891}' | '\u{8E2}'
            | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}' | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0001}' | '\u{E0020}'..='\u{E007F}')
}

/// Whether it does not show in a name: what [`steers`], the property Default_Ignorable_Code_Point of Unicode 17, and blanks
/// but the plain one.
pub fn is_invisible(c: char) -> bool {
    steers(c)
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{34F}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{2800}'
            | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{E0000}'..='\u{E0FFF}')
}

/// A name as it is compared with others: without regard to case, and to other forms of the same letters, such as wide ones
/// (Unicode's normalization form NFKC).
pub fn folded(name: &str) -> String {
    name.nfkc().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_all_scripts_show_and_what_is_between_them_does_not() {
        assert!(!"Zoë Łukasz 日本 שלום 👍 a-b.c/d".contains(is_invisible));
        for c in ['\0', '\n', '\u{AD}', '\u{200B}', '\u{202E}', '\u{2060}', '\u{FEFF}', '\u{E0041}'] {
            assert!(steers(c) && is_invisible(c), "{c:?}");
        }
        for c in ['\u{A0}', '\u{2009}', '\u{3000}', '\u{34F}', '\u{3164}', '\u{FE0F}', '\u{2800}', '\u{E0100}'] {
            assert!(!steers(c) && is_invisible(c), "{c:?}");
        }
    }

    #[test]
    fn a_name_is_the_same_in_every_form_of_its_letters() {
        for form in ["daybook", "DayBook", "dayboo\u{212A}", "\u{FF44}\u{FF41}\u{FF59}book", "\u{1D41D}aybook"] {
            assert_eq!(folded(form), "daybook");
        }
        assert_ne!(folded("daybook-shop"), "daybook");
    }
}
