//! Snake case the way lodash splits words, which is what RudderStack's column names are made of.
//!
//! Words end where case or kind changes: `fooBar` is `foo bar`, `XMLHttp` is `XML Http`. Digits are words of their own, or
//! cling to the letters beside them ([`Digits`]); ordinals (`1st`) stay whole either way. The rules come from lodash's
//! `words` (MIT) and four more for clinging digits; they are matched by hand here because a name is made per column and
//! backtracking expressions cost microseconds. Emoji and other astral characters separate words.

/// Whether digits stay with the letters beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digits {
    /// `v3` is one word: destinations since `underscoreDivideNumbers` exists.
    Cling,
    /// `v3` is two words: destinations with `underscoreDivideNumbers`.
    Divide,
}

/// `text` in snake case: its words in lower case, joined with `_`. Apostrophes vanish.
pub fn snake_case(text: &str, digits: Digits) -> String {
    let kept: String = text.chars().filter(|c| !matches!(c, '\'' | '’')).collect();
    let mut snake = String::with_capacity(kept.len() + 4);
    for word in words(&kept, digits) {
        if !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(word.chars().flat_map(char::to_lowercase));
    }
    snake
}

/// The words of `text`, in order.
pub fn words(text: &str, digits: Digits) -> Vec<&str> {
    let classes: Vec<(usize, Class)> = text
        .char_indices()
        .map(|(at, c)| (at, Class::of(c)))
        .collect();
    let scan = Scan { text, classes };
    let mut words = Vec::new();
    let mut from = 0;
    while from < scan.classes.len() {
        match scan.word(from, digits) {
            Some(to) => {
                words.push(scan.slice(from, to));
                from = to;
            }
            None => from += 1,
        }
    }
    words
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    /// Letters without a case that lodash knows (Latin Extended, Greek, …): they join both kinds of word.
    Other,
    /// Anything between words.
    Break,
}

impl Class {
    fn of(c: char) -> Self {
        match c {
            '0'..='9' => Self::Digit,
            'a'..='z' | 'ß'..='ö' | 'ø'..='ÿ' => Self::Lower,
            'A'..='Z' | 'À'..='Ö' | 'Ø'..='Þ' => Self::Upper,
            '\0'..='\u{bf}' | '×' | '÷' | '\u{2000}'..='\u{206f}' | '\u{2700}'..='\u{27bf}' => {
                Self::Break
            }
            '\u{1680}' | '\u{180e}' | '\u{3000}' | '\u{feff}' | '\u{10000}'.. => Self::Break,
            _ => Self::Other,
        }
    }

    fn is_lower_or_other(self) -> bool {
        matches!(self, Self::Lower | Self::Other)
    }
}

struct Scan<'a> {
    text: &'a str,
    classes: Vec<(usize, Class)>,
}

impl<'a> Scan<'a> {
    /// The end of the word that begins at `from`, if one does. The first rule that matches wins.
    fn word(&self, from: usize, digits: Digits) -> Option<usize> {
        let clinging = match digits {
            Digits::Cling => self.clinging(from),
            Digits::Divide => None,
        };
        clinging
            .or_else(|| self.regular(from))
            .or_else(|| self.acronym(from))
            .or_else(|| self.capitalised(from, Class::is_lower_or_other))
            .or_else(|| self.run(from, |class| class == Class::Upper))
            .or_else(|| self.ordinal(from))
            .or_else(|| self.run(from, |class| class == Class::Digit))
    }

    /// Letters with digits after them, or digits with letters after them.
    fn clinging(&self, from: usize) -> Option<usize> {
        let is_digit = |class| class == Class::Digit;
        let word = |at| self.capitalised(at, |class| class == Class::Lower);
        let shout = |at| self.run(at, |class| class == Class::Upper);
        let digits = |at| self.run(at, is_digit);
        word(from)
            .and_then(digits)
            .or_else(|| shout(from).and_then(digits))
            .or_else(|| digits(from).and_then(word))
            .or_else(|| digits(from).and_then(shout))
    }

    /// `Foo` or `foo`, before a break, a capital or the end.
    fn regular(&self, from: usize) -> Option<usize> {
        let to = self.capitalised(from, |class| class == Class::Lower)?;
        matches!(self.class(to), None | Some(Class::Break | Class::Upper)).then_some(to)
    }

    /// Capitals, leaving the last to the word that it begins: `XML` in `XMLHttp`.
    fn acronym(&self, from: usize) -> Option<usize> {
        let end = self.run(from, |class| matches!(class, Class::Upper | Class::Other))?;
        if matches!(self.class(end), None | Some(Class::Break)) {
            return Some(end);
        }
        (from + 1..=end).rev().find(|&to| {
            self.class(to) == Some(Class::Upper)
                && self.class(to + 1).is_some_and(Class::is_lower_or_other)
        })
    }

    /// `1st`, `22ND`, `4th`: digits with the suffix that English gives them, at the end of a word.
    fn ordinal(&self, from: usize) -> Option<usize> {
        let digits = self.run(from, |class| class == Class::Digit)?;
        let suffix = self.slice(digits, (digits + 2).min(self.classes.len()));
        let expected = match self.slice(digits - 1, digits) {
            "1" => ["st", "ST"],
            "2" => ["nd", "ND"],
            "3" => ["rd", "RD"],
            _ => ["th", "TH"],
        };
        let kind = expected.iter().position(|&known| known == suffix)?;
        let to = digits + 2;
        let next = self.slice(to.min(self.classes.len()), (to + 1).min(self.classes.len()));
        let ends = match next.chars().next() {
            None | Some('_') => true,
            Some(c) if kind == 0 && c.is_ascii_uppercase() => true,
            Some(c) if kind == 1 && c.is_ascii_lowercase() => true,
            Some(c) => !c.is_alphanumeric(),
        };
        ends.then_some(to)
    }

    /// An optional capital, then at least one character of `rest`.
    fn capitalised(&self, from: usize, rest: impl Fn(Class) -> bool) -> Option<usize> {
        let from = from + usize::from(self.class(from) == Some(Class::Upper));
        self.run(from, rest)
    }

    /// The end of the run of `wanted` that begins at `from`; `None` for an empty one.
    fn run(&self, from: usize, wanted: impl Fn(Class) -> bool) -> Option<usize> {
        let mut to = from;
        while self.class(to).is_some_and(&wanted) {
            to += 1;
        }
        (to > from).then_some(to)
    }

    fn class(&self, at: usize) -> Option<Class> {
        self.classes.get(at).map(|&(_, class)| class)
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        let byte = |at: usize| {
            self.classes
                .get(at)
                .map_or(self.text.len(), |&(byte, _)| byte)
        };
        &self.text[byte(from)..byte(to)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_end_where_case_or_kind_changes() {
        let divided = [
            ("fooBar", "foo_bar"),
            ("FOO BAR", "foo_bar"),
            ("XMLHttpRequest", "xml_http_request"),
            ("iOS", "i_os"),
            ("--foo--bar--", "foo_bar"),
            ("isISO8601Date", "is_iso_8601_date"),
            ("24h", "24_h"),
            ("1stPlace", "1st_place"),
            ("22ND", "22nd"),
            ("4thing", "4_thing"),
            ("11st", "11st"),
            ("", ""),
        ];
        for (text, expected) in divided {
            assert_eq!(snake_case(text, Digits::Divide), expected, "{text}");
        }
    }

    #[test]
    fn digits_cling_to_the_letters_before_them_first() {
        let clinging = [
            ("x1y2", "x1_y2"),
            ("ISO8601Date", "iso8601_date"),
            ("24Hours", "24hours"),
            ("24hours", "24hours"),
            ("walk500Miles", "walk500_miles"),
            ("HTTPResponse2XMLParser", "http_response2_xml_parser"),
            ("1st", "1st"),
        ];
        for (text, expected) in clinging {
            assert_eq!(snake_case(text, Digits::Cling), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn snake_case_of_any_text_has_no_capitals_and_no_empty_words(text in "\\PC{0,40}") {
            for digits in [Digits::Cling, Digits::Divide] {
                let snake = snake_case(&text, digits);
                prop_assert!(!snake.chars().any(|c| c.is_ascii_uppercase()));
                prop_assert!(!snake.starts_with('_') && !snake.ends_with('_') && !snake.contains("__"));
            }
        }

        #[test]
        fn snake_case_of_ascii_keeps_every_letter_and_digit(text in "[ -~]{0,40}") {
            let kept = |s: &str| s.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
            for digits in [Digits::Cling, Digits::Divide] {
                prop_assert_eq!(kept(&snake_case(&text, digits)), kept(&text));
            }
        }
    }
}
